"""Which trained position each frame of an extended clip begins with.

ExVideo's initialisation (Duan et al., arXiv 2406.14130, section 3.2, "cyclic pattern"; the exact walk is the
published code's): the frames that the base was trained for keep their own positions, later ones walk back and forth
over the last four fifths of them. Neighbouring frames keep neighbouring positions, and none is farther from its
neighbour than in a trained clip.
"""

from __future__ import annotations


def ping_pong(num_frames: int, base_frames: int) -> tuple[int, ...]:
    """Per frame of the extended clip, the base's position whose embedding it starts from.

    With base_frames 25: 0 to 24, then 23 down to 4, 5 up to 24, and again.

    Args:
        num_frames: Of the extended clip.
        base_frames: Of the clips that the base was trained on: 25 for SVD-XT, 14 for SVD.
    """
    back = min(max(base_frames * 4 // 5, 1), base_frames - 1)
    return tuple(frame if frame < base_frames else _later(frame, base_frames, back) for frame in range(num_frames))


def _later(frame: int, base_frames: int, back: int) -> int:
    if not back:
        return 0
    step = (frame - base_frames) % (2 * back)
    return base_frames - 2 - step if step < back else base_frames - 2 * back + step
