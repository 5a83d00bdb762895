"""A run's clips: opened as its model reads them, reported on, encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cache import build_cache
from .data.buckets import choose_buckets
from .data.open import open_clips
from .data.report import contact_sheet
from .data.report import report as report_data
from .data.short import ShortCaptions
from .families import trait
from .families.family import controls_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator

    from .cache import Cache
    from .data.clip import ClipSource
    from .data.report import DataReport
    from .encoder import PipelineEncoder
    from .families.family import Family
    from .settings import Settings


def make_cache(
    settings: Settings, accelerator: Accelerator, encoder: PipelineEncoder, model: Any, tell: Callable[[str], None]
) -> tuple[ClipSource, Cache, DataReport]:
    """Open the data, report on them, encode what is not encoded yet."""
    clips = open_for(encoder.family, encoder.pipeline, settings)
    temporal, spatial = compression(encoder.pipeline, model)
    chunk: Any = getattr(encoder.family, "length_factor", None)
    temporal = temporal if chunk is None else chunk(encoder.pipeline)
    buckets = choose_buckets(
        clips,
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        temporal_factor=temporal,
        spatial_factor=spatial * int(getattr(encoder.family, "PACKED", 1)),
        causal=trait(encoder.family, "CAUSAL"),
    )
    data = report_data(clips, buckets)
    folder = Path(settings.output)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        contact_sheet(clips, folder / "data.png", buckets=buckets, overwrite=True)
    cache = build_cache(
        clips,
        buckets,
        encoder,
        folder / "cache",
        batch_size=8,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        wait=accelerator.wait_for_everyone,
        report=lambda done, total: tell(f"encoding clips: {done} of {total}"),
    )
    return clips, cache, data


def open_for(family: Family, pipeline: Any, settings: Settings) -> ClipSource:
    """The clips as this kind of model and these settings read them: with the control clips that it reads, without
    captions that nobody will."""
    clips = open_clips(
        settings.data,
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        captions=trait(family, "CAPTIONS"),
        controls={name: control.required for name, control in controls_of(family, pipeline).items()},
    )
    return clips if settings.long_captions else ShortCaptions(clips)


def compression(pipeline: Any, model: Any) -> tuple[int, int]:
    """How many frames, and how many pixels a side, become one in latents, the model's patches counted in."""
    temporal = next(
        (
            getattr(pipeline, name)
            for name in ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")
            if hasattr(pipeline, name)
        ),
        1,
    )
    spatial = next(
        (
            getattr(pipeline, name)
            for name in (
                "vae_scale_factor_spatial",
                "vae_spatial_compression_ratio",
                "vae_spatial_scale_factor",
                "vae_scale_factor",
            )
            if hasattr(pipeline, name)
        ),
        8,
    )
    patch = model.config.get("patch_size") or 1
    sides = patch[-1] if isinstance(patch, list | tuple) else patch
    return int(temporal), int(spatial) * int(sides)
