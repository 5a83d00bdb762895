"""What frames are turned by or have added, and what trains of it: tables looked at one by one."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from architectures import row_of
from diffusers.models.embeddings import (
    SinusoidalPositionalEmbedding,
    get_3d_rotary_pos_embed,
    get_3d_rotary_pos_embed_allegro,
)
from longer import extend, frames_of, inputs_of, plan, save, worst
from models import build

from modelgrow.pipelines.grown import grown_class, is_grown
from modelgrow.pipelines.grown.frames import adjust
from modelgrow.pipelines.models import load_model, model_class
from modelgrow.pipelines.probes import run_model
from modelgrow.surgery import Anatomy, CheckpointError, PlanError, anatomies, open_checkpoint

LONG = 20
"""Latent frames of a longer clip."""


@pytest.mark.parametrize("anatomy", anatomies().values(), ids=lambda anatomy: anatomy.class_name)
def test_declared_defaults_are_the_class_s_own(anatomy: Anatomy) -> None:
    """What a config leaves out is as the class has it: a wrong size of heads would be a wrong number of frequencies."""
    parameters = inspect.signature(model_class(anatomy.class_name).__init__).parameters
    own = {name: parameters[name].default for name in anatomy.defaults}
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()} == anatomy.defaults


def _video(frames: int, channels: int = 4) -> torch.Tensor:
    return torch.zeros(1, channels, frames, 4, 6)


def _cogvideox(model: Any, frames: int) -> Any:
    tables = get_3d_rotary_pos_embed(16, ((0, 0), (2, 3)), (2, 3), frames)
    return _given(model, tables, hidden_states=torch.zeros(1, frames, 4, 4, 6))


def _allegro(model: Any, frames: int) -> Any:
    *freqs, _, _, _ = get_3d_rotary_pos_embed_allegro(12, ((0, 0), (2, 3)), (2, 3), frames, (2.2, 1.0, 1.0))
    return _given(model, (tuple(freqs), ()))[0][0]


def _given(model: Any, tables: Any, **inputs: Any) -> Any:
    """What the stock's forward is called with."""
    inputs["image_rotary_emb"] = tables
    return (adjust(model, inputs) if is_grown(type(model)) else inputs)["image_rotary_emb"]


def _kandinsky(model: Any, frames: int) -> Any:
    places = tuple(torch.arange(size) for size in (frames, 2, 3))
    return (model.visual_rope_embeddings((1, frames, 2, 3), places)[0],)


TABLES = {
    "wan": lambda model, frames: [table[0, :, 0] for table in model.rope(_video(frames))],
    "sana-video": lambda model, frames: [table[0, :, 0] for table in model.rope(_video(frames))],
    "hunyuan-video": lambda model, frames: model.rope(_video(frames)),
    "hunyuan-video-1.5": lambda model, frames: model.rope(_video(frames)),
    "easyanimate": lambda model, frames: model.rope_embedding(_video(frames)),
    "cosmos2": lambda model, frames: model.rope(_video(frames), fps=16),
    "kandinsky5": _kandinsky,
    "ltx": lambda model, frames: [table[0] for table in model.rope(_video(1), frames, 2, 3, (8 / 25, 32, 32))],
    "stdit3": lambda model, frames: model.rope(frames),
    "cogvideox-5b": _cogvideox,
    "allegro": _allegro,
}
"""What the frames of a clip are turned by: the first axis is frames, with or without the tokens of each."""


@pytest.mark.parametrize("name", TABLES)
def test_interpolation_gives_every_second_frame_the_position_that_it_had(name: str, tmp_path: Path) -> None:
    """A clip of twice the length, every second frame of which stands, to the bit, where a frame of the base's stood."""
    row = row_of(name)
    frames = frames_of(row)
    base = save(tmp_path / "base", row)
    told: dict[str, Any] = {"method": "interpolate", "base_frames": frames.pixels(4)}
    out = extend(base, tmp_path / "out", frames.pixels(8), **told)
    stock, grown = (load_model(open_checkpoint(folder), dtype=torch.float32) for folder in (base, out))
    before, after, control = (
        [table.unflatten(0, (count, -1)) for table in TABLES[name](model, count)]
        for model, count in ((stock, 4), (grown, 8), (stock, 8))
    )
    for old, new, plain in zip(before, after, control, strict=True):
        assert torch.equal(new[::2], old)
        assert not torch.equal(plain[::2], old)
        assert torch.equal(new[0], plain[0])


def test_a_trained_table_is_stretched_and_no_longer_forgotten(tmp_path: Path) -> None:
    """CogVideoX's image-to-video model computes sines at any length but its own; here its own rows are stretched."""
    row = row_of("cogvideox-5b-i2v")
    base = save(tmp_path / "base", row)
    grown = load_model(open_checkpoint(extend(base, tmp_path / "out", 17)), dtype=torch.float32).patch_embed
    stock = load_model(open_checkpoint(base), dtype=torch.float32).patch_embed
    made = grown._get_positional_embeddings(6, 8, 17)
    own, new = (table[0, 8:].unflatten(0, (count, -1)) for table, count in ((stock.pos_embedding, 3), (made, 5)))
    assert torch.equal(new[::2], own)
    assert torch.allclose(new[1], (own[0] + own[1]) / 2, atol=1e-6)
    assert not made[0, :8].any()
    assert not torch.equal(stock._get_positional_embeddings(6, 8, 17)[0, 8:].unflatten(0, (5, -1))[::2], own)


