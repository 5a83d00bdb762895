"""Every method against its formula: numbers worked out by hand, and the published RIFLEx's own tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modelgrow.pipelines.grown import rope
from modelgrow.pipelines.grown.frames_rope import FrameRope

GOLDENS = Path(__file__).parents[1] / "goldens" / "riflex"
CASES: dict[str, Any] = json.loads((GOLDENS / "cases.json").read_text())
TABLES = {name: case for name, case in CASES.items() if name != "identify_k"}


def test_frequencies() -> None:
    """theta^(-2j/d): for theta = 10000 and d = 8 that is one, a tenth, a hundredth, a thousandth."""
    assert torch.allclose(rope.frequencies(8, 10000.0), torch.tensor([1.0, 0.1, 0.01, 0.001]).double(), rtol=1e-12)


def test_interpolate() -> None:
    assert rope.interpolate(torch.tensor([1.0, 0.5]), 5, 20).tolist() == [0.25, 0.125]


def test_ntk() -> None:
    """d = 4: the base becomes theta s^2, so the second of two frequencies is divided by s. With d = 6 the middle one
    is divided by the square root of s, and the last by s."""
    assert rope.ntk(rope.frequencies(4, 100.0), 5, 20).tolist() == pytest.approx([1.0, 0.1 / 4])
    middle = rope.ntk(rope.frequencies(6, 1000.0), 5, 20)
    assert middle.tolist() == pytest.approx([1.0, 0.1 / 2, 0.01 / 4])
    dim, theta, stretch = 44, 10000.0, 33 / 21
    changed = theta * stretch ** (dim / (dim - 2))
    assert torch.allclose(rope.ntk(rope.frequencies(dim, theta), 21, 33), rope.frequencies(dim, changed), rtol=1e-12)
    assert rope.ntk(torch.tensor([2.0]), 5, 20).tolist() == [2.0]


def test_yarn() -> None:
    """In 62 pi positions frequency 1 turns 31 times, and (31 - 1) / 31 of it stays; 2 turns 62 times and stays
    whole; 1 / 62 turns half a time and is all interpolated."""
    trained = 62 * math.pi
    found = rope.yarn(torch.tensor([2.0, 1.0, 1 / 62]).double(), trained, 4 * trained)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([2.0, 30 / 31 + 1 / 31 / 4, 1 / 62 / 4])


def test_riflex() -> None:
    """Periods are 6, 20 and 63 positions. 21 are nearest to the second, which may turn 0.9 times in 41; a clip of 20
    is no longer than the period."""
    freqs = rope.frequencies(16, 10000.0)[:3]
    changed = rope.riflex(freqs, 21, 41)
    assert changed[[0, 2]].tolist() == freqs[[0, 2]].tolist()
    assert changed[1].item() == pytest.approx(0.9 * 2 * math.pi / 41)
    assert rope.riflex(freqs, 21, 20).tolist() == freqs.tolist()


@pytest.mark.parametrize("case", CASES["identify_k"], ids=lambda case: f"{case['b']}-{case['d']}-{case['N']}")
def test_riflex_finds_the_published_frequency(case: dict[str, int]) -> None:
    number, period = rope.intrinsic(rope.frequencies(case["d"], case["b"]), case["N"])
    assert (int(number) + 1, int(period)) == (case["k"], case["N_k"])


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_published_ones(name: str) -> None:
    """Computed by the part that runs in a model, with the published k; of `hunyuan_261f` and `cogvideox_97f` also with
    our own choice of it, from a base of that period."""
    case, golden = TABLES[name], load_file(GOLDENS / "riflex.safetensors")
    freqs = rope.frequencies(case["dim"], case["theta"], torch.float32)
    extension = {"base_frames": 1, "frames": case["pos"], "dim": case["dim"], "theta": case["theta"]}
    part, cpu = FrameRope({**extension, "method": "none"}), torch.device("cpu")
    plain = part.pairs(case["pos"], cpu, torch.float32)
    if case["k"] is not None:
        period = round(2 * math.pi / freqs[case["k"] - 1].item())
        assert not torch.equal(plain[0], golden[f"{name}.cos"])
        freqs[case["k"] - 1] = rope.RIFLEX_MARGIN * 2 * math.pi / case["L_test"]
        if period < case["L_test"]:
            own = FrameRope({**extension, "method": "riflex", "base_frames": period})
            assert torch.equal(own.pairs(case["pos"], cpu, torch.float32)[0], golden[f"{name}.cos"])
    found = part.tables(torch.arange(case["pos"], dtype=torch.float32), freqs, cpu)
    for table, kind in zip(found, ("cos", "sin"), strict=True):
        assert torch.equal(table.repeat_interleave(2, dim=1), golden[f"{name}.{kind}"])


@pytest.mark.parametrize("method", rope.METHODS)
def test_factors_change_nothing_in_a_clip_of_the_base(method: str) -> None:
    freqs = rope.frequencies(16, 10000.0)
    assert rope.factors(method, freqs, 21, 21).tolist() == [1.0] * 8
    assert rope.factors(method, freqs, 21, 41).tolist() != [1.0] * 8
