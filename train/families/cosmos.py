"""Cosmos 1, Predict 2 and Predict 2.5; what their pipelines do before and around their transformer.

Cosmos 1 is EDM. The others are rectified flow: Predict 2's pipelines speak of EDM's levels, but what they make of a
level s is the share of noise, s / (s + 1), and the answer is the way from data to noise. Models that read a mask of
given frames go on from 0, 1 or 2 latent frames of the clip itself, drawn as in NVIDIA's own trainers (cosmos-predict1,
-predict2, -predict2.5). So are noise levels: log-normal, and higher for longer clips.

Shape letters: B samples, C channels, F latent frames, h, w height and width of the latents, L tokens, D width
of their states.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils import is_torchvision_available

from modelgrow.surgery import TrainError
from modelgrow.surgery.grown import stock_name

from ..objectives import Edm, GivenFrames, RectifiedFlow, scheduled
from ..objectives.cosmos_flow import CosmosFlow
from ..objectives.rectified_flow import NUM_TRAIN_TIMESTEPS
from .frames import picture_of
from .latents import mean_of

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

LEVEL = 0.0001
"""What the pipelines say of given frames: of EDM's levels in Predict 2, of the share of noise in 2.5."""
FIRST, SECOND, LATEST = (1 / 3, 1 / 3, 1 / 3), (0.0, 0.5, 0.5), (0.5, 0.25, 0.25)
"""Shares of the samples of which 0, 1 and 2 latent frames are given: Cosmos 1, Predict 2, Predict 2.5."""
LATEST_SHIFT = 5.0


def objective(pipeline: Any, settings: Settings) -> Objective:
    """As published. Raises `TrainError` if the model can't be trained, or can't run here."""
    _check(pipeline)
    base = scheduled(pipeline, settings)
    if isinstance(base, Edm):
        edm = replace(base, mean=0.0, deviation=1.0, by_length=True)
        return GivenFrames(flow=edm, shares=FIRST, level=None) if _reads_mask(pipeline) else edm
    if not isinstance(base, RectifiedFlow):
        raise TrainError(f"Cosmos is trained with EDM or rectified flow, not for {type(pipeline.scheduler).__name__}")
    if not _reads_mask(pipeline):
        return base
    chosen = settings.shift is not None
    if _is_latest(pipeline):
        return GivenFrames(flow=base if chosen else replace(base, shift=LATEST_SHIFT), shares=LATEST, level=LEVEL)
    flow = CosmosFlow(sampling=base.sampling, shift=base.shift, by_length=not chosen)
    return GivenFrames(flow=flow, shares=SECOND, level=LEVEL / (1 + LEVEL))


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D)."""
    states, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    return {"states": states}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Of the standard deviation that the scheduler counts on. Cosmos 1 normalises each latent frame by its own."""
    vae = pipeline.vae
    latents = mean_of(vae, pixels)
    deviation = pipeline.scheduler.config.get("sigma_data") or 1.0
    if vae.config.latents_mean is None or vae.config.latents_std is None:
        plain: torch.Tensor = latents * deviation
        return plain
    tables = (
        torch.tensor(value, device=latents.device).view(1, latents.shape[1], -1, 1, 1)
        for value in (vae.config.latents_mean, vae.config.latents_std)
    )
    mean, std = (table[:, :, : latents.shape[2]] for table in tables)
    if 1 < mean.shape[2] < latents.shape[2]:
        longest = (mean.shape[2] - 1) * pipeline.vae_scale_factor_temporal + 1
        raise TrainError(
            f"clips of {pixels.shape[2]} frames: this VAE's latents_mean and latents_std are for {longest} at most, "
            f"and diffusers can't decode more either; set num_frames to {longest} or less"
        )
    normalised: torch.Tensor = (latents - mean) * deviation / std
    return normalised


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """Clips count as of as many frames per second as the pipeline assumes. `timesteps`: (B,) or (B, 2, F)."""
    rate = inspect.signature(type(pipeline).__call__).parameters.get("fps")
    if rate is None and not _reads_mask(pipeline):
        picture_of(noisy)
    height, width = (side * pipeline.vae_scale_factor_spatial for side in noisy.shape[-2:])
    seen, mask = told(pipeline, noisy, timesteps)
    output: torch.Tensor = model(
        hidden_states=noisy,
        timestep=seen,
        encoder_hidden_states=text["states"],
        fps=rate and rate.default,
        condition_mask=mask,
        padding_mask=noisy.new_zeros(1, 1, height, width),
        return_dict=False,
    )[0]
    return output


def told(pipeline: Any, noisy: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the model is told of the noise, (B,) or (B, 1, F, 1, 1), and which frames are given, (B, 1, F, h, w)."""
    unit = 1 if _is_edm(pipeline) else NUM_TRAIN_TIMESTEPS
    if timesteps.ndim == 1:
        return timesteps / unit, None
    levels, given = (part[:, None, :, None, None] for part in (timesteps / unit).unbind(1))
    mask = (given > 0).to(noisy.dtype).expand(-1, -1, -1, *noisy.shape[-2:])
    # Cosmos 1 is told one level for all frames; the last is never given.
    return levels[:, 0, -1, 0, 0] if _is_edm(pipeline) else levels, mask


def _check(pipeline: Any) -> None:
    if pipeline.transformer.config.concat_padding_mask and not is_torchvision_available():
        raise TrainError("diffusers resizes Cosmos' padding mask with torchvision, which is missing: install it")


def _is_edm(pipeline: Any) -> bool:
    return "EDM" in type(pipeline.scheduler).__name__


def _is_latest(pipeline: Any) -> bool:
    return stock_name(type(pipeline).__name__).startswith("Cosmos2_5")


def _reads_mask(pipeline: Any) -> bool:
    """One channel more goes in than comes out."""
    config = pipeline.transformer.config
    return bool(config.in_channels == config.out_channels + 1)
