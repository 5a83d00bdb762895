"""From settings to everything a run needs: the model with its choice of parameters, the data, the objective."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, ProjectConfiguration, set_seed

from modelgrow.pipelines.dtypes import resolve_dtype
from modelgrow.surgery import TrainError

from .batch import draw_batch
from .component import choose
from .data.open import check_spec
from .encoder import PipelineEncoder, fingerprint
from .families import family_of
from .inputs import make_cache
from .loading import fetched, load
from .objectives import objective_of
from .optimizer import check_optimizer
from .placing import Parts, called
from .quantize import leave_apart, look, quantization
from .select import add_lora, freeze_all_but, names_to_train, reached
from .settings import changed
from .slot import rest, with_slot
from .validate import hold_out
from .zero import configure, is_asked_for, is_zero

if TYPE_CHECKING:
    from modelgrow.surgery import Component, Record, Source

    from .batch import Batch
    from .cache import Cache
    from .component import Chosen
    from .data.buckets import Bucket
    from .data.clip import ClipSource
    from .data.report import DataReport
    from .families.family import Family
    from .objectives.objective import Objective
    from .quantize import Quantized
    from .settings import Settings

Tell = Callable[[str], None]


@dataclass(kw_only=True)
class Run:
    """One run on one process."""

    settings: Settings
    accelerator: Accelerator
    chosen: Chosen
    pipeline: Any
    model: Any
    """The pipeline's, that holds what trains."""
    family: Family
    objective: Objective
    cache: Cache
    """The clips that are trained on."""
    held_out: tuple[Bucket, ...]
    """Those that are not, and tell how well it goes."""
    data: DataReport
    clips: ClipSource
    """What the cache was made of."""
    trained: list[tuple[str, torch.nn.Parameter]]
    parts: Parts
    quantized: Quantized | None = None

    @property
    def source(self) -> Source:
        """What was named, and is written again."""
        return self.chosen.source

    @property
    def component(self) -> Component:
        """What trains of it."""
        return self.chosen.component

    @property
    def record(self) -> Record | None:
        return self.chosen.record

    @property
    def folder(self) -> Path:
        return Path(self.settings.output)

    @property
    def dtype(self) -> torch.dtype:
        """Of what goes in: the frozen weights', float32 where everything trains."""
        frozen = (p.dtype for p in self.model.parameters() if not p.requires_grad and p.is_floating_point())
        return next(frozen, torch.float32)

    @property
    def is_split(self) -> bool:
        """Whether FSDP2 splits the model over the processes, so that all of them must call it together."""
        return bool(self.accelerator.is_fsdp2)

    def autocast(self) -> AbstractContextManager[Any]:
        """What a forward pass stands in. With DeepSpeed accelerate leaves that to others, see `zero`."""
        if is_zero(self.accelerator) and precision_of(self.settings) == "bf16":
            return torch.autocast(self.accelerator.device.type, torch.bfloat16)
        found: AbstractContextManager[Any] = self.accelerator.autocast()
        return found

    def batch(self, number: int) -> Batch:
        """This process's share of batch `number`."""
        return draw_batch(
            self.cache,
            self.objective,
            self.settings,
            number,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )


