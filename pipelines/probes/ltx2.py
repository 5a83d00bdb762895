"""Random inputs for LTX-2: video and sound together. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe

AUDIO_TOKENS = 5


def _ltx2(config: Config, randn: Randn) -> Inputs:
    frames, height, width = config["patch_size_t"] * F, config["patch_size"] * 3, config["patch_size"] * 4
    tokens = F * 3 * 4
    from_captions = config["use_prompt_embeddings"]
    video_mask, audio_mask = torch.ones(B, L), torch.ones(B, L)
    video_mask[0, L // 2 :] = 0
    audio_mask[1, L // 2 :] = 0
    inputs: Inputs = {
        "hidden_states": randn(B, tokens, config["in_channels"]),
        "audio_hidden_states": randn(B, AUDIO_TOKENS, config["audio_in_channels"]),
        "encoder_hidden_states": randn(B, L, config["caption_channels" if from_captions else "cross_attention_dim"]),
        "audio_encoder_hidden_states": randn(
            B, L, config["caption_channels" if from_captions else "audio_cross_attention_dim"]
        ),
        "timestep": torch.linspace(999.0, 1.0, B),
        "audio_timestep": torch.linspace(900.0, 100.0, B),
        "encoder_attention_mask": video_mask,
        "audio_encoder_attention_mask": audio_mask,
        "num_frames": frames,
        "height": height,
        "width": width,
        "audio_num_frames": config["audio_patch_size_t"] * AUDIO_TOKENS,
    }
    if config["cross_attn_mod"] or config["audio_cross_attn_mod"]:
        inputs |= {"sigma": torch.linspace(800.0, 200.0, B), "audio_sigma": torch.linspace(700.0, 300.0, B)}
        inputs["use_cross_timestep"] = True
    if config.get("use_keyframes_abs_pos_embedding"):
        inputs["video_keyframes_mask"] = (torch.arange(tokens) < tokens // F).float()[None, :, None].repeat(B, 1, 1)
    return inputs


RECIPES: dict[str, Recipe] = {"LTX2VideoTransformer3DModel": _ltx2}
