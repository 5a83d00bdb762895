"""Wan Animate: called as its pipeline calls it, in both of its modes and in a later segment, and trained on files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from tiny_runs import settings
from tiny_wan_animate import FACE, SIZE, frames_of, pictures_of, pixels_of, wan_animate

from modelgrow.surgery import TrainError
from modelgrow.train.families import wan_animate as family
from modelgrow.train.objectives import RectifiedFlow
from modelgrow.train.objectives.told_flow import ToldFlow

PROMPT = "a red circle moves right"
CLIP = frames_of(0)
HIDDEN = np.where(frames_of(5)[:, :, :, :1] < 128, 0, 255).astype(np.uint8).repeat(3, axis=3)
CONTROLS = {"pose_video": frames_of(1), "face_video": frames_of(2, side=FACE)}
REPLACED = {**CONTROLS, "background_video": frames_of(3), "mask_video": HIDDEN}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return wan_animate()


def recorded(pipeline: Any, controls: dict[str, np.ndarray], **options: Any) -> list[tuple[Any, torch.Tensor]]:
    """Every call of the model in a run of the pipeline: what it is called with, and its answer."""
    calls: list[tuple[Any, torch.Tensor]] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((kwargs, output[0])), with_kwargs=True
    )
    arguments = {**family.preview_arguments(pipeline, controls), **options}
    pipeline(
        pictures_of(CLIP)[0],
        prompt=PROMPT,
        height=SIZE["height"],
        width=SIZE["width"],
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **arguments,
    )
    handle.remove()
    return calls


def conditions(pipeline: Any, clip: np.ndarray = CLIP, controls: Any = CONTROLS) -> dict[str, torch.Tensor]:
    read = {name: pixels_of(frames) for name, frames in controls.items()}
    with torch.no_grad():
        return family.encode_conditions(pipeline, pixels_of(clip), [None], read)


def text_of(pipeline: Any, caption: str = PROMPT) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return family.encode_text(pipeline, [caption])


@torch.no_grad()
def answer(pipeline: Any, kwargs: Any, text: dict[str, torch.Tensor], given: bool | None = None) -> torch.Tensor:
    """Of the family, to a recorded call's noise; `given`: what it is told of the first frame, if anything."""
    timesteps = kwargs["timestep"]
    if given is not None:
        timesteps = torch.stack([timesteps, torch.full_like(timesteps, given)], dim=1)
    return family.predict(pipeline, pipeline.transformer, kwargs["hidden_states"][:, :4], timesteps, text)


