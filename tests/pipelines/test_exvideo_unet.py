"""ExVideo's UNet against the reference's numbers, and against its base, to the bit."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures.svd import TINY
from attached import attach
from diffusers import AutoModel, UNetSpatioTemporalConditionModel
from diffusers.hooks import apply_group_offloading
from exvideo_cases import EXVIDEO, GOLDENS, SVD, apply_weights, base_of, extend, run_case, tensors_of
from growths import pack, snapshot
from models import build, save

from modelgrow.pipelines import ExVideoUNetSpatioTemporalConditionModel, load_growth
from modelgrow.pipelines.models import align, load_model
from modelgrow.pipelines.verify import verify
from modelgrow.surgery import Checkpoint, GenerateError, Tensor, anatomies, execute, open_checkpoint, open_source
from modelgrow.surgery.diffsynth import NAMES, block_numbers, our_names
from modelgrow.surgery.exvideo import plan_exvideo
from modelgrow.surgery.shrink import prepare_shrink

ATOL = 2e-5
"""Against the reference with diffusers' GroupNorm epsilons; what is measured is 4e-6."""
ATOL_SHIPPED = 5e-5
"""Against the reference as it is, whose epsilons differ."""
TINY_SVD = {**TINY, "num_frames": 4}


def loaded(folder: Path) -> Any:
    """As diffusers finds it, whatever its class."""
    model = AutoModel.from_pretrained(str(folder))
    align(model)
    return model


@pytest.mark.parametrize("case", ["case_a", "case_b"])
def test_released_weights_compute_what_the_reference_does(case: str, tmp_path: Path) -> None:
    expected = tensors_of(f"{case}/outputs.safetensors")
    base = UNetSpatioTemporalConditionModel.from_pretrained(base_of(case))
    grown = loaded(apply_weights(case, tmp_path / "grown"))
    assert type(grown) is ExVideoUNetSpatioTemporalConditionModel

    torch.testing.assert_close(run_case(base, case), expected["base_reference_diffusers_eps"], atol=ATOL, rtol=0)
    found = run_case(grown, case)
    torch.testing.assert_close(found, expected["extended_reference_diffusers_eps"], atol=ATOL, rtol=0)
    torch.testing.assert_close(found, expected["extended_reference"], atol=ATOL_SHIPPED, rtol=0)
    assert (found - expected["base_diffusers"]).abs().max() > 0.1


@pytest.mark.parametrize("case", ["case_a", "case_b"])
def test_temporal_blocks_compute_what_the_reference_s_do(case: str, tmp_path: Path) -> None:
    """Each by itself, from the spatial block's output to what goes into the mixer."""
    grown = loaded(apply_weights(case, tmp_path / "grown"))
    numbers = block_numbers(grown.state_dict(), where=case)
    taps = tensors_of(f"{case}/taps.safetensors")
    inputs = tensors_of(f"{case}/inputs.safetensors")
    seen = {int(name.split(".")[1]) for name in taps}
    assert len(seen) == 2
    for number in seen:
        block = grown.get_submodule(numbers[number])
        before, after = taps[f"blocks.{number}.in"], taps[f"blocks.{number}.out"]
        frames, _, height, width = before.shape
        context = inputs["encoder_hidden_states"][None].repeat(height * width, 1, 1)
        with torch.no_grad():
            found = block._temporal(
                0,
                before.flatten(2).transpose(1, 2),
                block._positions(1, frames, before),
                context,
                (frames, height, width),
            )
        torch.testing.assert_close(found.transpose(1, 2).unflatten(2, (height, width)), after, atol=ATOL, rtol=0)


def test_position_tables_begin_as_the_reference_s() -> None:
    expected = tensors_of("posinit/posinit.safetensors")
    for width in (32, 320):
        model = ExVideoUNetSpatioTemporalConditionModel(
            **{**TINY, "block_out_channels": (width, 32)}, num_position_frames=128
        )
        table = model.down_blocks[0].attentions[0].position_table.weight
        # The last bits of a sine are the processor's own.
        torch.testing.assert_close(table.detach(), expected[f"c{width}_n128"], atol=2e-6, rtol=0)


def formula(name: str, shape: tuple[int, ...], kind: str) -> torch.Tensor:
    """Values that follow from a name, as the full topology's case has them."""
    mask = np.uint64(0xFFFFFFFF)
    x = (
        np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(2654435761) + np.uint64(zlib.crc32(name.encode()))
    ) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= x >> np.uint64(shift)
        x = (x * np.uint64(factor)) & mask
    x ^= x >> np.uint64(16)
    u = x.astype(np.float64) / 4294967296.0 * 2.0 - 1.0
    spread = math.sqrt(3.0 / max(math.prod(shape[1:]), 1))
    scales = {"weight": 0.9 * spread, "bias": 0.15, "norm": 0.3, "mix": 1.5, "emb": 1.2, "input": math.sqrt(3.0)}
    u = u.reshape(shape) * scales.get(kind, 0.3 * spread)
    if kind == "norm":
        u += 1.0
    if kind == "identity_conv":
        u[:, :, 1, 1, 1] += np.eye(shape[0])
    return torch.from_numpy(u.astype(np.float32))


