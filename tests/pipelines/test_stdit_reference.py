"""Open-Sora's transformers against the reference: its own numbers, and its forward written again in plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import build
from plain_stdit3 import PlainSTDiT3
from stdit_cases import NAMES, inputs_of, load_case, outputs_of, run

from modelgrow.pipelines import STDiT3Transformer3DModel, STDiTTransformer3DModel
from modelgrow.pipelines.open_sora import layers

ATOL = 2e-5
"""What is measured is 1.5e-5 at most, and most of it is the last bit of the timestep's frequencies, times 1000."""
TAPS = {
    "t_embed": "t_embedder",
    "fps_embed": "fps_embedder",
    "t_mlp": "t_block",
    "final_layer": "final_layer",
    "hidden.spatial.": "spatial_blocks.",
    "hidden.temporal.": "temporal_blocks.",
    "hidden.": "blocks.",
}


def module_of(tap: str) -> str | None:
    """The module whose output the reference's tensor is; None where it is none's."""
    if tap in ("hidden.embed", "pos_emb", "text.packed", "out", "out_x_mask"):
        return None
    prefix = next(prefix for prefix in TAPS if tap.startswith(prefix))
    return TAPS[prefix] + tap.removeprefix(prefix)


def outputs_by_module(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The first output of every module, and the model's own as "out"."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _args: Any, output: torch.Tensor) -> None:
            found.setdefault(name, output)

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    found["out"] = run(model, inputs)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("case", ["stdit3/case_a", "stdit3/case_c", "stdit3/case_d", "stdit1/case_a"])
def test_every_step_is_the_reference_s(case: str, tmp_path: Path) -> None:
    model, inputs, expected = load_case(case, tmp_path), inputs_of(case), outputs_of(case)
    if case.startswith("stdit1"):
        given = inputs.pop("frame_mask")
        torch.testing.assert_close(
            run(model, {**inputs, "frame_mask": given}), expected.pop("out_x_mask"), atol=ATOL, rtol=0
        )
    found = outputs_by_module(model, inputs)
    assert found["out"].dtype == torch.float32
    torch.testing.assert_close(found["out"], expected["out"], atol=ATOL, rtol=0)
    for tap, tensor in expected.items():
        if (name := module_of(tap)) is not None:
            torch.testing.assert_close(found[name].view(tensor.shape), tensor, atol=ATOL, rtol=0)
    if "pos_emb" in expected:
        height, width = inputs["hidden_states"].shape[3:]
        table = model.positions(height // 2, width // 2, inputs["height"], inputs["width"])
        torch.testing.assert_close(table, expected["pos_emb"], atol=ATOL, rtol=0)
    if "text.packed" in expected:
        mask = inputs.get("encoder_attention_mask", torch.ones(found["y_embedder"].shape[:2]))
        torch.testing.assert_close(found["y_embedder"][mask != 0][None], expected["text.packed"], atol=ATOL, rtol=0)


def test_given_frames_are_modulated_twice_at_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reference's quirk; once, as one would write it, is another function."""
    case = "stdit3/case_c"
    model, inputs, expected = load_case(case, tmp_path), inputs_of(case), outputs_of(case)["out"]

    def once(self: Any, states: Any, now: Any, clean: Any, frame_mask: Any) -> Any:
        kept = frame_mask.repeat_interleave(states.shape[1] // frame_mask.shape[1], dim=1)[:, :, None]
        return self.linear(torch.where(kept, self._modulate(states, now), self._modulate(states, clean)))

    monkeypatch.setattr(layers.FinalLayer, "forward", once)
    assert (run(model, inputs) - expected).abs().max() > 2


def settled(class_name: str, config: dict[str, Any]) -> Any:
    """A model of random weights that keep activations near 1, with the true frequencies."""
    model = build(class_name, config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 * (0.7 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.2))
    if hasattr(model, "rope"):
        model.rope.freqs.data = type(model.rope)(2 * len(model.rope.freqs)).freqs.data
    return model


TEXT = 12
BASE = {"hidden_size": 60, "num_heads": 3, "depth": 3, "caption_channels": 20, "model_max_length": TEXT}
GUIDED = torch.tensor([[1] * 9 + [0] * 3, [1] * 3 + [0] * 9])
PLAIN: dict[str, dict[str, Any]] = {
    "odd width, three lengths": {"size": (4, 6, 7), "mask": [4, 10, 1], "fps": 8.0},
    "odd height, given frames": {"size": (5, 5, 8), "mask": [12, 2], "given": [[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]]},
    "guidance": {"size": (2, 4, 6), "batch": 4, "mask": [9, 3], "rows": 2},
    "patches in time": {"size": (5, 4, 5), "mask": [7, 5], "config": {"patch_size": [2, 2, 2]}},
    "no mask, no norms": {"size": (3, 4, 4), "batch": 2, "config": {"qk_norm": False, "pred_sigma": False}},
}


def plain_inputs(case: dict[str, Any], seed: int = 3) -> dict[str, Any]:
    """By the reference's names."""
    generator = torch.Generator().manual_seed(seed)
    lengths = case.get("mask")
    batch = case.get("batch", len(lengths or [0]))
    mask = None
    if lengths:
        mask = (torch.arange(TEXT)[None] < torch.tensor(lengths)[:, None]).long()
    given = case.get("given")
    return {
        "x": torch.randn(batch, 4, *case["size"], generator=generator),
        "timestep": torch.rand(batch, generator=generator) * 1000,
        "y": torch.randn(batch, TEXT, BASE["caption_channels"], generator=generator),
        "mask": mask,
        "x_mask": None if given is None else torch.tensor(given).bool(),
        "fps": torch.full((case.get("rows", batch),), case.get("fps", 24.0)),
        "height": torch.full((batch,), 8.0 * case["size"][1]),
        "width": torch.full((batch,), 8.0 * case["size"][2]),
    }


def as_ours(inputs: dict[str, Any]) -> dict[str, Any]:
    return {NAMES.get(name, name): value for name, value in inputs.items()}


@pytest.mark.parametrize("name", PLAIN)
def test_it_is_the_reference_written_again(name: str) -> None:
    case = PLAIN[name]
    model = settled("STDiT3Transformer3DModel", {**BASE, **case.get("config", {})})
    inputs = plain_inputs(case)
    with torch.no_grad():
        expected = PlainSTDiT3(model.state_dict(), model.config)(**inputs)
    assert expected.shape[2:] == case["size"]
    assert 0.3 < expected.std() < 5
    torch.testing.assert_close(run(model, as_ours(inputs)), expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", ["stdit3/case_a", "stdit3/case_c", "stdit3/case_d"])
def test_what_is_written_again_is_the_reference(case: str, tmp_path: Path) -> None:
    model, inputs = load_case(case, tmp_path), inputs_of(case)
    back = {ours: theirs for theirs, ours in NAMES.items()}
    given = {back.get(name, name): value for name, value in inputs.items()}
    given["y"] = given["y"].squeeze(1)
    with torch.no_grad():
        plain = PlainSTDiT3(model.state_dict(), model.config)(**given)
    torch.testing.assert_close(plain, outputs_of(case)["out"], atol=ATOL, rtol=0)


@pytest.mark.parametrize("cls", [STDiT3Transformer3DModel, STDiTTransformer3DModel])
def test_a_prompt_is_read_as_if_it_were_alone(cls: Any) -> None:
    """Each sample of a mixed batch is the same sample by itself, its prompt cut to its length."""
    size = (4, 4, 6)
    config = BASE if cls is STDiT3Transformer3DModel else {**BASE, "input_size": size}
    model, inputs = settled(cls.__name__, config), as_ours(plain_inputs({"size": size, "mask": [4, 12, 1]}))
    together = run(model, inputs)
    for number, length in enumerate([4, 12, 1]):
        own = {name: value[number : number + 1] for name, value in inputs.items() if value is not None}
        own["encoder_hidden_states"] = own["encoder_hidden_states"][:, :length]
        del own["encoder_attention_mask"]
        torch.testing.assert_close(run(model, own), together[number : number + 1], atol=ATOL, rtol=0)
    others = {**inputs, "encoder_attention_mask": None}
    assert (run(model, others) - together).abs().max() > 0.01


@pytest.mark.parametrize("cls", [STDiT3Transformer3DModel, STDiTTransformer3DModel])
def test_both_halves_of_guidance_share_a_mask(cls: Any) -> None:
    size = (2, 4, 4)
    config = BASE if cls is STDiT3Transformer3DModel else {**BASE, "input_size": size}
    model = settled(cls.__name__, config)
    inputs = as_ours(plain_inputs({"size": size, "batch": 4, "mask": [9, 3]}))
    once = run(model, inputs)
    assert torch.equal(run(model, {**inputs, "encoder_attention_mask": GUIDED.repeat(2, 1)}), once)
    assert not torch.equal(run(model, {**inputs, "encoder_attention_mask": GUIDED.flip(0).repeat(2, 1)}), once)
