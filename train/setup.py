"""From settings to everything a run needs: the model with its choice of parameters, the data, the objective."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed

from modelgrow.pipelines.dtypes import resolve_dtype

from .batch import draw_batch
from .component import choose
from .data.open import check_spec
from .encoder import PipelineEncoder, fingerprint
from .engine import autocast, make_accelerator
from .families import family_of
from .inputs import make_cache
from .loading import fetched, load
from .objectives import scheduled
from .placing import Parts, called
from .quantize import leave_apart, look, quantization
from .select import add_lora, freeze_all_but, names_to_train, reached
from .settings import changed
from .slot import rest, with_slot
from .validate import hold_out

if TYPE_CHECKING:
    from accelerate import Accelerator

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
    parts: Parts
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
    quantized: Quantized | None = None

    @property
    def pipeline(self) -> Any:
        return self.parts.pipeline

    @property
    def model(self) -> Any:
        """The pipeline's, that holds what trains."""
        return self.parts.model

    @property
    def num_trained(self) -> int:
        """Parameters that train."""
        return sum(parameter.numel() for _, parameter in self.trained)

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
        return self.chosen.checkpoint.record

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
        """What a forward pass stands in."""
        return autocast(self.accelerator, self.settings)

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
    """Choose, load, encode. `tell` hears a line about each; `wrap` may put something in the family's place.

    Raises:
        GrowError: The model has not grown, the data have nothing to train on, or the two do not fit.
    """
    accelerator = make_accelerator(settings)
    set_seed(settings.seed)
    check_spec(settings.data)
    chosen = choose(settings)
    family = wrap(family_of(chosen.model_class, chosen.checkpoint.config, chosen.around.pipeline))
    few_bits = quantization(settings, chosen.checkpoint, chosen.place, accelerator)
    tell(f"loading {chosen.source.name}")
    with accelerator.main_process_first():
        chosen = fetched(chosen)
        parts = load_parts(chosen, family, accelerator, few_bits)
    quantized = look(parts.model, chosen.checkpoint, settings.quantize) if few_bits else None
    family = with_slot(family, parts.pipeline)
    objective = choose_objective(family, parts.pipeline, changed(settings, component=chosen.place))
    clips, cache, data = encode(chosen, parts, family, settings, accelerator, tell)
    trained = choose_trained(parts.model, chosen, settings, family)
    prepare_model(parts.model, settings)
    cache, held_out = hold_out(cache, settings.held_out)
    return Run(
        settings=settings,
        accelerator=accelerator,
        chosen=chosen,
        parts=parts,
        family=family,
        objective=objective,
        cache=cache,
        held_out=held_out,
        data=data,
        clips=clips,
        trained=trained,
        quantized=quantized,
    )


def load_parts(chosen: Chosen, family: Family, accelerator: Accelerator, few_bits: Any) -> Parts:
    """The pipeline in main memory, in the dtype of the device; where weights are quantized, on the device."""
    dtype = resolve_dtype("auto", accelerator.device)
    pipeline = load(
        chosen,
        device=str(accelerator.device) if few_bits else "cpu",
        dtype=str(dtype).removeprefix("torch."),
        quantization=few_bits,
    )
    return Parts(pipeline=pipeline, trained=chosen.place, called=called(family), device=accelerator.device)


def encode(
    chosen: Chosen, parts: Parts, family: Family, settings: Settings, accelerator: Accelerator, tell: Tell
) -> tuple[ClipSource, Cache, DataReport]:
    """Clips and captions, by what encodes them on the device; then that leaves the device to the model."""
    encoder = PipelineEncoder(
        pipeline=parts.pipeline,
        family=family,
        fingerprint=fingerprint(chosen.around, chosen.place),
        device=accelerator.device,
    )
    parts.place_encoders()
    made = make_cache(settings, accelerator, encoder, parts.model, tell)
    rest(parts.pipeline)
    parts.place_model(split=accelerator.is_fsdp2)
    return made


def choose_objective(family: Family, pipeline: Any, settings: Settings) -> Objective:
    """The family's own, or else what the scheduler integrates."""
    own: Any = getattr(family, "objective", None)
    if own is not None:
        found: Objective = own(pipeline, settings)
        return found
    return scheduled(pipeline, settings)


def choose_trained(
    model: Any, chosen: Chosen, settings: Settings, family: Family
) -> list[tuple[str, torch.nn.Parameter]]:
    """Freeze what does not train; give back what does, by name. Raises `TrainError` if nothing does."""
    if settings.train == "lora":
        names = [name for name, _ in add_lora(model, settings.lora_rank, settings.seed, chosen.within)]
    else:
        names = list(names_to_train(model, chosen.checkpoint.record, settings.train, chosen.within))
    idle: Any = getattr(family, "idle", None)
    return freeze_all_but(model, reached(names, idle and partial(idle, config=model.config)))


def prepare_model(model: Any, settings: Settings) -> None:
    """Train mode, and what the settings ask of diffusers."""
    model.train()
    if settings.quantize != "none":
        leave_apart(model)
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
