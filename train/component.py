"""What trains, and the pipeline that it runs in: a component of a pipeline, or one by itself with a pipeline beside it.

Headers tell, so that what can't be trained is refused before a model is downloaded; `loading` has the rest of it. A
motion adapter's parameters train inside the UNet that it is plugged into, by the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrow.pipelines.alone import Placed, by_itself, pipeline_around, place_of
from modelgrow.pipelines.motion_adapter import ADAPTER, PLACE, UNET, is_motion
from modelgrow.surgery import TrainError, open_source
from modelgrow.surgery.disguise import CONVERT
from modelgrow.surgery.grown import stock_name
from modelgrow.surgery.source import PIPELINE_NAME

from .select import grown_among
from .trunk import trunk_depth

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelgrow.surgery import Component, Source

    from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Chosen(Placed):
    """A component that trains, and is written again with what was learned."""

    @property
    def is_alone(self) -> bool:
        return self.source.pipeline is None

    @property
    def model_class(self) -> str:
        """Of the model that holds its parameters."""
        return UNET if self.is_adapter else self.component.class_name

    @property
    def within(self) -> Callable[[str], bool] | None:
        """Which of that model's parameters and modules are the component's, by name; None: all."""
        return is_motion if self.is_adapter else None


def choose(settings: Settings) -> Chosen:
    """By headers alone: of what is on the Hub, no more is fetched; see `fetched`.

    Raises:
        GrowError: Nothing there has grown or can be trained as the settings say, or what was named is no pipeline and
            there is none beside it.
    """
    source = open_source(settings.model, headers_only=True)
    if settings.pipeline is not None:
        chosen = _alone(source, settings, settings.pipeline)
    elif source.pipeline is not None:
        chosen = _of_pipeline(source, settings)
    else:
        raise TrainError(_needs_pipeline(source, Path(settings.model)))
    if chosen.is_adapter and settings.quantize != "none":
        raise TrainError("quantize: not for a motion adapter, which is plugged into a UNet as that is loaded")
    return chosen


def _of_pipeline(source: Source, settings: Settings) -> Chosen:
    component = _grown_part(source, settings)
    _check_grown(source, component, settings)
    if stock_name(component.class_name) != ADAPTER:
        return Chosen(source=source, component=component, around=source, place=component.name)
    if all(part.name != PLACE or part.class_name == UNET for part in source.components):
        raise TrainError(
            f"{source.name}: {component.name} is a copy of what the pipeline's {PLACE} holds, and the {PLACE} is what "
            "runs and trains: grow both (grow expand without --component), or train this one by itself, with --pipeline"
        )
    return Chosen(source=source, component=component, around=source, place=PLACE)


def _grown_part(source: Source, settings: Settings) -> Component:
    """The one named, or the first that has grown; for "all" and LoRA the denoiser, grown or not."""
    if settings.component is not None:
        return source.named([settings.component])[settings.component]
    grown = [part for part in source.components if part.checkpoint is not None and part.checkpoint.record]
    if grown:
        # Of an AnimateDiff pipeline both have grown, the UNet and the adapter that it holds; the UNet runs.
        return next((part for part in grown if part.class_name == UNET), grown[0])
    if settings.train in ("all", "lora"):
        for part in source.components:
            if part.name in ("transformer", "unet"):
                return part
    raise TrainError(f"{source.name}: nothing in it has grown (no growth.json); grow it first with grow expand")


def _check_grown(source: Source, component: Component, settings: Settings) -> None:
    """Raises `TrainError` where the component has nothing of what trains, by its headers."""
    name, checkpoint = f"{source.name}: {component.name}".removesuffix(": "), component.checkpoint
    if checkpoint is None:
        raise TrainError(f"{name} has no safetensors: {CONVERT}")
    names = tuple(checkpoint.tensors)
    if settings.train not in ("all", "lora"):
        if checkpoint.record is None:
            raise TrainError(f"{name} has not grown (no growth.json); grow it first with grow expand")
        names = grown_among(names, checkpoint.record, settings.train)
    if settings.cache_trunk:
        trunk_depth(checkpoint.record, names)


def _needs_pipeline(source: Source, path: Path) -> str:
    component = source.components[0]
    if (path.parent / PIPELINE_NAME).is_file():
        return f"{path}: one component of a pipeline. Name the pipeline: {path.parent}"
    where = f"{path}: a {component.class_name} by itself, and training needs a VAE and a text encoder too. Give "
    if stock_name(component.class_name) == ADAPTER:
        return f"{where}--pipeline, the Stable Diffusion pipeline to plug it into"
    record = component.checkpoint and component.checkpoint.record
    origin = f"; it was grown from {record.base.name}" if record else ""
    return f"{where}--pipeline, the pipeline that it belongs to{origin}"


def _alone(source: Source, settings: Settings, pipeline: str) -> Chosen:
    component = by_itself(source)
    _check_grown(source, component, settings)
    around = pipeline_around(pipeline)
    place = place_of(component, around, model=settings.model, pipeline=pipeline, named=settings.component)
    return Chosen(source=source, component=component, around=around, place=place)