def test_animatediff_goes_on_as_the_stock_class_does(tmp_path: Path) -> None:
    """The stock class at the greater length computes the same tables, but for the last bit, and loads the folder."""
    row = row_of("unet-motion")
    out = extend(save(tmp_path / "base", row), tmp_path / "out", 24)
    grown = load_model(open_checkpoint(out), dtype=torch.float32)
    assert type(grown) is diffusers.UNetMotionModel
    assert grown.config.motion_max_seq_length == 24
    stock = diffusers.UNetMotionModel(**{**row.tiny, "motion_max_seq_length": 24}).state_dict()
    tables = {name: table for name, table in grown.state_dict().items() if name.endswith(".pe")}
    assert len(tables) > 1
    for name, table in tables.items():
        assert torch.allclose(table, stock[name], atol=2e-5)
        assert torch.equal(table[:, :8], SinusoidalPositionalEmbedding(table.shape[2], 8).pe)


def test_trained_tables_have_no_next_row(tmp_path: Path) -> None:
    row = row_of("motion-adapter")
    base = tmp_path / "base"
    build(row.class_name, row.tiny).save_pretrained(base)
    with pytest.raises(PlanError, match=r"holds no sines.*--method interpolate"):
        plan(base, 16)
    grown = load_model(open_checkpoint(extend(base, tmp_path / "out", 15, method="interpolate")), dtype=torch.float32)
    stock = load_model(open_checkpoint(base), dtype=torch.float32)
    name = next(name for name in stock.state_dict() if name.endswith(".pe"))
    old, new = (model.state_dict()[name][0] for model in (stock, grown))
    assert torch.equal(new[::2], old)
    assert torch.allclose(new[1], (old[0] + old[1]) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_mochi_turns_slower_in_time_and_as_before_in_space(dtype: torch.dtype, tmp_path: Path) -> None:
    row = row_of("mochi")
    base = tmp_path / "base"
    build(row.class_name, row.tiny, dtype=dtype).save_pretrained(base)
    out = extend(base, tmp_path / "out", 6 * 7 + 1, base_frames=6 * 3 + 1)  # 4 latent frames to 8
    old, new = (load_model(open_checkpoint(folder), dtype=dtype).pos_frequencies for folder in (base, out))
    assert torch.equal(new[0], old[0] / 2)
    assert torch.equal(new[1:], old[1:])
    record = open_checkpoint(out).record
    assert record is not None
    assert record.changed == ("pos_frequencies",)


def test_a_gradient_reaches_positions_that_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of("wan")
    out = extend(save(tmp_path / "base", row), tmp_path / "out", 77, base_frames=13, trainable=True)
    grown = load_model(open_checkpoint(out), dtype=torch.float32)
    inputs = inputs_of(row.class_name, grown.config, LONG, monkeypatch)
    gradients = []
    for checkpointing in (False, True):
        grown.train().zero_grad()
        if checkpointing:
            grown.enable_gradient_checkpointing()
        grown(**inputs)[0].square().mean().backward()
        gradients.append(grown.frame_rope.log_scale.grad.clone())
    assert gradients[0].abs().min() > 0
    assert torch.equal(*gradients)
    grown.zero_grad()
    grown(**inputs_of(row.class_name, grown.config, 4, monkeypatch))[0].square().mean().backward()
    assert grown.frame_rope.log_scale.grad is None  # a short clip does not read them


def test_saved_again_copied_and_loaded_by_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of("wan")
    out = extend(save(tmp_path / "base", row), tmp_path / "out", 77, base_frames=13, trainable=True)
    grown = load_model(open_checkpoint(out), dtype=torch.float32)
    with torch.no_grad():
        grown.frame_rope.log_scale += 0.3
    grown.save_pretrained(tmp_path / "again")
    again = load_model(open_checkpoint(tmp_path / "again"), dtype=torch.float32)
    inputs = inputs_of(row.class_name, grown.config, LONG, monkeypatch)
    expected = run_model(grown, inputs)
    assert worst(expected, run_model(again, inputs)) == 0.0
    assert worst(expected, run_model(copy.deepcopy(grown), inputs)) == 0.0
    for captures in (False, True):  # accelerate has the compiler capture scalars
        torch.compiler.reset()
        with torch._dynamo.config.patch(capture_scalar_outputs=captures):
            compiled: Any = torch.compile(grown, backend="eager", fullgraph=True)
            assert worst(expected, (compiled(**inputs, return_dict=False)[0].detach(),)) == 0.0


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        ({"base_frames": 0}, "frame_extension.base_frames is 0"),
        ({"frames": "9"}, "frame_extension.frames is '9'"),
        ({"method": "longer"}, "frame_extension.method is 'longer'"),
    ],
)
def test_a_damaged_config_is_told(extension: dict[str, Any], message: str) -> None:
    good = {"method": "riflex", "base_frames": 4, "frames": 8, "num_frames": 29, "dim": 4, "theta": 1e4}
    with pytest.raises(CheckpointError, match=message):
        grown_class(diffusers.WanTransformer3DModel)(**row_of("wan").tiny, frame_extension={**good, **extension})
    with pytest.raises(CheckpointError, match="FluxTransformer2DModel is not extended by a class"):
        grown_class(diffusers.FluxTransformer2DModel)(**row_of("flux").tiny, frame_extension=good)
