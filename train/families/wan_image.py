"""Wan 2.1 and 2.2, image to video; what WanImageToVideoPipeline does before and around its transformer.

The picture is the clip's own first frame, and its last one too for first-and-last-frame models, whose config says so by
`pos_embed_seq_len`. The transformer reads it three times over: as latents of the clip with gray in place of every other
frame, as a mask of the frames that are given, and, in Wan 2.1, as CLIP states in cross-attention. No noise is put on
it, neither here nor in the pipeline, and it stays where a caption is dropped: the pipeline's unguided branch sees it
too.

Shape letters: B samples, C channels, T frames, F latent frames, H, W in pixels, h, w in latents, P pictures of a clip
(1 or 2), L tokens of a picture, D width of the states, K frames that the VAE joins into one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .wan import encode_text, encode_video, objective

if TYPE_CHECKING:
    from .family import Text

__all__ = ["encode_conditions", "encode_text", "encode_video", "objective", "predict"]

LATENTS, STATES = "kept_image_latents", "kept_image_states"
"""(B, C, F, h, w) normalised, and (B, P L, D), which Wan 2.2 has not."""


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """Of a clip's first frame, and of its last where the model reads that too."""
    both = _has_both_ends(pipeline)
    given = pixels.clone()
    given[:, :, 1 : -1 if both else None] = 0
    conditions = {LATENTS: encode_video(pipeline, given)}
    if _config(pipeline).image_dim is not None:
        ends = pixels[:, :, [0, -1] if both else [0]].transpose(1, 2)
        # As pictures, which the image processor makes smaller in another way than tensors.
        states = pipeline.encode_image(pipeline.video_processor.postprocess(ends.flatten(0, 1), output_type="pil"))
        conditions[STATES] = states.unflatten(0, ends.shape[:2]).flatten(1, 2)
    return conditions


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    image = text[LATENTS].to(noisy.dtype)
    states = text.get(STATES)
    if states is not None and _has_both_ends(pipeline):
        states = states.unflatten(1, (2, -1)).flatten(0, 1)  # the model joins the two itself
    output: torch.Tensor = model(
        hidden_states=torch.cat([noisy, _mask(pipeline, noisy), image], dim=1),
        timestep=timesteps,
        encoder_hidden_states=text["states"],
        encoder_hidden_states_image=states,
        return_dict=False,
    )[0]
    return output


def _mask(pipeline: Any, noisy: torch.Tensor) -> torch.Tensor:
    """(B, K, F, h, w), 1 where a frame is given: a channel for each of the K frames that a latent stands for.

    The first latent stands for one frame alone, which all of its channels say.
    """
    mask = noisy.new_zeros(noisy.shape[0], pipeline.vae_scale_factor_temporal, *noisy.shape[2:])
    mask[:, :, 0] = 1
    if _has_both_ends(pipeline):
        mask[:, -1, -1] = 1
    return mask


def _config(pipeline: Any) -> Any:
    return (pipeline.transformer or pipeline.transformer_2).config


def _has_both_ends(pipeline: Any) -> bool:
    return _config(pipeline).pos_embed_seq_len is not None