@pytest.mark.parametrize("controls", [CONTROLS, REPLACED], ids=["animate", "replace"])
def test_predict_is_the_pipelines_call(controls: dict[str, np.ndarray], pipeline: Any) -> None:
    kwargs, expected = recorded(pipeline, controls)[0]
    text = {**text_of(pipeline), **conditions(pipeline, controls=controls)}
    found = answer(pipeline, kwargs, text)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(answer(pipeline, kwargs, text, given=False), found)
    assert (answer(pipeline, kwargs, text, given=True) - expected).abs().max() > 1e-3
    for name, frames in controls.items():
        other = conditions(pipeline, controls={**controls, name: 255 - frames})
        assert (answer(pipeline, kwargs, text | other) - expected).abs().max() > 1e-3, name
    middle, first = CLIP.copy(), CLIP.copy()
    middle[1:], first[0] = 255 - middle[1:], 255 - first[0]
    assert torch.equal(answer(pipeline, kwargs, text | conditions(pipeline, middle, controls)), found)
    assert (answer(pipeline, kwargs, text | conditions(pipeline, first, controls)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("replaces", [False, True], ids=["animate", "replace"])
def test_a_given_first_frame_is_the_pipelines_later_segment(
    replaces: bool, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose last frame was, here, the picture, so that it goes on from it."""
    decoded = (pixels_of(CLIP).flip(2),)
    monkeypatch.setattr(AutoencoderKLWan, "decode", lambda self, latents, return_dict=True: decoded)
    # Five frames, of which the last is the second segment's first.
    controls = {name: np.concatenate([clip[:-1], clip]) for name, clip in (REPLACED if replaces else CONTROLS).items()}
    calls = recorded(pipeline, controls, segment_frame_length=SIZE["num_frames"])
    assert len(calls) == 4, "two segments of two steps"
    kwargs, expected = calls[2]
    later = {name: clip[4:] for name, clip in controls.items()}
    text = {**text_of(pipeline), **conditions(pipeline, controls=later)}
    torch.testing.assert_close(answer(pipeline, kwargs, text, given=True), expected, rtol=1e-4, atol=1e-4)
    assert (answer(pipeline, kwargs, text, given=False) - expected).abs().max() > 1e-3


def test_without_a_caption_the_face_is_left_out_as_in_guidance(pipeline: Any) -> None:
    kwargs, expected = recorded(pipeline, CONTROLS, guidance_scale=3.0)[1]
    read = conditions(pipeline)
    left = {name: value if name.startswith("kept_") else torch.zeros_like(value) for name, value in read.items()}
    text = {**text_of(pipeline, ""), **left}
    torch.testing.assert_close(answer(pipeline, kwargs, text), expected, rtol=1e-4, atol=1e-4)
    assert (answer(pipeline, kwargs, text | read) - expected).abs().max() > 1e-3
    assert {name for name in read if not torch.equal(read[name], left[name])} == {family.FACES}


def test_the_picture_is_a_latent_frame_before_the_clips(pipeline: Any) -> None:
    with torch.no_grad():
        latents = family.encode_video(pipeline, pixels_of(CLIP))
    read = conditions(pipeline)
    assert latents.shape == (1, 4, 3, 8, 12)
    torch.testing.assert_close(latents[:, :, :1], read[family.REFERENCE][:, 4:], rtol=1e-4, atol=1e-5)
    assert torch.equal(latents[:, :, 0], latents[:, :, 1])
    assert (read[family.REFERENCE][:, :4] == 1).all()
    assert read[family.POSES].shape == (1, 4, 2, 8, 12)
    assert (read[family.GIVEN][:, :4] == 0).all()
    assert read[family.FIRST][:, :4].sum(dim=(3, 4)).tolist() == [[[96.0, 0.0]] * 4]


def test_faces_are_kept_as_bytes(pipeline: Any) -> None:
    found = conditions(pipeline)[family.FACES]
    assert found.dtype == torch.uint8
    assert np.array_equal(found[0].permute(1, 2, 3, 0).numpy(), CONTROLS["face_video"])


@pytest.mark.parametrize(("there", "missing"), [("background_video", "mask_video"), ("mask_video", "background_video")])
def test_a_background_goes_with_a_mask(there: str, missing: str, pipeline: Any) -> None:
    with pytest.raises(TrainError, match=f"the clips have {there} and no {missing}: .* give {missing} too"):
        conditions(pipeline, controls={**CONTROLS, there: REPLACED[there]})


def test_what_it_reads_beside_the_clip(pipeline: Any) -> None:
    found = family.controls(pipeline)
    assert [name for name, control in found.items() if control.required] == ["pose_video", "face_video"]
    assert {name: control.size for name, control in found.items() if control.size} == {"face_video": (FACE, FACE)}
    assert set(found) == set(REPLACED)


def test_the_first_frame_is_given_in_a_quarter_of_the_samples(pipeline: Any) -> None:
    flow = RectifiedFlow(shift=5.0)
    chosen = settings(Path("m"), Path("o"))
    assert family.objective(pipeline, chosen) == ToldFlow(flow=flow, share=0.25)
    assert family.objective(pipeline, settings(Path("m"), Path("o"), first_frame=1.0)) == ToldFlow(flow=flow, share=1.0)
    assert family.objective(pipeline, settings(Path("m"), Path("o"), first_frame=0.0)) == flow


def test_every_parameter_has_a_part_in_the_answer(pipeline: Any) -> None:
    model = pipeline.transformer
    text = {**text_of(pipeline), **conditions(pipeline)}
    family.predict(pipeline, model, torch.randn(1, 4, 3, 8, 12), torch.tensor([500.0]), text).square().sum().backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    model.zero_grad(set_to_none=True)
    assert not still
