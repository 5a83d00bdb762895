"""Training Open-Sora: the reference's loss and gradients, frames that are given, and a run from end to end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from growths import grow
from open_sora_flow_case import load_model, tensors
from tiny_open_sora import open_sora, save_open_sora
from tiny_pipelines import load_aligned
from tiny_runs import differing, record_of, settings

from modelgrow.pipelines.open_sora.flow import timestep_transform
from modelgrow.train.families import family_of
from modelgrow.train.loop import Loop
from modelgrow.train.objectives import Diffusion
from modelgrow.train.objectives.frame_masks import GIVEN, SHARES, draw_frame_mask
from modelgrow.train.objectives.objective import draw_levels, mean_error
from modelgrow.train.objectives.open_sora_flow import OpenSoraFlow, told
from modelgrow.train.run import train
from modelgrow.train.setup import set_up

FLOW = OpenSoraFlow(pixel_frames=lambda frames: frames * 17 // 5)


def levels_of(case: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B,), after the transform."""
    found = [
        timestep_transform(t, float(h), float(w), int(n))
        for t, h, w, n in zip(case["t_raw"], case["height"], case["width"], case["num_frames"], strict=True)
    ]
    return torch.stack(found)


def losses(model: Any, case: dict[str, torch.Tensor], levels: torch.Tensor) -> torch.Tensor:
    """Of each sample."""
    timestep, mask = told(levels)
    noisy = FLOW.noisy(case["x_start"], case["noise"], levels)
    sizes = {name: case[name] for name in ("fps", "height", "width")}
    answer = model(noisy, timestep, case["y"][:, 0], case["text_mask"], mask, **sizes, return_dict=False)[0][:, :4]
    target = FLOW.target(case["x_start"], case["noise"], levels)
    rows = [slice(row, row + 1) for row in range(len(levels))]
    return torch.stack([mean_error(FLOW, answer[row], target[row], levels[row]) for row in rows])


def test_loss_and_gradients_are_the_references() -> None:
    model, case = load_model("train"), tensors("train")
    drawn = levels_of(case)
    assert torch.equal(drawn, case["t"])
    levels = drawn[:, None].expand(2, 5)
    torch.testing.assert_close(FLOW.noisy(case["x_start"], case["noise"], levels), case["x_t"], rtol=0, atol=1e-6)
    found = losses(model, case, levels)
    torch.testing.assert_close(found, case["loss_nomask"], rtol=0, atol=2e-5)
    found.mean().backward()
    for name, expected in case.items():
        if name.startswith("grad."):
            gradient = model.get_parameter(name.removeprefix("grad.")).grad
            torch.testing.assert_close(gradient, expected, rtol=0, atol=2e-5)
    given = torch.where(case["x_mask"], drawn[:, None], GIVEN)
    torch.testing.assert_close(losses(model, case, given), case["loss_mask"], rtol=0, atol=2e-5)
    assert (case["loss_mask"] - case["loss_nomask"]).abs().min() > 0.01


def test_given_frames_are_clean_and_do_not_count() -> None:
    levels = torch.tensor([[500.0, GIVEN, 500.0], [200.0, 200.0, 200.0]])
    latents, noise = torch.full((2, 1, 3, 1, 1), 2.0), torch.full((2, 1, 3, 1, 1), -1.0)
    assert FLOW.noisy(latents, noise, levels).flatten().tolist() == pytest.approx([0.5, 2.0, 0.5, 1.4, 1.4, 1.4])
    timestep, mask = told(levels)
    assert timestep.tolist() == [500.0, 200.0]
    assert mask.tolist() == [[True, False, True], [True, True, True]]
    error = torch.tensor([[1.0, 100.0, 3.0], [4.0, 5.0, 6.0]]).sqrt().view(2, 1, 3, 1, 1)
    assert mean_error(FLOW, error, torch.zeros_like(error), levels).item() == pytest.approx((2 + 5) / 2)


