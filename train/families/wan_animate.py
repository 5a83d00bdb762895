"""Wan 2.2 Animate; what WanAnimatePipeline does before and around its transformer, for one segment of a clip.

The model makes a clip of a character from a picture of it, a clip of a skeleton's poses, and a clip of a face. The
picture is a latent frame more, before those of the clip, and it is made like them: it has noise, and the pipeline steps
it by the model's answer and drops it in the end. So it is the first of the latents that train here, and counts in the
loss, as in VideoX-Fun's trainer (scripts/wan2.2/train_animate.py). It is the clip's own first frame, as in
DiffSynth-Studio's. Poses are latents, added behind the patches; a face is read as it is, at a size of its own.

Beside the noise stand a mask and what is given: the picture, then nothing; or, where the data have the control clips
`background_video` and `mask_video`, all that is black in the mask (the pipeline's mode "replace"). Long clips are made
in segments, of which each goes on from the last frame of the one before. That is learned by giving a clip's first frame
in a share of the samples, `first_frame`.

Not covered: segments that go on from five frames, a picture that is no frame of the clip, and the relighting LoRA.

Shape letters: B samples, C channels, T frames, F latent frames, H, W in pixels, h, w in latents, K frames that the VAE
joins into one, S pixels a side of a face, L tokens of the picture, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from modelgrow.pipelines.controls import control_arguments
from modelgrow.pipelines.inputs import as_pictures
from modelgrow.surgery import TrainError

from ..settings import changed
from . import wan_vace
from .family import Control
from .wan import encode_text
from .wan import encode_video as encode_clip

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

__all__ = ["controls", "encode_conditions", "encode_text", "encode_video", "objective", "predict", "preview_arguments"]

POSE, FACE, BACKGROUND, MASK = "pose_video", "face_video", "background_video", "mask_video"
GIVEN_SHARE = 0.25
"""Of the samples whose first frame is given, where the settings do not say; VideoX-Fun's trainer has it too."""
REFERENCE, POSES, STATES = "kept_reference_latents", "kept_pose_latents", "kept_image_states"
"""(B, K + C, 1, h, w), mask and picture; (B, C, F, h, w); and (B, L, D), which CLIP says of the picture."""
GIVEN, FIRST = "kept_given_latents", "kept_first_latents"
"""(B, K + C, F, h, w), mask and what is given beside the clip: without its first frame, and with it."""
FACES = "face_pixels"
"""(B, 3, T, S, S), bytes. Without a caption zeros, which stand for -1, as in the pipeline's unguided branch."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    """VACE's, with another share by default."""
    share = GIVEN_SHARE if settings.first_frame is None else settings.first_frame
    return wan_vace.objective(pipeline, changed(settings, first_frame=share))


def controls(pipeline: Any) -> Mapping[str, Control]:
    side = int(pipeline.transformer.config.motion_encoder_size)
    return {
        POSE: Control(required=True),
        FACE: Control(required=True, size=(side, side)),
        BACKGROUND: Control(required=False),
        MASK: Control(required=False),
    }


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """`pixels` (B, 3, T, H, W) in [-1, 1] -> (B, C, 1 + F, h, w), normalised: the first frame, and the clip."""
    latents = encode_clip(pipeline, pixels)
    # The VAE is causal: a clip's first latent is that of its first frame by itself.
    return torch.cat([latents[:, :, :1], latents], dim=2)


def encode_conditions(
    pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None], controls: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What the model reads of the clips and of their control clips, of which the face's is (B, 3, T, S, S).

    Raises:
        TrainError: There is a background without a mask, or a mask without a background.
    """
    pictures = pipeline.video_processor.postprocess(pixels[:, :, 0], output_type="pil")
    options = {"batch_size": len(pixels), "device": pixels.device}
    return {
        REFERENCE: pipeline.prepare_reference_image_latents(pixels[:, :, :1], **options),
        POSES: pipeline.prepare_pose_latents(controls[POSE], **options),
        # As pictures, which the image processor makes smaller in another way than tensors.
        STATES: pipeline.encode_image(pictures),
        GIVEN: _given(pipeline, pixels, controls, first=False),
        FIRST: _given(pipeline, pixels, controls, first=True),
        FACES: ((controls[FACE] + 1) * 127.5).round().to(torch.uint8),
    }


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B,), or (B, 2) with 1 where the first frame is given, see `ToldFlow`."""
    given = text[GIVEN]
    if timesteps.ndim == 2:
        timesteps, told = timesteps.unbind(1)
        given = torch.where(told.bool().view(-1, 1, 1, 1, 1), text[FIRST], given)
    beside = torch.cat([text[REFERENCE], given], dim=2)
    output: torch.Tensor = model(
        hidden_states=torch.cat([noisy, beside.to(noisy.dtype)], dim=1),
        timestep=timesteps,
        encoder_hidden_states=text["states"],
        encoder_hidden_states_image=text[STATES],
        pose_hidden_states=text[POSES].to(noisy.dtype),
        face_pixel_values=(text[FACES].float() / 127.5 - 1).to(noisy.dtype),
        return_dict=False,
    )[0]
    return output


def preview_arguments(pipeline: Any, controls: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """For a clip like the one that these belong to, in one segment."""
    clips = {name: as_pictures(frames) for name, frames in controls.items()}
    return {**control_arguments(pipeline, clips), "segment_frame_length": len(clips[POSE])}


def _given(pipeline: Any, pixels: torch.Tensor, controls: Mapping[str, torch.Tensor], *, first: bool) -> torch.Tensor:
    """(B, K + C, F, h, w): mask and latents of what is given of a segment: its first frame or not, its background."""
    background, mask = controls.get(BACKGROUND), controls.get(MASK)
    if (background is None) != (mask is None):
        there, missing = (MASK, BACKGROUND) if background is None else (BACKGROUND, MASK)
        raise TrainError(
            f"the clips have {there} and no {missing}: to replace a character takes both, the clip without it and the "
            f"mask of where it was, white; give {missing} too, or take {there} out of the list"
        )
    if mask is not None:
        pictures = pipeline.video_processor.postprocess_video(mask, output_type="pil")
        mask = pipeline.video_processor_for_mask.preprocess_video(pictures).to(pixels)
    batch, _, frames, height, width = pixels.shape
    found: torch.Tensor = pipeline.prepare_prev_segment_cond_latents(
        pixels[:, :, :1] if first else None,
        background_video=background,
        mask_video=mask,
        batch_size=batch,
        segment_frame_length=frames,
        start_frame=int(first),
        height=height,
        width=width,
        prev_segment_cond_frames=1,
        task="animate" if background is None else "replace",
        device=pixels.device,
    )
    return found