def kind_of(name: str, ndim: int) -> str:
    leaf = name.rsplit(".", 1)[-1]
    named = {"mix_factor": "mix", "embeddings": "emb", "bias": "bias"}
    if leaf in named:
        return named[leaf]
    if name.endswith("positional_conv.weight"):
        return "identity_conv"
    return "norm" if ndim == 1 else "weight"


def full_topology() -> Any:
    """A UNet with SVD's blocks, its sixteen temporal ones, and few channels."""
    config = json.loads((GOLDENS / "fulltopo" / "config.json").read_text())
    keys = json.loads((GOLDENS / "fulltopo" / "extension_keys.json").read_text())
    with torch.device("meta"):
        model = ExVideoUNetSpatioTemporalConditionModel(**config, num_position_frames=30)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    names = our_names(keys, shapes, where="fulltopo", base="fulltopo")
    assert len(names) == 528
    given = {ours: formula(key, tuple(keys[key]), kind_of(key, len(keys[key]))) for key, ours in names.items()}
    base = {
        name: formula(name, shape, kind_of(name, len(shape))) for name, shape in shapes.items() if name not in given
    }
    model.load_state_dict({**base, **given}, assign=True)
    return model.eval()


def run_full_topology(model: Any) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model(
            formula("sample", (27, 8, 16, 24), "input")[None],
            torch.tensor(0.25 * math.log(2.5)),
            formula("encoder_hidden_states", (1, 40), "input")[None],
            torch.tensor([[29.0, 127.0, 0.02]]),
            return_dict=False,
        )[0]
    return output[0]


