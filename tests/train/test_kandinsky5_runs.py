"""Runs of Kandinsky 5, whose clips are called one by one: what trains, the cached trunk, memory, a slot."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_kandinsky import Kandinsky5Attention
from growths import grow
from tiny_kandinsky5 import OPTIONS, kandinsky5, kandinsky5_i2v
from tiny_runs import bytes_of, settings

from modelgrow.train.cost import measure_step
from modelgrow.train.families import family_of
from modelgrow.train.families import kandinsky5 as family
from modelgrow.train.loop import Loop
from modelgrow.train.memory import predict_memory
from modelgrow.train.run import make_trunk, train
from modelgrow.train.select import add_lora
from modelgrow.train.setup import set_up
from modelgrow.train.slot import MASK, STATES, SlotFamily
from modelgrow.train.trunk import replayed

PROMPTS = ["a red circle moves right", "a blue square"]
SIZE = {name: OPTIONS[name] for name in ("num_frames", "height", "width")}


@pytest.mark.parametrize("build", [kandinsky5, kandinsky5_i2v])
def test_a_run_trains_what_is_new_and_nothing_else(build: Any, tmp_path: Path) -> None:
    assert family_of("Kandinsky5Transformer3DModel") is family
    grown = grown_of(build(), tmp_path)
    changes = {"data": "shapes:1:2", "steps": 3, "batch_size": 2, **SIZE}
    result = train(settings(grown, tmp_path / "run", **changes))
    before, after = bytes_of(grown), bytes_of(result.model)
    assert before.keys() == after.keys()
    moved = {name for name in before if before[name] != after[name]}
    assert moved
    assert all(name.startswith("visual_transformer_blocks.2.") for name in moved)
    assert result.growth is not None


def test_lora_is_on_every_attention_projection_and_nothing_else() -> None:
    model = kandinsky5().transformer
    names = [name for name, _ in add_lora(model, 4, 0)]
    attended = {name for name, part in model.named_modules() if isinstance(part, Kandinsky5Attention)}
    layers = {name.rpartition(".lora_")[0] for name in names}
    assert layers == {f"{name}.{part}" for name in attended for part in ("to_query", "to_key", "to_value", "out_layer")}


def grown_of(pipeline: Any, folder: Path) -> Path:
    """With one block more at its end."""
    pipeline.save_pretrained(folder / "base")
    return grow(folder / "base", folder / "grown", "suffix", blocks=1)


def test_the_cached_trunk_is_the_trunk_of_each_clip(tmp_path: Path) -> None:
    """Clips that are called one by one find their own rows of it, and captions that are dropped their own length."""
    changes = {"data": "shapes:1-2:4", "batch_size": 2, "cache_trunk": 2, "caption_dropout": 0.5, **SIZE}
    run = set_up(settings(grown_of(kandinsky5(), tmp_path), tmp_path / "run", **changes), lambda _: None)
    loop = Loop(run=run, report=lambda _: None)
    trunk = make_trunk(loop, lambda _: None)
    for number in range(3):
        batch, streams = trunk.sample(loop.batch(number), number)
        with torch.no_grad():
            exact = loop.predict(batch)
            with replayed(run.model, trunk.stack, trunk.depth, streams_in(streams)):
                fast = loop.predict(batch)
            with replayed(run.model, trunk.stack, trunk.depth, streams_in(streams, swapped=True)):
                other = loop.predict(batch)
        torch.testing.assert_close(fast, exact, rtol=2e-2, atol=2e-2 * exact.std().item())
        assert (other - exact).std() > 0.1 * exact.std(), "another clip's rows must differ"


def streams_in(streams: tuple[torch.Tensor, ...], *, swapped: bool = False) -> tuple[torch.Tensor, ...]:
    return tuple((stream.flip(0) if swapped else stream).float() for stream in streams)


def test_memory_is_that_of_captions_as_long_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real step of such captions keeps as much as was predicted; one of short captions keeps less."""
    monkeypatch.setattr(family, "MAX_TOKENS", 96)
    pipeline = kandinsky5()
    model = pipeline.transformer
    with torch.no_grad():
        texts = [family.encode_text(pipeline, captions) for captions in (["red " * 600] * 2, PROMPTS)]
    kept = []
    for text in texts:
        inputs: dict[str, Any] = {
            "noisy": torch.zeros(2, 4, 3, 4, 4),
            "timesteps": torch.tensor([900.0, 20.0]),
            "text": text,
        }
        real = measure_step(model, lambda: family.predict(pipeline, model, **inputs).square().mean())  # noqa: B023
        memory = predict_memory(
            model,
            lambda called, given: family.predict(pipeline, called, **given),
            inputs,
            optimizer="adamw",
            average=False,
            autocast=nullcontext,
        )
        kept.append((memory.activations, real.saved_bytes))
    assert kept[0][0] == kept[1][0]
    assert kept[0][0] == pytest.approx(kept[0][1], rel=0.02)
    assert kept[1][1] < 0.9 * kept[0][1]


def test_a_slot_reads_each_clips_own_states() -> None:
    """The language model's states go to the model clip by clip, as the captions do."""
    pipeline, told = kandinsky5(), []

    def model(**kwargs: Any) -> Any:
        told.append(kwargs["llm_hidden_states"])
        return SimpleNamespace(sample=kwargs["hidden_states"][..., :4])

    states = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = {**family.encode_text(pipeline, PROMPTS), STATES: states, MASK: torch.ones(2, 6, dtype=torch.bool)}
        SlotFamily(family).predict(pipeline, model, torch.zeros(2, 4, 3, 4, 4), torch.tensor([900.0, 20.0]), text)
    assert torch.equal(torch.stack(told), states[:, None])
