"""Random values from a seed and a place: the published generator, any part by itself, rounded as torch rounds."""

from __future__ import annotations

import struct

import pytest

from modelgrow.surgery.drawn import DRAWABLE, draw, seed_of

KNOWN = (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)
"""Philox 4x64-10 of counter 0 and key 0: the known answers that come with Random123, the authors' library."""


def test_known_answers() -> None:
    words = [part for word in KNOWN for part in (word & 0xFFFFFFFF, word >> 32)]
    expected = [(word >> 8) * 2.0**-23 - 1.0 for word in words]
    assert struct.unpack("<8f", draw(0, 1.0, "F32", 0, 32)) == tuple(expected)
    assert struct.unpack("<8d", draw(0, 0.25, "F64", 0, 64)) == tuple(value / 4 for value in expected)


@pytest.mark.parametrize("dtype", DRAWABLE)
def test_any_part_is_the_same_as_in_the_whole(dtype: str) -> None:
    whole = draw(7, 0.1, dtype, 0, 4096)
    for start, count in ((0, 1), (1, 7), (31, 64), (1000, 1), (4090, 6), (513, 2000)):
        assert draw(7, 0.1, dtype, start, count) == whole[start : start + count]


def test_seeds_and_tensors_differ() -> None:
    seeds = {seed_of(seed, name) for seed in (0, 1) for name in ("a", "b")}
    assert len(seeds) == 4
    assert len({draw(seed, 1.0, "F32", 0, 64) for seed in seeds}) == 4


def test_values_are_uniform() -> None:
    values = struct.unpack("<10000f", draw(3, 0.5, "F32", 0, 40000))
    assert -0.5 <= min(values) < -0.499
    assert 0.499 < max(values) < 0.5
    assert abs(sum(values)) / 10000 < 0.01
    assert abs(sum(value * value for value in values) / 10000 - 0.25 / 3) < 0.002


@pytest.mark.parametrize(("dtype", "name"), [("BF16", "bfloat16"), ("F16", "float16"), ("F32", "float32")])
def test_rounding_is_torchs(dtype: str, name: str) -> None:
    import torch

    exact = torch.frombuffer(bytearray(draw(5, 0.37, "F64", 0, 80000)), dtype=torch.float64)
    kind = getattr(torch, name)
    found = torch.frombuffer(bytearray(draw(5, 0.37, dtype, 0, 10000 * DRAWABLE[dtype])), dtype=kind)
    assert torch.equal(found, exact.float().to(kind))
