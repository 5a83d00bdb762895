"""Chunks that overlap: exact where one covers the clip, smoother than plain ones at the seams, in bounded memory."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any

import pytest
import torch
from models import build
from tiny_svd import VAE

from modelgrow.pipelines.activations import TensorPeak
from modelgrow.pipelines.exvideo.decode import chunk_starts, decode_in_chunks
from modelgrow.surgery import GenerateError


@pytest.mark.parametrize(
    ("frames", "chunk", "overlap", "starts"),
    [
        (1, 16, 4, [0]),
        (16, 16, 4, [0]),
        (17, 16, 4, [0, 1]),
        (28, 16, 4, [0, 12]),
        (29, 16, 4, [0, 6, 13]),
        (8, 4, 0, [0, 4]),
        (128, 16, 4, [0, 11, 22, 33, 44, 56, 67, 78, 89, 100, 112]),
    ],
)
def test_starts_by_hand(frames: int, chunk: int, overlap: int, starts: list[int]) -> None:
    assert chunk_starts(frames, chunk, overlap) == starts


@pytest.mark.parametrize("overlap", range(5))
@pytest.mark.parametrize("frames", range(6, 40))
def test_every_frame_is_covered_and_every_overlap_long_enough(frames: int, overlap: int) -> None:
    starts = chunk_starts(frames, 5, overlap)
    assert starts[0] == 0
    assert starts[-1] == frames - 5
    assert all(after - before <= 5 - overlap for before, after in pairwise(starts))


def test_fade_by_hand() -> None:
    """Each chunk decodes to its own number: the second one fades in over the two frames that are shared."""
    numbers = iter([0.0, 3.0])
    latents = torch.zeros(6, 1, 1, 1)
    pixels = decode_in_chunks(
        latents, lambda chunk: torch.full((len(chunk), 1, 1, 1), next(numbers)), chunk_size=4, overlap=2
    )
    assert torch.equal(pixels.flatten(), torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 3.0]))


def test_frames_that_a_decoder_looks_at_alone_come_out_exactly() -> None:
    latents = torch.randn(23, 2, 3, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    for overlap in (0, 1, 3):
        pixels = decode_in_chunks(latents, lambda chunk: chunk * 2, chunk_size=7, overlap=overlap)
        assert pixels.dtype == torch.float32
        assert torch.equal(pixels, latents.float() * 2)


@pytest.mark.parametrize(("chunk", "overlap"), [(0, 0), (4, 4), (4, -1), (1, 1)])
def test_chunks_that_can_not_be(chunk: int, overlap: int) -> None:
    with pytest.raises(GenerateError, match=f"chunks of {chunk} frames with an overlap of {overlap}"):
        decode_in_chunks(torch.zeros(8, 1, 1, 1), lambda part: part, chunk_size=chunk, overlap=overlap)


@pytest.fixture(scope="module")
def vae() -> Any:
    return build("AutoencoderKLTemporalDecoder", VAE, seed=1)


@torch.no_grad()
def decoded(vae: Any, latents: torch.Tensor, **options: int) -> torch.Tensor:
    def decode(chunk: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = vae.decode(chunk, num_frames=len(chunk)).sample
        return pixels

    return decode_in_chunks(latents, decode, **options)


def test_seams(vae: Any) -> None:
    latents = torch.randn(24, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = vae.decode(latents, num_frames=24).sample
    assert torch.equal(decoded(vae, latents, chunk_size=24), whole)
    assert torch.equal(decoded(vae, latents, chunk_size=99), whole)

    def jump(**options: int) -> float:
        """How much the error changes from one frame to the next, at worst: what is seen as a flicker."""
        error = decoded(vae, latents, **options) - whole
        return float(error.diff(dim=0).abs().mean(dim=(1, 2, 3)).max())

    plain, blended = jump(chunk_size=8, overlap=0), jump(chunk_size=8, overlap=4)
    assert 0 < blended < plain / 2
    # Far from its chunk's edges a frame is what it is in the whole clip.
    apart = (decoded(vae, latents, chunk_size=16, overlap=8) - whole).abs().mean(dim=(1, 2, 3))
    assert apart[:5].max() < apart[6:18].max() / 5


def test_memory_is_bounded(vae: Any) -> None:
    def most(frames: int, **options: int) -> int:
        latents = torch.zeros(frames, 4, 4, 6)
        gc.collect()
        with TensorPeak() as counted:
            pixels = decoded(vae, latents, **options)
        peak: int = counted.peak
        return peak - pixels.nbytes

    few, many = most(16, chunk_size=16), most(128, chunk_size=16)
    assert many < few * 1.1
    assert most(128, chunk_size=128) > few * 6
