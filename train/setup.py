"""From settings to everything a run needs: the model with its choice of parameters, the data, the objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed

from modelgrow.pipelines.load import load_pipeline, locate
from modelgrow.surgery import TrainError, open_source

from .cache import build_cache
from .data.buckets import choose_buckets
from .data.open import open_clips
from .data.short import ShortCaptions
from .data.report import contact_sheet
from .data.report import report as report_data
from .encoder import PipelineEncoder, fingerprint
from .families import family_of, trait
from .objectives import objective_of
from .select import add_lora, freeze_all_but, names_to_train

if TYPE_CHECKING:
    from modelgrow.surgery import Component, Record, Source

    from .cache import Cache
    from .data.clip import ClipSource
    from .data.report import DataReport
    from .families.family import Family
    from .objectives.objective import Objective
    from .settings import Settings

Tell = Callable[[str], None]


@dataclass(kw_only=True)
class Run:
    """One run on one process."""

    settings: Settings
    accelerator: Accelerator
    source: Source
    component: Component
    pipeline: Any
    model: Any
    family: Family
    objective: Objective
    cache: Cache
    data: DataReport
    trained: list[tuple[str, torch.nn.Parameter]]

    @property
    def record(self) -> Record | None:
        return self.component.checkpoint.record if self.component.checkpoint else None

    @property
    def folder(self) -> Path:
        return Path(self.settings.output)


def set_up(settings: Settings, tell: Tell) -> Run:
    """Load, choose, cache. `tell` hears a line about each.

    Raises:
        GrowError: The model has not grown, the data have nothing to train on, or the two do not fit.
    """
    accelerator = make_accelerator(settings)
    set_seed(settings.seed)
    folder = locate(settings.model)
    source = open_source(str(folder))
    component = choose_component(source, settings)
    family = family_of(component.class_name)
    tell(f"loading {source.name}")
    with accelerator.main_process_first():
        pipeline = load_pipeline(folder, device=str(accelerator.device))
    objective = objective_of(pipeline.scheduler, sampling=settings.timestep_sampling, shift=settings.shift)
    encoder = PipelineEncoder(
        pipeline=pipeline, family=family, fingerprint=fingerprint(source, component.name), device=accelerator.device
    )
    model = getattr(pipeline, component.name)
    cache, data = make_cache(settings, accelerator, encoder, model, tell)
    trained = choose_trained(model, component, settings)
    prepare_model(model, settings)
    return Run(
        settings=settings,
        accelerator=accelerator,
        source=source,
        component=component,
        pipeline=pipeline,
        model=model,
        family=family,
        objective=objective,
        cache=cache,
        data=data,
        trained=trained,
    )


def make_accelerator(settings: Settings) -> Accelerator:
    """accelerate's, as `accelerate launch` or its own config set it up."""
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    tracker = settings.tracker if settings.tracker != "none" else None
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=settings.accumulate,
        log_with=tracker,
        project_config=ProjectConfiguration(project_dir=settings.output, logging_dir=f"{settings.output}/logs"),
        step_scheduler_with_optimizer=False,
    )


def choose_component(source: Source, settings: Settings) -> Component:
    """The one named, or the first that has grown; for "all" and LoRA the denoiser, grown or not."""
    if source.pipeline is None:
        raise TrainError(
            f"{source.name}: one component; training needs the whole pipeline, for its VAE and text encoder"
        )
    if settings.component is not None:
        for part in source.components:
            if part.name == settings.component:
                return part
        raise TrainError(f"{source.name}: has no component {settings.component!r}")
    grown = [part for part in source.components if part.checkpoint is not None and part.checkpoint.record]
    if grown:
        return grown[0]
    if settings.train in ("all", "lora"):
        for part in source.components:
            if part.name in ("transformer", "unet"):
                return part
    raise TrainError(f"{source.name}: nothing in it has grown (no growth.json); grow it first with grow expand")


def make_cache(
    settings: Settings, accelerator: Accelerator, encoder: PipelineEncoder, model: Any, tell: Tell
) -> tuple[Cache, DataReport]:
    """Open the data, report on them, encode what is not encoded yet."""
    clips = open_for(encoder.family, settings)
    temporal, spatial = compression(encoder.pipeline, model)
    buckets = choose_buckets(
        clips,
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        temporal_factor=temporal,
        spatial_factor=spatial,
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
    return cache, data


def open_for(family: Family, settings: Settings) -> ClipSource:
    """The clips as this kind of model and these settings read them: without captions that nobody will."""
    clips = open_clips(
        settings.data,
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        captions=trait(family, "CAPTIONS"),
    )
    return clips if settings.long_captions else ShortCaptions(clips)


def compression(pipeline: Any, model: Any) -> tuple[int, int]:
    """How many frames, and how many pixels a side, become one in latents, the model's patches counted in."""
    temporal = next(
        (
            getattr(pipeline, name)
            for name in ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
            if hasattr(pipeline, name)
        ),
        1,
    )
    spatial = next(
        (
            getattr(pipeline, name)
            for name in ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
            if hasattr(pipeline, name)
        ),
        8,
    )
    patch = model.config.get("patch_size") or 1
    sides = patch[-1] if isinstance(patch, list | tuple) else patch
    return int(temporal), int(spatial) * int(sides)


def choose_trained(model: Any, component: Component, settings: Settings) -> list[tuple[str, torch.nn.Parameter]]:
    """Freeze what does not train; give back what does, by name."""
    if settings.train == "lora":
        return add_lora(model, settings.lora_rank, settings.seed)
    record = component.checkpoint.record if component.checkpoint else None
    return freeze_all_but(model, names_to_train(model, record, settings.train))


def prepare_model(model: Any, settings: Settings) -> None:
    """Train mode, and what the settings ask of diffusers."""
    model.train()
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    if settings.compile:
        model.compile_repeated_blocks()
