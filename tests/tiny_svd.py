"""A whole Stable Video Diffusion pipeline in miniature: stock classes, every weight random, two megabytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from architectures import row_of
from diffusers import EulerDiscreteScheduler, StableVideoDiffusionPipeline
from models import build, noisy
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from modelgrow.pipelines import ExVideoPipeline, ExVideoUNetSpatioTemporalConditionModel

UNET = {**row_of("svd").tiny, "block_out_channels": (32, 32), "layers_per_block": 1, "num_frames": 6}
VAE = {
    "block_out_channels": (32, 32),
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "latent_channels": 4,
    "sample_size": 32,
}
CLIP = CLIPVisionConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=112, projection_dim=16
)
GRAIN = 4
"""Pixels that one value at the UNet's deepest level stands for."""


def scheduler() -> Any:
    """As in SVD's own scheduler_config.json."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        interpolation_type="linear",
        prediction_type="v_prediction",
        sigma_max=700.0,
        sigma_min=0.002,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )


def image_encoder() -> Any:
    return noisy(CLIPVisionModelWithProjection(CLIP), 3)


def components(**unet: Any) -> dict[str, Any]:
    """Of a StableVideoDiffusionPipeline. Any key of the UNet's config may be given."""
    return {
        "vae": build("AutoencoderKLTemporalDecoder", VAE, seed=1),
        "image_encoder": image_encoder(),
        "unet": build("UNetSpatioTemporalConditionModel", {**UNET, **unet}),
        "scheduler": scheduler(),
        "feature_extractor": CLIPImageProcessor(),
    }


def save_tiny_svd(folder: Path, **unet: Any) -> Path:
    """Write the pipeline. It makes clips of sides that 2 divides."""
    pipeline: Any = StableVideoDiffusionPipeline(**components(**unet))
    pipeline.save_pretrained(folder)
    return folder


def exvideo(*, num_position_frames: int = 12) -> Any:
    """An ExVideoPipeline as `grow extend-frames` begins it."""
    parts = components()
    unet: Any = ExVideoUNetSpatioTemporalConditionModel(**{**UNET, "num_position_frames": num_position_frames})
    unet.load_state_dict(parts["unet"].state_dict(), strict=False)
    pipeline: Any = ExVideoPipeline(**{**parts, "unet": unet.eval()})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_exvideo(folder: Path, *, num_position_frames: int = 12) -> Path:
    exvideo(num_position_frames=num_position_frames).save_pretrained(folder)
    return folder
