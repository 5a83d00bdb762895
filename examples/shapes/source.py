"""The small world as a source of training clips: no files, and none that the foundation has seen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modelgrow.surgery import DataError
from modelgrow.train.data.clip import Clip, Refused
from modelgrow.train.data.fit import crop_box

from .captions import detailed_caption, short_caption
from .paraphrases import long_paraphrase, paraphrase
from .render import render
from .scene import sample_scene

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .scene import Scene

SEED = 100
"""Its series of clips. The foundation was trained, validated and measured on others."""
COUNT = 1024
FPS = 8
_FRAMES, _SIDE = 17, 64

Say = Callable[["Scene", np.random.Generator], tuple[str, str]]
"""A scene's caption and its long one."""

_SPEC = re.compile(r"(shapes|paraphrases)(?::([1-3])(?:-([1-3]))?(?::([1-9][0-9]{0,6}))?)?")


@dataclass(frozen=True, kw_only=True)
class ShapesSource:
    """Drawn clips. They are drawn anew at each reading, sharp at every size."""

    name: str
    clips: tuple[Clip, ...]
    fingerprint: str
    scenes: Mapping[str, Scene]
    """By key."""
    refused: tuple[Refused, ...] = ()

    @property
    def found_controls(self) -> Mapping[str, int]:
        """None lies beside what is drawn."""
        return {}

    def read_control(self, clip: Clip, name: str, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """See `ClipSource.read_control`."""
        raise DataError(f"{clip.key}: is drawn, and has no {name}")

    def read(self, clip: Clip, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """See `ClipSource.read`. Drawn large enough to cover the size asked for, then cropped; nothing is resized."""
        if num_frames > clip.num_frames:
            raise DataError(f"{clip.key}: was made for {clip.num_frames} frames, {num_frames} are wanted")
        scale = max(height / clip.height, width / clip.width)
        drawn_height, drawn_width = round(clip.height * scale), round(clip.width * scale)
        left, top, _, _ = crop_box(drawn_height, drawn_width, to_height=height, to_width=width)
        frames = render(self.scenes[clip.key], num_frames=num_frames, height=drawn_height, width=drawn_width)
        return frames[:, int(top) : int(top) + height, int(left) : int(left) + width]


def open_shapes(
    spec: str, *, num_frames: int | None = None, height: int | None = None, width: int | None = None
) -> ShapesSource:
    """Open "shapes", "shapes:2", "shapes:2-3" or "shapes:2-3:4096": the numbers of objects, how many clips.

    "paraphrases" are the same clips with captions in other words (`paraphrases`). A quarter of the short ones and half
    of the long ones stay in the base's own words: a model that never reads those again forgets them.

    Args:
        spec: As above. Without numbers, 1 to 3 objects; 1024 clips.
        num_frames, height, width: Of the clips; None is the foundation's 17, 64 and 64.

    Raises:
        DataError: The spec or a size makes no sense.
    """
    match = _SPEC.fullmatch(spec)
    low = int((match and match[2]) or 1)
    high = int((match and (match[3] or match[2])) or 3)
    if match is None or low > high:
        raise DataError(f"{spec}: expected shapes, shapes:OBJECTS or shapes:OBJECTS:CLIPS, as shapes:2-3:4096; 1 to 3")
    return _draw(
        spec,
        range(low, high + 1),
        int(match[4] or COUNT),
        _paraphrases if match[1] == "paraphrases" else _captions,
        num_frames=_FRAMES if num_frames is None else num_frames,
        height=_SIDE if height is None else height,
        width=_SIDE if width is None else width,
    )


def _captions(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return short_caption(scene), detailed_caption(scene, rng)


def _paraphrases(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    short = paraphrase(scene, rng) if rng.integers(4) else short_caption(scene)
    long = long_paraphrase if rng.integers(2) else detailed_caption
    return short, long(scene, rng)


def _draw(spec: str, objects: range, count: int, say: Say, *, num_frames: int, height: int, width: int) -> ShapesSource:
    if min(num_frames, height, width) < 1:
        raise DataError(f"clips of {num_frames} frames of {width} x {height} can't be drawn; sizes begin at 1")
    clips, scenes = [], {}
    for index in range(count):
        # The same draws as `make_clip`, so that a key is all it takes to have the clip again.
        rng = np.random.default_rng([SEED, index])
        scene = sample_scene(rng, num_objects=tuple(objects), num_frames=num_frames, aspect=width / height)
        caption, long_caption = say(scene, rng)
        clip = Clip(
            key=f"{SEED}-{index}",
            caption=caption,
            long_caption=long_caption,
            num_frames=num_frames,
            height=height,
            width=width,
            fps=FPS,
        )
        clips.append(clip)
        scenes[clip.key] = scene
    identity = [[num_frames, height, width], *([clip.key, repr(scenes[clip.key])] for clip in clips)]
    if say is not _captions:
        identity.append([f"{clip.caption}{clip.long_caption}" for clip in clips])
    return ShapesSource(
        name=spec,
        clips=tuple(clips),
        fingerprint=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        scenes=scenes,
    )