def test_full_topology() -> None:
    """All 528 tensors of the published layout find their places in a UNet of SVD's own blocks."""
    model = full_topology()
    found = run_full_topology(model)
    assert found.shape == (27, 4, 16, 24)
    assert found.isfinite().all()
    assert torch.equal(found, run_full_topology(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position_table" in name:
                parameter.zero_()
    assert (found - run_full_topology(model)).abs().max() > 0.1


def test_true_sizes() -> None:
    """SVD-XT extended to 128 frames: what the class expects, what ExVideo published, and as many parameters."""

    def shapes(model: Any) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    with torch.device("meta"):
        base = UNetSpatioTemporalConditionModel(sample_size=96)
        grown = ExVideoUNetSpatioTemporalConditionModel(sample_size=96, num_position_frames=128)
    held = {
        name: Tensor(dtype="F16", shape=shape, file=Path("weights"), offset=0, nbytes=0)
        for name, shape in shapes(base).items()
    }
    checkpoint = Checkpoint(path=Path("svd"), tensors=held, config={**base.config, "_class_name": SVD})
    plan = plan_exvideo(checkpoint, anatomies()[SVD], 128)
    plan.validate(checkpoint)
    assert {tensor.name: tensor.shape for tensor in plan.tensors} == shapes(grown)
    published = json.loads((GOLDENS / "svd_full" / "extension.json").read_text())
    names = our_names(published, held, where="published", base="svd")
    assert {names[key]: tuple(shape) for key, (shape, _) in published.items()}.items() <= shapes(grown).items()
    assert plan.num_new_parameters == 336_150_720
    assert sum(math.prod(shape) for shape in shapes(grown).values()) == 1_860_773_802


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_same_function_up_to_the_base_s_length(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = save(tmp_path / "base", SVD, TINY_SVD, dtype=dtype)
    base = load_model(open_checkpoint(folder), dtype=dtype)
    grown = load_model(open_checkpoint(extend(folder, tmp_path / "grown", 9)), dtype=dtype)
    assert type(grown).__name__ == EXVIDEO
    for frames, same in ((2, True), (4, True), (5, False), (9, False)):
        inputs = example(frames, dtype)
        with torch.no_grad():
            expected, found = base(**inputs).sample, grown(**inputs).sample
        assert torch.equal(expected, found) is same
    longer = load_model(open_checkpoint(extend(tmp_path / "grown", tmp_path / "longer", 21)), dtype=dtype)
    with torch.no_grad():
        assert torch.equal(longer(**inputs).sample, found)
        assert longer(**example(21, dtype)).sample.isfinite().all()


def test_stored_in_half_and_run_in_full(tmp_path: Path) -> None:
    """The tables are stored in float32, for float32 is what the base computes its sinusoids in."""
    folder = save(tmp_path / "base", SVD, TINY_SVD, dtype=torch.float16)
    extend(folder, tmp_path / "grown", 9)
    report = verify(tmp_path / "grown", folder, dtype="float32")
    assert report.is_identical, report.sentence
    assert "ExVideoUNet" in report.sentence


def test_a_slot_before_and_after(tmp_path: Path) -> None:
    """A language model's slot and the extension, in either order: the base's function, and steps that go back."""
    folder = save(tmp_path / "base", SVD, TINY_SVD)
    slot_first = extend(attach(folder, tmp_path / "slot"), tmp_path / "slot-frames", 9)
    slot_last = attach(extend(folder, tmp_path / "frames", 9), tmp_path / "frames-slot")
    for grown, before in ((slot_first, tmp_path / "slot"), (slot_last, tmp_path / "frames")):
        assert open_checkpoint(grown).class_name == f"Grown{EXVIDEO}"
        report = verify(grown, folder)
        assert report.is_identical, report.sentence
        again = execute(prepare_shrink(open_source(str(grown))), tmp_path / f"{grown.name}-again")
        assert snapshot(again) == snapshot(before)


def test_growth_on_a_loaded_model(tmp_path: Path) -> None:
    folder = save(tmp_path / "base", SVD, TINY_SVD)
    extend(folder, tmp_path / "grown", 9)
    pack(tmp_path / "grown", tmp_path / "growth.safetensors")
    model = load_growth(load_model(open_checkpoint(folder), dtype=torch.float32), tmp_path / "growth.safetensors")
    inputs = example(9, torch.float32)
    with torch.no_grad():
        assert torch.equal(model(**inputs).sample, loaded(tmp_path / "grown")(**inputs).sample)


def example(frames: int, dtype: torch.dtype, *, batch: int = 2, side: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return {
        "sample": torch.randn(batch, frames, 8, side, 2 * side, generator=generator).to(dtype),
        "timestep": torch.linspace(0.3, -0.8, batch).to(dtype),
        "encoder_hidden_states": torch.randn(batch, 1, 16, generator=generator).to(dtype),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02], [29.0, 3.0, 0.1]])[:batch].to(dtype),
    }


@pytest.fixture(scope="module")
def tiny() -> Any:
    return build(EXVIDEO, {**TINY_SVD, "num_position_frames": 8})


def test_saved_and_loaded_again(tiny: Any, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "one")
    again = loaded(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    inputs = example(8, torch.float32)
    with torch.no_grad():
        assert torch.equal(loaded(tmp_path / "two")(**inputs).sample, tiny(**inputs).sample)
    assert again.config.num_position_frames == 8
    assert again.config.num_frames == 4


def test_clips_of_a_batch_do_not_mix(tiny: Any) -> None:
    inputs = example(6, torch.float32)
    with torch.no_grad():
        both = tiny(**inputs).sample
        for clip in range(2):
            alone = tiny(**{name: value[clip : clip + 1] for name, value in inputs.items()}).sample
            torch.testing.assert_close(both[clip : clip + 1], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_gradient_checkpointing_changes_no_gradient(tiny: Any) -> None:
    inputs = example(6, torch.float32)

    def gradients() -> dict[str, torch.Tensor]:
        tiny.zero_grad()
        tiny(**inputs).sample.square().mean().backward()
        return {name: parameter.grad.clone() for name, parameter in tiny.named_parameters()}

    plain = gradients()
    tiny.enable_gradient_checkpointing()
    tiny.train()
    checkpointed = gradients()
    tiny.disable_gradient_checkpointing()
    tiny.eval()
    tiny.zero_grad(set_to_none=True)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert any(plain[name].abs().max() > 0 for name in plain if name.endswith("position_table.weight"))


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_group_offload(tiny: Any, kind: str, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    model = loaded(tmp_path)
    cpu = torch.device("cpu")
    options = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    apply_group_offloading(model, onload_device=cpu, offload_device=cpu, offload_type=kind, **options)
    model.enable_forward_chunking(1, 1)
    inputs = example(6, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).sample, tiny(**inputs).sample, atol=1e-6, rtol=1e-6)


def test_a_block_compiles_whole(tiny: Any) -> None:
    assert set(tiny._repeated_blocks) <= {type(module).__name__ for module in tiny.modules()}
    block = tiny.mid_block.attentions[0]
    assert type(block).__name__ in tiny._repeated_blocks
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(6, block.in_channels, 2, 4, generator=generator)
    context, indicator = torch.randn(6, 1, 16, generator=generator), torch.zeros(2, 3)
    with torch.no_grad():
        compiled: Any = torch.compile(block, backend="eager", fullgraph=True)
        found = compiled(states, context, indicator).sample
        assert torch.equal(found, block(states, context, indicator).sample)


@pytest.mark.parametrize(
    ("frames", "side", "message"),
    [
        (9, 4, "a clip of 9 frames: this model's position tables have 8 rows.*grow extend-frames --to 9"),
        (1, 4, "a clip of one frame"),
        (4, 2, "latents of 2x4.*sides of 4 latents at least"),
    ],
)
def test_what_it_can_t_run(tiny: Any, frames: int, side: int, message: str) -> None:
    with pytest.raises(GenerateError, match=message):
        tiny(**example(frames, torch.float32, side=side))


def test_every_name_of_a_temporal_block_is_known() -> None:
    model = ExVideoUNetSpatioTemporalConditionModel(**TINY, num_position_frames=4)
    block = model.mid_block.attentions[0]
    parts = ("position_table.", "temporal_conv.", "time_pos_embed.", "temporal_transformer_blocks.")
    assert set(NAMES.values()) == {name for name, _ in block.named_parameters() if name.startswith(parts)}
