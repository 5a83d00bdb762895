"""HunyuanVideo's own image to video, whose captions are read beside their clips: its call, its text, whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_hunyuan_llava import KINDS, SIZE, TEMPLATE, hunyuan_llava
from tiny_runs import settings

from modelgrow.surgery import TrainError
from modelgrow.train.families import hunyuan_llava as family
from modelgrow.train.objectives import RectifiedFlow
from modelgrow.train.objectives.objective import draw_levels, mean_error
from modelgrow.train.settings import Settings

PROMPT, OTHER = "a red circle moves right", "a blue square moves left"
TOKENS = {"latent-concat": 576 // 2 + 252, "token-replace": 576 // 4 + 252}
"""Of a picture's 576 every second, or fourth; of the 256 behind the template all but the four that open the answer."""


@pytest.fixture(params=KINDS, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, tiny(request.param)


def tiny(kind: str) -> Any:
    with torch.random.fork_rng():
        pipeline = hunyuan_llava(kind)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def frames_of(seed: int = 0) -> np.ndarray:
    """(T, H, W, 3), nothing but noise."""
    return np.random.default_rng(seed).integers(256, size=(*SIZE, 3), dtype=np.uint8)


def pixels_of(*clips: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.tensor(frames).permute(3, 0, 1, 2) / 127.5 - 1 for frames in clips])


