"""What diffusers does with models works with a slot: the six traps of generated classes, and its own features."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import row_of
from attached import CLASSES, attach, config_of, enliven, equal, inputs_of, load, outputs, without_llm
from diffusers import FirstBlockCacheConfig
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from models import save

from modelgrow.pipelines.grown import slot
from modelgrow.surgery import CheckpointError, GenerateError

pytestmark = pytest.mark.filterwarnings("ignore:.*should be kept in float32")


@pytest.fixture(autouse=True)
def _forget_compiled() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = row_of("wan")
    return attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")


def live(folder: Path) -> Any:
    return enliven(load(folder))


def attached(name: str, tmp_path: Path) -> Any:
    row = row_of(name)
    return live(attach(save(tmp_path / name, row.class_name, row.tiny), tmp_path / f"{name}-slot"))


@torch.no_grad()
def run(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    return outputs(model, inputs)


def test_config_survives(folder: Path, tmp_path: Path) -> None:
    """Trap 1: `from_config` reads the signature; with *args and **kwargs all of the config would be lost."""
    model = live(folder)
    model.save_pretrained(tmp_path / "again")
    first, again = config_of(folder), config_of(tmp_path / "again")
    assert again["llm_slot"] == first["llm_slot"]
    assert again["_class_name"] == "GrownWanTransformer3DModel"
    assert {key: again[key] for key in first if key != "_diffusers_version"} == {
        key: value for key, value in first.items() if key != "_diffusers_version"
    }
    parameters = inspect.signature(type(model).__init__).parameters
    assert {"num_layers", "llm_slot", "frame_extension"} <= parameters.keys()
    assert {"hidden_states", "timestep", "llm_hidden_states"} <= inspect.signature(
        type(model).forward
    ).parameters.keys()


def test_compiles_without_a_break(folder: Path) -> None:
    """Trap 2: Dynamo can't trace `super().forward` of a class that may stand in its graphs as it is."""
    model = live(folder)
    inputs = inputs_of(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert equal(run(compiled, inputs), run(model, inputs))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:In CPU autocast")
@pytest.mark.parametrize("row", [pytest.param(row, id=row.class_name) for row in CLASSES])
def test_compiles_wherever_the_base_does(row: Any, tmp_path: Path) -> None:
    base = save(tmp_path / "base", row.class_name, row.tiny)
    model, original = live(attach(base, tmp_path / "slot")), load(base)
    inputs = inputs_of(model)
    try:
        run(torch.compile(original, backend="aot_eager", fullgraph=True), without_llm(inputs))
    except torch._dynamo.exc.TorchDynamoException:
        pytest.skip("the base does not compile in one graph")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert equal(run(compiled, inputs), run(model, inputs))


def test_blocks_compile_once_for_every_context(folder: Path) -> None:
    model = live(folder)
    expected = [run(model, inputs_of(model, seed=seed)) for seed in (1, 2)]
    compiled = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model.compile_repeated_blocks(backend=backend, fullgraph=True)
    assert all(equal(run(model, inputs_of(model, seed=seed)), expected[seed - 1]) for seed in (1, 2))
    assert len(compiled) == 1, "one graph for all blocks and contexts"


def test_caches_know_the_blocks(folder: Path) -> None:
    """Trap 3: caches look blocks up by their exact class."""
    model = live(folder)
    inputs = inputs_of(model)
    expected = run(model, inputs)
    model.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    with model.cache_context("cond"):
        assert equal(run(model, inputs), expected)
    model.disable_cache()
    model.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with model.cache_context("cond"):
        first = run(model, inputs)
        changed = {**inputs, "llm_hidden_states": inputs["llm_hidden_states"] * 2}
        assert equal(first, expected)
        assert not equal(run(model, changed), run(live(folder), changed)), "blocks behind the first are not run again"


def test_context_is_gone_after_forward(folder: Path) -> None:
    """Trap 5: what is left of a forward pass could not be copied, and would be read by the next one."""
    model = live(folder)
    outputs(model, inputs_of(model))
    assert model.slot_context.states is None
    assert model.slot_context.mask is None
    with pytest.raises(RuntimeError, match="shape"):
        outputs(model, {**inputs_of(model), "encoder_hidden_states": torch.zeros(2, 8, 3)})
    assert model.slot_context.states is None


@pytest.mark.parametrize("name", ["flux", "cogvideox-2b", "wan"])
def test_attention_processors_of_the_model_are_its_own(name: str, tmp_path: Path) -> None:
    """Trap 6: `set_attn_processor` sets whatever has a `set_processor`."""
    model = attached(name, tmp_path)
    inputs = inputs_of(model)
    expected = run(model, inputs)
    processors = model.attn_processors
    assert not any("llm_attn" in key for key in processors)
    model.set_attn_processor(processors)
    assert all(isinstance(part.processor, slot.SlotAttnProcessor) for part in slot.slots_of(model))
    assert equal(run(model, inputs), expected)


def test_attention_backend_reaches_the_slot(folder: Path) -> None:
    model = live(folder)
    inputs = inputs_of(model)
    expected = run(model, inputs)
    model.set_attention_backend("_native_math")
    try:
        assert {part.processor._attention_backend.value for part in slot.slots_of(model)} == {"_native_math"}
        torch.testing.assert_close(run(model, inputs), expected)
    finally:
        model.set_attention_backend("native")  # it is also diffusers' own choice from then on, for all models
    assert equal(run(model, inputs), expected)
    model.reset_attention_backend()
    assert {part.processor._attention_backend for part in slot.slots_of(model)} == {None}


@pytest.mark.parametrize("backend", ["_native_flash", "sage"])
def test_backend_that_takes_no_mask_leaves_the_slot_its_own(
    folder: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash attention refuses any mask; the model itself has none, its slot does."""
    used = []

    def spy(*args: Any, backend: Any, **kwargs: Any) -> torch.Tensor:
        used.append((backend.value, kwargs["attn_mask"] is not None))
        found: torch.Tensor = dispatch_attention_fn(*args, **{**kwargs, "backend": None})
        return found

    model = live(folder)
    inputs = inputs_of(model)
    monkeypatch.setattr(slot, "dispatch_attention_fn", spy)
    for part in slot.slots_of(model):
        part.processor._attention_backend = AttentionBackendName(backend)
    run(model, inputs)
    run(model, {**inputs, "llm_attention_mask": None})
    assert set(used[: len(used) // 2]) == {("native", True)}
    assert set(used[len(used) // 2 :]) == {(backend, False)}


def test_lora_lands_on_the_slot_too(folder: Path) -> None:
    from peft import LoraConfig

    model = live(folder)
    inputs = inputs_of(model)
    expected = run(model, inputs)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    names = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert any("attn2.to_q" in name for name in names)
    assert any("llm_attn.to_q" in name for name in names)
    assert not equal(run(model, inputs), expected)
    model.disable_adapters()
    assert equal(run(model, inputs), expected)


def test_layerwise_casting_and_group_offload(folder: Path) -> None:
    plain, cast, offloaded = live(folder), live(folder), live(folder)
    inputs = inputs_of(plain)
    expected = run(plain, inputs)
    cast.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert cast.blocks[0].llm_attn.to_q.weight.dtype == torch.bfloat16
    torch.testing.assert_close(run(cast, inputs), expected, rtol=0.2, atol=0.2)
    cpu = torch.device("cpu")
    offloaded.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=2)
    assert equal(run(offloaded, inputs), expected)


def test_contexts_for_callers_that_can_not_pass_them(folder: Path) -> None:
    """Stock pipelines call the model once for each branch, inside `cache_context`."""
    model = live(folder)
    inputs = inputs_of(model)
    states, mask = inputs["llm_hidden_states"], inputs["llm_attention_mask"]
    others = without_llm(inputs)
    expected, none = run(model, inputs), torch.zeros_like(mask)
    uncond = run(model, {**inputs, "llm_attention_mask": none})
    model.set_llm_context(states, mask)
    assert equal(run(model, others), expected)
    model.set_llm_context({"cond": (states, mask), "uncond": (states, none)})
    with model.cache_context("cond"):
        assert equal(run(model, others), expected)
    with model.cache_context("uncond"):
        assert equal(run(model, others), uncond)
    with pytest.raises(GenerateError, match="outside cache_context"):
        run(model, others)
    with pytest.raises(GenerateError, match=r"'cond_uncond'.*cond, uncond only"), model.cache_context("cond_uncond"):
        pass
    model.clear_llm_context()
    assert not equal(run(model, others), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"llm_hidden_states": torch.zeros(2, 8, 21)}, r"shape \[2, 8, 21\].*20 wide"),
        ({"llm_hidden_states": torch.zeros(3, 8, 20)}, "for each of 2 samples"),
        ({"llm_hidden_states": torch.zeros(8, 20)}, "any number of tokens"),
        ({"llm_attention_mask": torch.ones(2, 7)}, r"mask .* \[2, 7\], the states \[2, 8, 20\]"),
    ],
)
def test_states_that_do_not_fit_are_refused(folder: Path, change: dict[str, Any], reason: str) -> None:
    model = live(folder)
    with pytest.raises(GenerateError, match=reason):
        run(model, {**inputs_of(model), **change})


def test_one_text_for_all_samples(folder: Path) -> None:
    model = live(folder)
    inputs = {**inputs_of(model), "llm_attention_mask": None}
    states = inputs["llm_hidden_states"][:1]
    twice = run(model, {**inputs, "llm_hidden_states": states.repeat(2, 1, 1)})
    torch.testing.assert_close(run(model, {**inputs, "llm_hidden_states": states}), twice)


def test_a_slot_that_reads_nothing_says_so_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = live(folder)
    with caplog.at_level(logging.WARNING):
        logging.getLogger("diffusers").propagate = True
        for _ in range(2):
            run(model, without_llm(inputs_of(model)))
    said = [record.getMessage() for record in caplog.records if "WITHOUT" in record.getMessage()]
    assert len(said) == 1
    assert "the slot is skipped" in said[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"heads": 0}, "llm_slot.heads is 0"),
        ({"llm_dim": "wide"}, "llm_slot.llm_dim is 'wide'"),
        ({"blocks": [0]}, "llm_slot.blocks is .*expected a value for each stack"),
        ({"blocks": {"blocks": 0}}, "llm_slot names blocks 0"),
        ({"blocks": {"patch_embedding": [0]}}, "of 'patch_embedding'"),
        ({"widths": {}}, "llm_slot.widths.blocks is None"),
        ({"blocks": {"nowhere": [0]}}, "'nowhere'.*lacks"),
        ({"blocks": {"blocks": [99]}}, "which are not all there"),
    ],
)
def test_config_that_does_not_fit_is_refused(folder: Path, change: dict[str, Any], reason: str) -> None:
    model = live(folder)
    with pytest.raises(CheckpointError, match=reason):
        type(model).from_config({**model.config, "llm_slot": {**model.config.llm_slot, **change}})


def test_stock_class_leaves_no_doubt(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers itself loads the stock class from such a folder, and warns that weights are left over."""
    from diffusers import WanTransformer3DModel

    assert os.environ.get("HF_HUB_OFFLINE") == "1"
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="diffusers"):  # commands, and so other tests, make it quieter
        _, info = WanTransformer3DModel.from_pretrained(folder, output_loading_info=True)
    assert any("llm_attn" in key for key in info["unexpected_keys"])
    assert "llm_attn" in caplog.text
