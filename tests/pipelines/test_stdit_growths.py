"""Open-Sora's transformers and the other growths: a slot right behind the prompt, packs, what trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import row_of
from attached import attach
from growths import grow, pack, unpack
from models import build, save
from stdit_cases import publish, run
from tiny_llms import byte_tokenizer, save_llm, tiny_llama

from modelgrow.pipelines import load_growth
from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs
from modelgrow.surgery import execute, open_checkpoint, open_source
from modelgrow.surgery.shrink import prepare_shrink
from modelgrow.train.select import add_lora, names_to_train

ROWS = {"stdit3": row_of("stdit3"), "stdit": row_of("stdit")}
STACKS = {"stdit3": ("spatial_blocks", "temporal_blocks"), "stdit": ("blocks",)}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model's folder."""
    return save_llm(tmp_path_factory.mktemp("llm"), tiny_llama(), byte_tokenizer())


def loaded(folder: Path) -> Any:
    return load_model(open_checkpoint(folder), dtype=torch.float32)


def inputs_for(model: Any) -> dict[str, Any]:
    return random_inputs(type(model).__name__, model.config, seed=1, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("kind", ROWS)
def test_a_slot_stands_where_the_paper_has_it(kind: str, llm: Path, tmp_path: Path) -> None:
    row = ROWS[kind]
    base = save(tmp_path / "base", row.class_name, row.tiny)
    model, grown = loaded(base), loaded(attach(base, tmp_path / "slot", llm))
    assert grown.config.llm_slot["heads"] == row.tiny["num_heads"]
    assert grown.config.llm_slot["blocks"] == {stack: [0, 1, 2, 3] for stack in STACKS[kind]}
    inputs = inputs_for(grown)
    stock = {name: value for name, value in inputs.items() if not name.startswith("llm_")}
    expected = run(model, stock)
    assert torch.equal(run(grown, inputs), expected)

    block = grown.get_submodule(f"{STACKS[kind][-1]}.0")
    torch.nn.init.normal_(block.llm_attn.to_out.weight)
    # What goes into the feed-forward, and not only what comes out of it, has read the language model.
    seen: dict[str, torch.Tensor] = {}
    for name, other in (("stock", model), ("grown", grown)):
        inner = other.get_submodule(f"{STACKS[kind][-1]}.0.norm2")
        inner.register_forward_hook(lambda _m, args, _o, name=name: seen.setdefault(name, args[0]))
    assert not torch.equal(run(grown, inputs), run(model, stock))
    assert not torch.equal(seen["stock"], seen["grown"])


@pytest.mark.parametrize("kind", ROWS)
def test_growths_compose(kind: str, llm: Path, tmp_path: Path) -> None:
    """Depth, a slot that has learned, depth again; as a pack, put back; and all of it taken back."""
    row = ROWS[kind]
    base = save(tmp_path / "base", row.class_name, row.tiny)
    deep = grow(base, tmp_path / "deep", mode="prefix", blocks=1)
    slot = attach(deep, tmp_path / "slot", llm)
    learned = loaded(slot)
    for name, parameter in learned.named_parameters():
        if "llm_attn.to_out" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    learned.save_pretrained(tmp_path / "learned")
    (tmp_path / "learned" / "growth.json").write_bytes((slot / "growth.json").read_bytes())
    deeper = grow(tmp_path / "learned", tmp_path / "deeper", mode="insert")
    inputs = inputs_for(learned)
    expected = run(learned, inputs)
    assert torch.equal(run(loaded(deeper), inputs), expected)

    pack(deeper, tmp_path / "growth.safetensors")
    again = unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")
    assert torch.equal(run(loaded(again), inputs), expected)
    stock = {name: value for name, value in inputs.items() if not name.startswith("llm_")}
    folder = deeper
    for number in range(3):
        folder = execute(prepare_shrink(open_source(str(folder))), tmp_path / f"back{number}")
    assert torch.equal(run(loaded(folder), stock), run(loaded(base), stock))


@pytest.mark.parametrize("kind", ROWS)
def test_what_trains(kind: str) -> None:
    """Everything but the frequencies; or a LoRA on every projection of every attention, and on nothing else."""
    row = ROWS[kind]
    model = build(row.class_name, row.tiny)
    parameters = dict(model.named_parameters())
    assert parameters.keys() - set(names_to_train(model, None, "all")) == parameters.keys() & {"rope.freqs"}
    parents = {name.partition(".lora_")[0] for name, _ in add_lora(model, rank=2, seed=0)}
    attentions = [name for name, module in model.named_modules() if hasattr(module, "processor")]
    inside = [f"{name}.{part}" for name in attentions for part in ("qkv", "q_linear", "kv_linear", "proj")]
    assert parents == {name for name in inside if f"{name}.weight" in parameters}


@pytest.mark.parametrize("case", ["stdit3/case_c", "stdit1/case_a"])
def test_a_growth_goes_onto_a_published_folder(case: str, tmp_path: Path) -> None:
    base = publish(case, tmp_path / "published")
    grown = grow(base, tmp_path / "grown", mode="prefix", blocks=2)
    pack(grown, tmp_path / "growth.safetensors")
    inputs = inputs_for(loaded(grown))
    expected = run(loaded(grown), inputs)
    assert torch.equal(run(loaded(unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")), inputs), expected)
    assert torch.equal(run(load_growth(loaded(base), tmp_path / "growth.safetensors"), inputs), expected)
    back = execute(prepare_shrink(open_source(str(grown))), tmp_path / "back")
    assert torch.equal(run(loaded(back), inputs), expected)
    assert open_checkpoint(back).tensors.keys() == open_checkpoint(base).tensors.keys()
