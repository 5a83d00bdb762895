"""HunyuanVideo 1.5: what is written in quotation marks, the image that a clip starts from, noise levels, runs."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from growths import grow
from PIL import Image
from tiny_hunyuan_video15 import OPTIONS, hunyuan_video15, hunyuan_video15_i2v
from tiny_runs import bytes_of, settings

from modelgrow.surgery import TrainError
from modelgrow.train.batch import generator_of, text_of
from modelgrow.train.data.encode import to_pixels
from modelgrow.train.families import family_of
from modelgrow.train.families import hunyuan_video15 as family
from modelgrow.train.run import train

PROMPT = 'a red "circle" moves'
NEAR: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def t2v() -> Any:
    return hunyuan_video15()


@pytest.fixture(scope="module")
def i2v() -> Any:
    return hunyuan_video15_i2v()


def clips(samples: int = 1, frames: int = 9) -> torch.Tensor:
    """Of the pixels that files have, (B, 3, T, 32, 32)."""
    drawn = np.random.default_rng(0).integers(0, 256, (samples, frames, 32, 32, 3), dtype=np.uint8)
    return torch.stack([to_pixels(clip) for clip in drawn])


def recorded_call(pipeline: Any, **given: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """What the model is given in a run of the pipeline, the first time, and what it answers."""
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((kwargs, output[0])), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(0)
    pipeline(prompt=PROMPT, num_inference_steps=2, generator=generator, output_type="latent", **given)
    handle.remove()
    return calls[0]


def test_words_in_quotation_marks_are_read_twice(t2v: Any) -> None:
    kwargs, expected = recorded_call(t2v, **OPTIONS)
    noisy = kwargs["hidden_states"][:, :4]
    with torch.no_grad():
        text = family.encode_text(t2v, [PROMPT])
        assert text["glyph_mask"].sum() == len('Text "circle". ') + 1, "every letter, and the end"
        assert not text["states"][text["mask"] == 0].any()
        found = family.predict(t2v, t2v.transformer, noisy, kwargs["timestep"], text)
        none = family.encode_text(t2v, [PROMPT.replace('"', "")])
        mute = {**text, "glyphs": none["glyphs"], "glyph_mask": none["glyph_mask"]}
        other = family.predict(t2v, t2v.transformer, noisy, kwargs["timestep"], mute)
    torch.testing.assert_close(found, expected, **NEAR)
    assert (other - found).abs().max() > 1e-4


def test_an_image_is_read_as_the_pipeline_reads_it(i2v: Any) -> None:
    """The clip's first frame, in the image's place."""
    pixels = clips()
    image = Image.fromarray(((pixels[0, :, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    kwargs, expected = recorded_call(i2v, image=image, num_frames=9)
    noisy = kwargs["hidden_states"][:, :4]
    assert kwargs["hidden_states"][:, -1].flatten(2).amax(dim=2).tolist() == [[1, 0, 0]], "the mask"
    with torch.no_grad():
        conditions = family.encode_conditions(i2v, pixels, [None])
        text = family.encode_text(i2v, [PROMPT])
        found = family.predict(i2v, i2v.transformer, noisy, kwargs["timestep"], {**text, **conditions})
        others = family.encode_conditions(i2v, pixels.flip(2), [None])
        parts = [{**conditions, name: others[name]} for name in conditions]
        answers = [family.predict(i2v, i2v.transformer, noisy, kwargs["timestep"], {**text, **part}) for part in parts]
    torch.testing.assert_close(conditions[family.STATES], kwargs["image_embeds"], **NEAR)
    torch.testing.assert_close(found, expected, **NEAR)
    assert all((answer - found).abs().max() > 1e-4 for answer in answers), "another image must differ"


def test_text_to_video_reads_no_image(t2v: Any) -> None:
    assert family.encode_conditions(t2v, clips(), [None]) == {}


def test_the_image_stays_where_the_caption_is_dropped(i2v: Any, tmp_path: Path) -> None:
    """And where the caption is the long one, as the pipeline keeps it for guidance."""
    with torch.no_grad():
        conditions = {name: value[0] for name, value in family.encode_conditions(i2v, clips(), [None]).items()}
        short, long, empty = (
            {name: value[0] for name, value in family.encode_text(i2v, [caption]).items()}
            for caption in ("a circle", "a red circle", "")
        )
    example = {f"text.{name}": value for name, value in {**short, **conditions}.items()}
    example |= {f"long.{name}": value for name, value in long.items()}
    for changes, words in (
        ({"caption_dropout": 1.0}, empty),
        ({"caption_dropout": 0.0, "long_captions": 0.0}, short),
        ({"caption_dropout": 0.0, "long_captions": 1.0}, long),
    ):
        chosen = settings(tmp_path, tmp_path / "run", **changes)
        drawn = text_of(example, empty, chosen, generator_of(0, "batch"))
        assert drawn.keys() == {**words, **conditions}.keys()
        assert all(torch.equal(drawn[name], value) for name, value in {**words, **conditions}.items())


def test_clips_are_encoded_as_if_alone(i2v: Any) -> None:
    pixels = clips(2)
    with torch.no_grad():
        both = family.encode_video(i2v, pixels), family.encode_conditions(i2v, pixels, [None, None])
        apart = [(family.encode_video(i2v, one), family.encode_conditions(i2v, one, [None])) for one in pixels.split(1)]
    torch.testing.assert_close(both[0], torch.cat([latents for latents, _ in apart]), **NEAR)
    for name, value in both[1].items():
        torch.testing.assert_close(value, torch.cat([conditions[name] for _, conditions in apart]), **NEAR)
    # Its VAE is causal, so the image's latents are the clip's own first.
    torch.testing.assert_close(both[1][family.LATENTS], both[0][:, :, 0], **NEAR)


def test_noise_levels_are_those_of_its_own_training(t2v: Any, tmp_path: Path) -> None:
    """sigmoid(n), shifted by 3, whatever the sampler shifts by: its median is 3 / (1 + 3)."""
    own = family.objective(t2v, settings(tmp_path, tmp_path))
    levels = own.draw(20_000, torch.Generator().manual_seed(0))
    assert levels.median().item() == pytest.approx(0.75, abs=0.005)
    chosen = family.objective(t2v, settings(tmp_path, tmp_path, shift=5.0, timestep_sampling="uniform"))
    assert (chosen.shift, chosen.sampling) == (5.0, "uniform")


def test_idle_is_what_has_no_gradient(t2v: Any) -> None:
    """Several processes would wait for it."""
    model = copy.deepcopy(t2v.transformer).requires_grad_(True)
    with torch.no_grad():
        text = family.encode_text(t2v, [PROMPT])
    family.predict(t2v, model, torch.zeros(1, 4, 3, 8, 8), torch.tensor([900.0]), text).square().mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in model.named_parameters() if family.idle(name, model.config)}
    assert len(without) == 6


def test_what_mean_flow_distilled_is_not_trained(tmp_path: Path) -> None:
    distilled = hunyuan_video15(use_meanflow=True)
    with pytest.raises(TrainError, match="distilled to answer with averages"):
        family.objective(distilled, settings(tmp_path, tmp_path))


def test_a_run_from_images_trains_what_is_new_and_nothing_else(i2v: Any, tmp_path: Path) -> None:
    assert family_of("HunyuanVideo15Transformer3DModel") is family
    i2v.save_pretrained(tmp_path / "base")
    grown = grow(tmp_path / "base", tmp_path / "grown", "suffix", blocks=1)
    (grown / "generation.json").write_text('{"num_inference_steps": 2}')
    # Its pipeline takes no height and width, the settings do.
    previews = {"previews": ("a red circle",), "preview_every": 3}
    changes = {"data": "shapes:1:2", "steps": 3, "batch_size": 2, **previews, **OPTIONS}
    result = train(settings(grown, tmp_path / "run", **changes))
    before, after = bytes_of(grown), bytes_of(result.model)
    assert before.keys() == after.keys()
    moved = {name for name in before if before[name] != after[name]}
    config = SimpleNamespace(num_layers=3)
    block = {name for name in before if name.startswith("transformer_blocks.2.")}
    assert moved == {name for name in block if not family.idle(name, config)}
    assert result.growth is not None
    assert (tmp_path / "run" / "previews" / "step-00000003-0.mp4").exists()
