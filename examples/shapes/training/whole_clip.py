"""AutoencoderKLWan over whole clips at once, for training: the same function, several times as fast.

The stock class walks through a clip chunk by chunk with caches, because it is made for long videos. Its
convolutions are causal, so one pass over all frames gives the same numbers, with one call per layer.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, WanUpBlock, patchify, unpatchify


def encode_moments(vae: AutoencoderKLWan, clips: torch.Tensor) -> torch.Tensor:
    """Mean and log-variance, `(B, 2 z, 1 + (T - 1) / 2, h, w)`, as `vae._encode` gives them."""
    encoder = vae.encoder
    features = encoder.conv_in(patchify(clips, patch_size=vae.config.patch_size))
    for layer in encoder.down_blocks:
        features = _downsample(layer, features) if isinstance(layer, WanResample) else layer(features)
    features = encoder.mid_block(features)
    moments: torch.Tensor = vae.quant_conv(encoder.conv_out(encoder.nonlinearity(encoder.norm_out(features))))
    return moments


def decode_unclamped(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """`vae.decode` without its clamp to [-1, 1], outside which no gradient flows. `(B, 3, T, H, W)`."""
    decoder = vae.decoder
    features = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        features = _up_block(block, features)
    features = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(features)))
    pixels: torch.Tensor = unpatchify(features, patch_size=vae.config.patch_size)
    return pixels


def _downsample(layer: WanResample, features: torch.Tensor) -> torch.Tensor:
    """Halve space; halve time too, but keep the first frame by itself."""
    features = layer(features)  # without a cache this is its spatial half alone
    if layer.mode != "downsample3d" or features.shape[2] == 1:
        return features
    return torch.cat([features[:, :, :1], layer.time_conv(features)], dim=2)


def _up_block(block: WanUpBlock, features: torch.Tensor) -> torch.Tensor:
    for resnet in block.resnets:
        features = resnet(features)
    for layer in block.upsamplers or ():
        features = layer(_double_time(layer, features))
    return features


def _double_time(layer: WanResample, features: torch.Tensor) -> torch.Tensor:
    """Two frames for each but the first, which the layer's convolution in time never sees."""
    if layer.mode != "upsample3d" or features.shape[2] == 1:
        return features
    first, rest = features[:, :, :1], features[:, :, 1:]
    batch, channels, frames, height, width = rest.shape
    pairs = layer.time_conv(rest).reshape(batch, 2, channels, frames, height, width)
    rest = pairs.permute(0, 2, 3, 1, 4, 5).reshape(batch, channels, 2 * frames, height, width)
    return torch.cat([first, rest], dim=2)