def recorded_calls(pipeline: Any, frames: np.ndarray, **more: Any) -> list[tuple[dict[str, Any], torch.Tensor]]:
    """What the model is called with in a run of one step from a clip's first picture, and its answers."""
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []

    def record(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls.append((kwargs, output[0]))

    handle = pipeline.transformer.register_forward_hook(record, with_kwargs=True)
    count, height, width = SIZE
    pipeline(
        Image.fromarray(frames[0]),
        PROMPT,
        num_frames=count,
        height=height,
        width=width,
        num_inference_steps=1,
        guidance_scale=6.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **more,
    )
    handle.remove()
    return calls


def text_of(pipeline: Any, frames: np.ndarray, prompt: str | None = PROMPT) -> dict[str, torch.Tensor]:
    """As the cache has it; of a caption that is dropped for None."""
    pixels = pixels_of(frames)
    text = family.encode_captions(pipeline, [prompt], pixels) if prompt else family.encode_text(pipeline, [""])
    return {**text, **family.encode_conditions(pipeline, pixels, [None])}


@torch.no_grad()
def answer(pipeline: Any, call: dict[str, Any], text: dict[str, torch.Tensor]) -> torch.Tensor:
    noisy = call["hidden_states"][:, : pipeline.transformer.config.out_channels]
    return family.predict(pipeline, pipeline.transformer, noisy, call["timestep"], text)


def test_predict_is_the_pipelines_call(case: tuple[str, Any]) -> None:
    """Another picture's caption, or another caption of the picture, makes another answer."""
    kind, pipeline = case
    frames = frames_of()
    ((call, expected),) = recorded_calls(pipeline, frames)
    with torch.no_grad():
        text = text_of(pipeline, frames)
        assert torch.equal(text["states"], call["encoder_hidden_states"])
        assert torch.equal(text["pooled"], call["pooled_projections"])
        assert torch.equal(text["mask"].float(), call["encoder_attention_mask"])
        assert torch.equal(answer(pipeline, call, text), expected)
        assert text["states"].shape == (1, TOKENS[kind], 16)
        for clip, prompt in ((frames_of(1), PROMPT), (frames, OTHER)):
            read = family.encode_captions(pipeline, [prompt], pixels_of(clip))
            assert (answer(pipeline, call, {**text, **read}) - expected).abs().max() > 1e-3


def test_a_dropped_caption_is_the_pipelines_unconditional_call(case: tuple[str, Any]) -> None:
    """An empty prompt beside a black picture, whose latents are still the clip's own picture's. The pipeline always
    reads every second token of that picture, though its model were trained with every fourth; here it has as many as
    any other."""
    kind, pipeline = case
    frames = frames_of()
    calls = recorded_calls(pipeline, frames, negative_prompt="", true_cfg_scale=2.0)
    assert len(calls) == 2
    with torch.no_grad():
        text = text_of(pipeline, frames, None)
    assert text["states"].shape == (1, TOKENS[kind], 16)
    if kind == "latent-concat":
        call, expected = calls[1]
        assert torch.equal(answer(pipeline, call, text), expected)
    else:
        theirs = calls[1][0]["encoder_hidden_states"]
        picture = 576 // 4
        assert torch.equal(text["states"][:, :picture], theirs[:, : 2 * picture : 2])
        assert torch.equal(text["states"][:, picture:], theirs[:, 2 * picture :])


def test_captions_of_any_length_are_read_together(case: tuple[str, Any]) -> None:
    """Two of them are cut off, at the pipeline's 256 tokens: each is as the pipeline reads it by itself."""
    kind, pipeline = case
    captions = ["", "red circle " * 60, PROMPT, "moving objects " * 90]
    lengths = [len(pipeline.tokenizer(TEMPLATE.format(caption)).input_ids) - 103 for caption in captions]
    assert [length > 256 for length in lengths] == [False, True, False, True]
    clips = [frames_of(seed) for seed in range(4)]
    with torch.no_grad():
        found = family.encode_captions(pipeline, captions, pixels_of(*clips))
        for place, (caption, clip) in enumerate(zip(captions, clips, strict=True)):
            image = Image.fromarray(clip[0])
            alone = pipeline.encode_prompt(image, caption, image_embed_interleave=4 if kind == "token-replace" else 2)
            for name, states in zip(("states", "pooled", "mask"), alone, strict=True):
                assert torch.equal(found[name][place], states[0])
    read = found["mask"].sum(dim=1) - (TOKENS[kind] - 252)
    assert read.tolist() == [length - 4 if length <= 256 else 252 for length in lengths]


def test_what_is_learned_of_the_first_latent_frame(case: tuple[str, Any]) -> None:
    """Where it is the picture, nothing: no noise on it, none of it read, and its error does not count."""
    kind, pipeline = case
    replaced = kind == "token-replace"
    objective = family.objective(pipeline, settings_of())
    latents, noise, other = torch.randn(3, 2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    levels = draw_levels(objective, latents, torch.Generator().manual_seed(1))
    drawn = RectifiedFlow(shift=7.0).draw(2, torch.Generator().manual_seed(1))
    told = objective.timesteps(levels)
    assert torch.equal(told.amax(dim=1) if replaced else told, drawn * 1000)
    noisy, target = objective.noisy(latents, noise, levels), objective.target(latents, noise, levels)
    wrong = target.clone()
    wrong[:, :, 0] += 1
    assert mean_error(objective, target, target, levels) == 0
    assert (mean_error(objective, wrong, target, levels) == 0) == replaced
    text = {name: torch.cat([value] * 2) for name, value in text_of(pipeline, frames_of()).items()}
    elsewhere = noisy.clone()
    elsewhere[:, :, 0] = other[:, :, 0]
    with torch.no_grad():
        found, again = (family.predict(pipeline, pipeline.transformer, seen, told, text) for seen in (noisy, elsewhere))
    assert torch.equal(found, again) == replaced


def test_what_it_can_not_learn(case: tuple[str, Any]) -> None:
    _, pipeline = case
    with pytest.raises(TrainError, match=r"first_frame is 0\.5, but this model reads a picture in every sample"):
        family.objective(pipeline, settings_of(first_frame=0.5))
    with pytest.raises(TrainError, match="clips of one frame: this model makes the frames behind a first one"):
        family.encode_conditions(pipeline, pixels_of(frames_of())[:, :, :1], [None])


def settings_of(**changes: Any) -> Settings:
    return settings(Path("none"), Path("none"), **changes)
