"""Longer clips, architecture by architecture: the base's own clips stay to the bit, longer ones run and differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, Architecture, row_of
from longer import extend, frames_of, inputs_of, plan, save, worst
from models import build

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import run_model
from modelgrow.surgery import open_checkpoint

SHORT, LONG = 4, 20
"""Latent frames of the clips that the tiny models count as trained on, and of longer ones."""


def lengths(row: Architecture) -> tuple[int, int]:
    """Tables are as long as their config says; CogVideoX 1.5 has positions for two frames at a time."""
    own = 8 if frames_of(row).kind == "table" else 3 if row.name == "cogvideox-5b-i2v" else SHORT
    return own, LONG


EXTENDED = [row for row in ARCHITECTURES if frames_of(row).kind not in ("", "none", "exvideo")]
FREE = [row for row in EXTENDED if frames_of(row).kind != "fixed"]
ONCE = [
    row
    for number, row in enumerate(FREE)
    if row.class_name not in {row.class_name for row in FREE[:number]} and frames_of(row).kind != "config"
]
"""One row for each class whose positions can train."""
STOPPED = ("cosmos1", "cosmos2", "cosmos2.5", "latte", "unet", "motion")
"""Rows whose tiny stock models stop at fewer than `LONG` frames, as `test_what_stops_a_stock_model` tells."""
STORED = ("weights", "config")
"""Kinds whose clips of every length change, unless the method is "none"."""


@pytest.mark.parametrize("row", FREE, ids=lambda row: row.name)
def test_clips_of_the_base_stay_and_longer_ones_run(
    row: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = lengths(row)
    frames = frames_of(row)
    base = save(tmp_path / "base", row)
    out = extend(base, tmp_path / "out", frames.pixels(long), base_frames=frames.pixels(short))
    for dtype in (torch.float32, torch.bfloat16):
        stock, grown = (load_model(open_checkpoint(folder), dtype=dtype) for folder in (base, out))
        own = inputs_of(row.class_name, stock.config, short, monkeypatch, dtype)
        difference = worst(run_model(stock, own), run_model(grown, own))
        if frames.kind in STORED:
            assert difference > 0
        else:
            assert difference == 0.0
        longer = inputs_of(row.class_name, stock.config, long, monkeypatch, dtype)
        made = run_model(grown, longer)
        assert all(output.isfinite().all() for output in made)
        if row.name.split("-")[0] in STOPPED:
            with pytest.raises(RuntimeError, match="must match"):
                run_model(stock, longer)
        else:
            assert worst(run_model(stock, longer), made) > 0


@pytest.mark.parametrize("row", [*ONCE, row_of("cogvideox-5b-i2v"), row_of("cosmos1")], ids=lambda row: row.name)
def test_method_none_and_new_parameters_change_nothing(
    row: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that train begin as those that do not, and "none" as the stock's own, at any length that it takes."""
    frames, (short, long) = frames_of(row), lengths(row)
    base = save(tmp_path / "base", row)
    told: dict[str, Any] = {"method": "none", "base_frames": frames.pixels(short)}
    plain = extend(base, tmp_path / "plain", frames.pixels(long), **told)
    trainable = extend(base, tmp_path / "trainable", frames.pixels(long), **told, trainable=True)
    stock, fixed, free = (
        load_model(open_checkpoint(folder), dtype=torch.float32) for folder in (base, plain, trainable)
    )
    own = inputs_of(row.class_name, stock.config, short, monkeypatch)
    assert worst(run_model(stock, own), run_model(fixed, own)) == 0.0
    assert worst(run_model(stock, own), run_model(free, own)) == 0.0
    longer = inputs_of(row.class_name, stock.config, long, monkeypatch)
    assert worst(run_model(fixed, longer), run_model(free, longer)) <= 3e-6
    record = open_checkpoint(trainable).record
    assert record is not None
    named = {name for name in (*record.new, *record.changed) if name != "learnable_pos_embed.pos_emb_t"}
    assert named
    assert named <= dict(free.named_parameters()).keys()
    with torch.no_grad():
        for name in named:
            parameter = free.get_parameter(name)
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert worst(run_model(fixed, longer), run_model(free, longer)) > 1e-6
    if frames.kind not in (*STORED, "table"):
        assert worst(run_model(stock, own), run_model(free, own)) == 0.0


LIMITS = {
    "wan": (33, r"shape '\[33, 1, 1, -1\]' is invalid|must match"),
    "sana-video": (33, r"shape '\[33, 1, 1, -1\]' is invalid|must match"),
    "kandinsky5": (129, "out of bounds|out of range"),
    "cosmos2": (9, "Sizes of tensors must match except in dimension 3. Expected size 8 but got size 9"),
    "cosmos1": (9, "Sizes of tensors must match except in dimension 3. Expected size 8 but got size 9"),
    "latte": (9, "size of tensor a .9. must match the size of tensor b .4. at non-singleton dimension 1"),
    "unet-motion": (9, "size of tensor a .9. must match the size of tensor b .8. at non-singleton dimension 1"),
    "motion-adapter": (9, "size of tensor a .9. must match the size of tensor b .8. at non-singleton dimension 1"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_stops_a_stock_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, (limit, message) = row_of(name), LIMITS[name]
    frames = frames_of(row)
    base = save(tmp_path / "base", row)
    stock = load_model(open_checkpoint(base), dtype=torch.float32)
    inputs = inputs_of(row.class_name, stock.config, limit, monkeypatch)
    with pytest.raises((RuntimeError, IndexError), match=message):
        run_model(stock, inputs)
    out = extend(base, tmp_path / "out", frames.pixels(limit), base_frames=frames.pixels(lengths(row)[0]))
    (output, *_) = run_model(load_model(open_checkpoint(out), dtype=torch.float32), inputs)
    assert output.isfinite().all()


def test_open_sora_1_has_one_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of("stdit")
    base = tmp_path / "base"
    build(row.class_name, row.tiny).save_pretrained(base)
    out = extend(base, tmp_path / "out", 12)
    grown = load_model(open_checkpoint(out), dtype=torch.float32)
    assert grown.config.input_size[0] == 12
    (output,) = run_model(grown, inputs_of(row.class_name, grown.config, 12, monkeypatch))
    assert output.shape[2] == 12
    assert "exactly 12 frames" in " ".join(plan(base, 12).plans[""].notes)
