"""HunyuanVideo 1.5, text or image to video; what its two pipelines do before and around their transformer.

The model reads Qwen's states of the prompt, ByT5's of what stands in quotation marks in it, and an image: its latents
in channels beside the clip's first latent frame, and SigLIP's states, which are zeros where there is no image.

Shape letters: B samples, C channels, F latent frames, h, w in latents, L tokens of Qwen, G of ByT5, N of the image, D
width of the states of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import TrainError

from ..objectives import RectifiedFlow
from .latents import mean_of_each, scaled

if TYPE_CHECKING:
    from ..settings import Settings
    from .family import Text

TRAINED_SHIFT = 3.0
"""Of the noise levels, with a logit-normal density, in the model's own training (`train.py` of its repository); its
schedulers shift by more."""
LATENTS, STATES = "kept_image_latents", "kept_image_states"
"""(B, C, h, w) scaled, and (B, N, D). The pipeline keeps the image where it leaves out the prompt, for guidance."""


def objective(pipeline: Any, settings: Settings) -> RectifiedFlow:
    """Raises `TrainError` for a model that was distilled by mean flow."""
    if pipeline.transformer.config.use_meanflow:
        raise TrainError(
            "transformer: use_meanflow is true, so it was distilled to answer with averages over whole steps, and a "
            "rectified flow would undo that; train the model that it was distilled from"
        )
    shift = TRAINED_SHIFT if settings.shift is None else settings.shift
    return RectifiedFlow(sampling=settings.timestep_sampling, shift=shift)


def idle(name: str, config: Any) -> bool:
    """Whether a parameter only makes the text's states behind the last block, which nobody reads."""
    block = f"transformer_blocks.{config.num_layers - 1}."
    return name.startswith((f"{block}attn.to_add_out.", f"{block}ff_context."))


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """Qwen's `states` (B, L, D) and their `mask` (B, L), ByT5's `glyphs` (B, G, D) and their `glyph_mask` (B, G)."""
    states, mask, glyphs, glyph_mask = pipeline.encode_prompt(captions, batch_size=len(captions))
    # What Qwen says of padding is not read, and zeros take no room in the cache.
    return {"states": states * mask[..., None], "mask": mask, "glyphs": glyphs, "glyph_mask": glyph_mask}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    # One clip at a time: the mask of its attention is wrong for more.
    return scaled(pipeline.vae, mean_of_each(pipeline.vae, pixels))


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """What an image-to-video model reads of a clip's first frame; nothing for text to video."""
    if getattr(pipeline, "image_encoder", None) is None:
        return {}
    pictures = pipeline.video_processor.postprocess(pixels[:, :, 0], output_type="pil")
    states = pipeline._get_image_embeds(pipeline.image_encoder, pipeline.feature_extractor, pictures, pixels.device)
    return {LATENTS: encode_video(pipeline, pixels[:, :, :1])[:, :, 0], STATES: states.float()}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    samples, channels, *size = noisy.shape
    condition = noisy.new_zeros(samples, channels + 1, *size)
    if LATENTS in text:
        condition[:, :-1, 0] = text[LATENTS]
        condition[:, -1, 0] = 1
        image = text[STATES]
    else:
        image = noisy.new_zeros(samples, pipeline.vision_num_semantic_tokens, pipeline.vision_states_dim)
    output: torch.Tensor = model(
        hidden_states=torch.cat([noisy, condition], dim=1),
        timestep=timesteps.to(noisy.dtype),
        encoder_hidden_states=text["states"],
        encoder_attention_mask=text["mask"],
        encoder_hidden_states_2=text["glyphs"],
        encoder_attention_mask_2=text["glyph_mask"],
        image_embeds=image,
        return_dict=False,
    )[0]
    return output
