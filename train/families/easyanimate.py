"""EasyAnimate 5 and 5.1; what its three pipelines do before and around their transformer.

EasyAnimatePipeline makes clips from text. The model of EasyAnimateInpaintPipeline learns to go on from the clip's first
frame. Data sets here have no control clips, so that of EasyAnimateControlPipeline is called as without one: text to
video. EasyAnimate's own trainer draws levels evenly, which is `timestep_sampling = "uniform"`.

Shape letters: B samples, C channels, T frames, H, W in pixels, F latent frames, h, w in latents.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.easyanimate.pipeline_easyanimate_inpaint import add_noise_to_reference_video, resize_mask

from modelgrow.surgery.grown import stock_name

from .latents import mean_of, scaled

if TYPE_CHECKING:
    from .family import Text

INPAINT = "kept_inpaint_latents"
"""(B, M + C, F, h, w): a mask of M channels, 1 or C, and the given frame. Guidance has them on both sides."""
NOT_GIVEN = -1.0
"""A pixel."""
NOISE_MEAN, NOISE_DEVIATION = -3.0, 0.5
"""Of the ln of how much noise a given picture gets, from the trainer too."""
TEXT_ENDS = ("attn1.add_q_proj.", "attn1.norm_added_q.", "attn1.to_add_out.", "txt_ff.")
"""What makes the text that a block hands on."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    states, _, _, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    return {"states": states}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return scaled(pipeline.vae, mean_of(pipeline.vae, pixels))


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """What the inpainting model reads beside the noisy latents, as its pipeline makes it of a clip and a mask of it.

    Args:
        pipeline: Of the model; for the others there is nothing.
        pixels: (B, 3, T, H, W) in [-1, 1].
        frame_rates: Not read.
    """
    if not _inpaints(pipeline):
        return {}
    config = pipeline.transformer.config
    given = torch.full_like(pixels, NOT_GIVEN)
    given[:, :, :1] = _noised(pixels[:, :, :1]) if config.add_noise_in_inpaint_model else pixels[:, :, :1]
    latents = encode_video(pipeline, given)
    hidden = torch.ones_like(pixels)
    hidden[:, :, :1] = 0
    if config.resize_inpaint_mask_directly:
        vae = pipeline.vae.config
        mask = resize_mask(1 - hidden[:, :1], latents, vae.get("cache_mag_vae", True)) * vae.scaling_factor
    else:
        mask = encode_video(pipeline, hidden)
    return {INPAINT: torch.cat([mask, latents], dim=1)}


def idle(name: str, config: Any) -> bool:
    """Whether a parameter has no part in the answer: what the last block makes of the text, which nobody reads."""
    last = f"transformer_blocks.{config.num_layers - 1}."
    return name.startswith(last) and name.removeprefix(last).startswith(TEXT_ENDS)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    config, channels = pipeline.transformer.config, noisy.shape[1]
    inpaint = text[INPAINT].to(noisy.dtype) if _inpaints(pipeline) else None
    control = None
    if inpaint is None and config.in_channels > channels:
        control = noisy.new_zeros(len(noisy), config.in_channels - channels, *noisy.shape[2:])
    output: torch.Tensor = model(
        noisy,
        timesteps,
        encoder_hidden_states=text["states"],
        inpaint_latents=inpaint,
        control_latents=control,
        return_dict=False,
    )[0]
    return output[:, :channels]


def _inpaints(pipeline: Any) -> bool:
    return stock_name(type(pipeline).__name__) == "EasyAnimateInpaintPipeline"


def _noised(pictures: torch.Tensor) -> torch.Tensor:
    """Each with noise that follows from itself, so that every process makes the same."""
    noised = []
    for picture in pictures.float().cpu():
        digest = hashlib.sha256(picture.numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        strength = (torch.randn(1, generator=generator) * NOISE_DEVIATION + NOISE_MEAN).exp()
        noised.append(add_noise_to_reference_video(picture[None], ratio=strength, generator=generator))
    return torch.cat(noised).to(pictures)
