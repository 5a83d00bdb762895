"""Long clips out of latents in bounded memory: chunks of frames that overlap in time, one blended into the next."""

from __future__ import annotations

from collections.abc import Callable

import torch

from modelgrow.surgery import GenerateError

Decode = Callable[[torch.Tensor], torch.Tensor]
"""Latents (T, C, h, w) of neighboring frames to pixels (T, 3, H, W)."""

CHUNK = 16
"""Frames decoded at a time unless told otherwise."""


def decode_in_chunks(
    latents: torch.Tensor, decode: Decode, *, chunk_size: int = CHUNK, overlap: int | None = None
) -> torch.Tensor:
    """Decode a clip, `chunk_size` frames at a time.

    SVD's decoder mixes neighboring frames, so a frame at the edge of a chunk lacks some of its neighbors, and a clip
    decoded in plain chunks flickers where they meet. Over the frames that two chunks share, the later one fades in
    linearly. A clip of no more than `chunk_size` frames is decoded whole.

    Args:
        latents: (T, C, h, w), as `decode` takes them.
        decode: Called for each chunk.
        chunk_size: Frames in a chunk.
        overlap: Frames that two neighbors share at least; None is a quarter of a chunk.

    Returns:
        (T, 3, H, W) float32 in main memory: only one chunk is on the device at a time.

    Raises:
        GenerateError: The overlap leaves a chunk nothing of its own.
    """
    frames = len(latents)
    overlap = chunk_size // 4 if overlap is None else overlap
    if chunk_size < 1 or not 0 <= overlap < chunk_size:
        raise GenerateError(
            f"chunks of {chunk_size} frames with an overlap of {overlap}; a chunk has 1 frame at least, "
            "and an overlap is shorter than a chunk"
        )
    pixels, done = torch.empty(0), 0
    for start in chunk_starts(frames, chunk_size, overlap):
        chunk = decode(latents[start : start + chunk_size]).to("cpu", torch.float32)
        if done == 0:
            pixels = chunk.new_empty(frames, *chunk.shape[1:])
        shared = done - start
        fade_in = torch.arange(1, shared + 1).div(shared + 1).view(-1, 1, 1, 1)
        pixels[start:done].lerp_(chunk[:shared], fade_in)
        pixels[done : start + len(chunk)] = chunk[shared:]
        done = start + len(chunk)
    return pixels


def chunk_starts(frames: int, chunk_size: int, overlap: int) -> list[int]:
    """First frames of as few chunks as cover the clip, spread evenly, all of full length."""
    if frames <= chunk_size:
        return [0]
    gaps = -(-(frames - chunk_size) // (chunk_size - overlap))
    return [number * (frames - chunk_size) // gaps for number in range(gaps + 1)]