def set_up(settings: Settings, tell: Tell, wrap: Callable[[Family], Family] = lambda family: family) -> Run:
    """Load, choose, cache. `tell` hears a line about each; `wrap` may put something in the family's place.

    Raises:
        GrowError: The model has not grown, the data have nothing to train on, or the two do not fit.
    """
    accelerator = make_accelerator(settings)
    set_seed(settings.seed)
    check_spec(settings.data)
    chosen = choose(settings)
    config = chosen.component.checkpoint.config if chosen.component.checkpoint else None
    family = wrap(family_of(chosen.model_class, config, chosen.around.pipeline))
    few_bits = quantization(settings, replace(chosen.component, name=chosen.place), accelerator)
    tell(f"loading {chosen.source.name}")
    dtype = resolve_dtype("auto", accelerator.device)
    with accelerator.main_process_first():
        chosen = fetched(chosen)
        pipeline = load(
            chosen,
            device=str(accelerator.device) if few_bits else "cpu",  # weights are quantized where they will be
            dtype=str(dtype).removeprefix("torch."),
            quantization=few_bits,
        )
    family = with_slot(family, pipeline)
    objective = choose_objective(family, pipeline, changed(settings, component=chosen.place))
    read_by = fingerprint(chosen.around, chosen.place)
    encoder = PipelineEncoder(pipeline=pipeline, family=family, fingerprint=read_by, device=accelerator.device)
    model = getattr(pipeline, chosen.place)
    checkpoint = chosen.component.checkpoint
    quantized = look(model, checkpoint, settings.quantize) if few_bits and checkpoint else None
    parts = Parts(pipeline=pipeline, trained=chosen.place, called=called(family), device=accelerator.device)
    parts.place_encoders()
    clips, cache, data = make_cache(settings, accelerator, encoder, model, tell)
    rest(pipeline)
    parts.place_model(split=accelerator.is_fsdp2)
    trained = choose_trained(model, chosen, settings, family)
    prepare_model(model, settings)
    cache, held_out = hold_out(cache, settings.held_out)
    return Run(
        settings=settings,
        accelerator=accelerator,
        chosen=chosen,
        pipeline=pipeline,
        model=model,
        family=family,
        objective=objective,
        cache=cache,
        held_out=held_out,
        data=data,
        clips=clips,
        trained=trained,
        parts=parts,
        quantized=quantized,
    )


def choose_objective(family: Family, pipeline: Any, settings: Settings) -> Objective:
    """The family's own, or else what the scheduler integrates."""
    own: Any = getattr(family, "objective", None)
    if own is not None:
        found: Objective = own(pipeline, settings)
        return found
    return objective_of(pipeline.scheduler, sampling=settings.timestep_sampling, shift=settings.shift)


def make_accelerator(settings: Settings) -> Accelerator:
    """accelerate's, as `accelerate launch` or its own config set it up. Raises `TrainError` without the tracker."""
    if settings.tracker != "none" and settings.tracker not in map(str, get_available_trackers()):
        known = ", ".join(sorted(str(kind) for kind in LoggerType if kind is not LoggerType.ALL))
        raise TrainError(
            f"tracker {settings.tracker} is not installed: pip install {settings.tracker}, or choose "
            f"tensorboard or none (accelerate knows {known})"
        )
    tracker = settings.tracker if settings.tracker != "none" else None
    accelerator = Accelerator(
        mixed_precision="no" if is_asked_for() else precision_of(settings),
        gradient_accumulation_steps=settings.accumulate,
        log_with=tracker,
        project_config=ProjectConfiguration(project_dir=settings.output, logging_dir=f"{settings.output}/logs"),
        step_scheduler_with_optimizer=False,
    )
    configure(accelerator, settings)
    check_optimizer(accelerator, settings)
    return accelerator


def precision_of(settings: Settings) -> str:
    """Of the arithmetic, with "auto" decided."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if torch.cuda.is_available() else "no"


def choose_trained(
    model: Any, chosen: Chosen, settings: Settings, family: Family
) -> list[tuple[str, torch.nn.Parameter]]:
    """Freeze what does not train; give back what does, by name. Raises `TrainError` if nothing does."""
    if settings.train == "lora":
        names = [name for name, _ in add_lora(model, settings.lora_rank, settings.seed, chosen.within)]
    else:
        names = list(names_to_train(model, chosen.record, settings.train, chosen.within))
    idle: Any = getattr(family, "idle", None)
    return freeze_all_but(model, reached(names, idle and partial(idle, config=model.config)))


def prepare_model(model: Any, settings: Settings) -> None:
    """Train mode, and what the settings ask of diffusers."""
    model.train()
    if settings.quantize != "none":
        leave_apart(model)
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
