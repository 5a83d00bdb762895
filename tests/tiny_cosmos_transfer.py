"""Cosmos Transfer's pipeline in miniature, and what its models are given. It runs `with_torchvision`."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import torch
from architectures import row_of
from models import build, noisy
from tiny_cosmos import Trusting, cosmos2_5

from modelgrow.train.families import cosmos_transfer as family

PROMPTS = ["a red circle moves right", "a blue square"]
CHUNK = 9
"""Frames that are made at once."""
TRANSFER: dict[str, Any] = {
    **row_of("cosmos2.5-transfer").tiny,
    "in_channels": 5,
    "concat_padding_mask": True,
    "max_size": (16, 32, 32),
    "use_crossattn_projection": True,
    "crossattn_proj_in_channels": 16,
    "encoder_hidden_states_channels": 16,
}
SHARED = (
    *("num_attention_heads", "attention_head_dim", "mlp_ratio", "text_embed_dim", "adaln_lora_dim", "max_size"),
    *("extra_pos_embed_type", "crossattn_proj_in_channels", "encoder_hidden_states_channels"),
)
"""What a ControlNet's config has of its transformer's."""


def cosmos_transfer(*, blocks: int = 2, **transformer: Any) -> Any:
    """With a ControlNet of that many blocks."""
    base = cosmos2_5()
    model = {**TRANSFER, **transformer}
    made: Any = diffusers.Cosmos2_5_TransferPipeline(
        tokenizer=base.tokenizer,
        text_encoder=base.text_encoder,
        vae=base.vae,
        transformer=build("CosmosTransformer3DModel", model),
        controlnet=_controlnet(model, blocks),
        scheduler=base.scheduler,
        safety_checker=Trusting(),
    )
    made.set_progress_bar_config(disable=True)
    return made


def _controlnet(model: dict[str, Any], blocks: int) -> Any:
    """For a transformer of that config. As in the published ones, more channels go in than a control clip has."""
    made = diffusers.CosmosControlNetModel(
        n_controlnet_blocks=blocks,
        in_channels=9,
        latent_channels=model["in_channels"] + 1,
        model_channels=model["num_attention_heads"] * model["attention_head_dim"],
        img_context_dim_out=model["img_context_dim_out"],
        img_context_dim_in=model["img_context_dim_in"],
        use_crossattn_projection=True,
        **{name: model[name] for name in SHARED},
    )
    return noisy(made, 3)


def clip(seed: int, frames: int = 2 * CHUNK - 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)


def pixels(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def text_of(pipeline: Any, control: np.ndarray, prompts: list[str]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        seen = pixels(control)
        read = family.encode_conditions(pipeline, seen * 0, [None], {"control_video": seen})
        states = family.encode_text(pipeline, prompts)
    return {**states, **{name: value.expand(len(prompts), -1, -1, -1, -1) for name, value in read.items()}}


def inputs(pipeline: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Of which the first latent frame is given."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 3, 4, 4, generator=generator)
    timesteps = torch.tensor([[[100.0, 700.0, 700.0], [1.0, 0.0, 0.0]]])
    return latents, timesteps, text_of(pipeline, clip(0, CHUNK), PROMPTS[:1])
