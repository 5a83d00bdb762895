"""From the published VAE's config.json to the arguments of `AutoencoderKLOpenSora`."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from diffusers import AutoencoderKL

from modelgrow.surgery import CheckpointError

from .temporal_vae import TemporalVAE

SDXL_VAE: Mapping[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
"""Arguments of `AutoencoderKL` for the 2D part of Open-Sora 1.2, 83.65 M parameters."""

TEMPORAL: Mapping[str, Any] = {
    "in_out_channels": 4,
    "latent_embed_dim": 4,
    "embed_dim": 4,
    "filters": 128,
    "num_res_blocks": 4,
    "channel_multipliers": [1, 2, 2, 4],
    "temporal_downsample": [False, True, True],
    "num_groups": 32,
}
"""Arguments of `TemporalVAE` for Open-Sora 1.2, 309.7 M parameters; the reference's VAE_Temporal_SD."""

_SDXL_IDS = ("PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers", "stabilityai/sdxl-vae")
_OWN = ("spatial", "temporal", "micro_frame_size", "micro_batch_size", "spatial_scale", "shift", "scale")


def from_published(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `AutoencoderKLOpenSora` for a published config.

    Args:
        config: The published config.json: `vae_2d`, `vae_temporal`, `micro_frame_size`, `shift`, `scale`. The
            arguments of `AutoencoderKLOpenSora` themselves pass as they are.

    Raises:
        CheckpointError: It is no such config.
    """
    chosen = {name: config[name] for name in _OWN if name in config}
    if "spatial" in config:
        return chosen
    flat, deep = config.get("vae_2d"), config.get("vae_temporal")
    if not isinstance(flat, Mapping):
        raise CheckpointError(
            "config.json of an Open-Sora VAE must say how its 2D part is built, in vae_2d (published) or spatial "
            f"(modelgrow's own); found {', '.join(sorted(config)) or 'nothing'}"
        )
    return chosen | {
        "spatial": _spatial(flat),
        "temporal": _temporal(deep) if isinstance(deep, Mapping) else None,
        "micro_batch_size": flat.get("micro_batch_size"),
    }


def _spatial(config: Mapping[str, Any]) -> dict[str, Any]:
    """The published config names a 2D VAE, whose own config has the sizes; that of 1.2 is known here."""
    name = config.get("from_pretrained")
    if name is None or name in _SDXL_IDS:
        return dict(SDXL_VAE)
    found: Mapping[str, Any] = AutoencoderKL.load_config(name, subfolder=config.get("subfolder"))
    return arguments(AutoencoderKL, found)


def _temporal(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(TEMPORAL) | arguments(TemporalVAE, config)


def arguments(cls: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a config, what a class takes."""
    known = signature(cls.__init__).parameters
    return {name: value for name, value in config.items() if name in known and value is not None}