def test_levels_follow_size_and_length() -> None:
    flow = OpenSoraFlow(pixel_frames=lambda frames: frames * 17 // 5, frame_conditioning=0.0)
    latents = torch.zeros(1).expand(2000, 4, 15, 8, 16)
    levels = draw_levels(flow, latents, torch.Generator().manual_seed(0))
    assert levels.shape == (2000, 15)
    assert torch.equal(levels, levels[:, :1].expand_as(levels))
    # sigmoid(0) is the middle of the drawn levels; the transform keeps the order.
    middle = float(timestep_transform(torch.tensor(500.0), 64, 128, 51))
    assert levels[:, 0].median().item() == pytest.approx(middle, rel=0.08)
    larger = draw_levels(flow, torch.zeros(1).expand(2000, 4, 15, 60, 106), torch.Generator().manual_seed(0))
    assert (larger > levels).all()


def test_kinds_of_given_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = [draw_frame_mask(8, 1.0, generator) for _ in range(4000)]
    assert all(mask.any() for mask in masks)
    kinds = Counter(tuple(mask.tolist()) for mask in masks)
    on, off = True, False
    head, tail = (off, *(on,) * 7), (*(on,) * 7, off)
    ends = (off, *(on,) * 6, off)
    # image_head, half of image_random's eighth and quarter_head; the others likewise.
    share = SHARES["image_head"] + SHARES["image_random"] / 8 + SHARES["quarter_head"] / 2
    assert kinds[head] / 4000 == pytest.approx(share / 0.2, abs=0.04)
    assert kinds[tail] / 4000 == pytest.approx(
        (SHARES["image_tail"] + SHARES["image_random"] / 8 + SHARES["quarter_tail"] / 2) / 0.2, abs=0.04
    )
    assert kinds[ends] / 4000 == pytest.approx(
        (SHARES["image_head_tail"] + SHARES["quarter_head_tail"] / 2) / 0.2, abs=0.04
    )
    assert all(kinds[kind] for kind in ((off, on) * 4, (on, off) * 4, (off, off, *(on,) * 6)))
    none = [draw_frame_mask(8, 0.2, generator).all() for _ in range(4000)]
    assert sum(none) / 4000 == pytest.approx(0.8, abs=0.03)
    assert all(draw_frame_mask(frames, 1.0, generator).any() for frames in (1, 2, 3) for _ in range(300))
    assert draw_frame_mask(1, 1.0, generator).all()


def test_dropped_captions_are_the_null_caption_of_their_length(tmp_path: Path) -> None:
    pipeline = open_sora()
    family = family_of("STDiT3Transformer3DModel")
    with torch.no_grad():
        text = family.encode_text(pipeline, ["a red circle", ""])
    null = pipeline.transformer.y_embedder.y_embedding
    assert torch.equal(text["states"][1], null)
    assert not torch.equal(text["states"][0], null)
    run = set_up(settings(grown(tmp_path), tmp_path / "run", **SHORT, caption_dropout=1.0), lambda _: None)
    batch = run.batch(0)
    assert torch.equal(batch.text["states"], null.expand_as(batch.text["states"]))
    assert batch.text["kept_mask"].sum(1).min() > 1


SHORT: dict[str, Any] = {"data": "shapes:2-3:4", "num_frames": 17, "height": 32, "width": 32}


def grown(folder: Path, version: str = "1.2") -> Path:
    base = save_open_sora(folder / "base", version=version)
    return grow(base, folder / "grown")


def test_a_run_changes_only_what_is_new_and_the_loss_falls(tmp_path: Path) -> None:
    model = grown(tmp_path)
    seen: list[float] = []
    chosen = settings(model, tmp_path / "run", **SHORT, steps=12, frame_conditioning=0.5)
    result = train(chosen, report=lambda progress: seen.append(progress.loss))
    assert seen[-1] < seen[0]
    record, changed = record_of(result.model), differing(model, result.model)
    assert changed
    assert changed <= set(record.new)


def test_levels_of_a_batch_know_its_size(tmp_path: Path) -> None:
    run = set_up(settings(grown(tmp_path), tmp_path / "run", **SHORT, frame_conditioning=1.0), lambda _: None)
    batch = run.batch(0)
    assert batch.latents.shape == (2, 4, 5, 4, 4)
    assert batch.levels.shape == (2, 5)
    assert (batch.levels == GIVEN).any(dim=1).all()
    loop = Loop(run=run, report=lambda _: None)
    loss = loop.loss(batch, 0)
    assert torch.isfinite(loss)
    assert not torch.equal(loss, loop.loss(type(batch)(**{**vars(batch), "levels": batch.levels.clamp(min=5)}), 0))


def test_version_1_trains_on_noise(tmp_path: Path) -> None:
    chosen = settings(grown(tmp_path, "1.0"), tmp_path / "run", **{**SHORT, "num_frames": 4}, steps=3)
    assert isinstance(set_up(chosen, lambda _: None).objective, Diffusion)
    assert train(chosen).model.is_dir()


def test_a_lora_loads_into_the_pipeline(tmp_path: Path) -> None:
    model = grown(tmp_path)
    result = train(settings(model, tmp_path / "run", **SHORT, steps=3, train="lora", lora_rank=2))
    pipeline = load_aligned(model)
    call = {"height": 32, "width": 32, "num_frames": 17, "num_inference_steps": 1, "output_type": "latent"}
    clips = [pipeline("a red circle", generator=torch.Generator().manual_seed(0), **call).frames]
    pipeline.load_lora_weights(result.model)
    clips.append(pipeline("a red circle", generator=torch.Generator().manual_seed(0), **call).frames)
    assert pipeline.get_active_adapters()
    assert not torch.equal(*clips)
