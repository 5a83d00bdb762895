"""What trains, and the pipeline that it runs in: a component of a pipeline, or one by itself with a pipeline beside it.

Headers tell, so that what can't be trained is refused before a model is downloaded; `loading` has the rest of it. A
motion adapter's parameters train inside the UNet that it is plugged into, by the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from modelgrow.pipelines.motion_adapter import ADAPTER, PLACE, UNET, check_fit, is_motion
from modelgrow.surgery import TrainError, open_source
from modelgrow.surgery.disguise import CONVERT
from modelgrow.surgery.grown import stock_name
from modelgrow.surgery.source import PIPELINE_NAME, components_of

from .select import grown_among
from .trunk import trunk_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelgrow.surgery import Checkpoint, Component, Source

    from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A component that trains."""

    source: Source
    """What was named, and is written again with what was learned."""
    component: Component
    """Its part that trains; "" is its name where the source is a component by itself."""
    around: Source
    """The pipeline that it runs in; the source itself, for a whole pipeline."""
    place: str
    """What the model that holds its parameters is called there."""

    @property
    def is_alone(self) -> bool:
        return self.source.pipeline is None

    @property
    def checkpoint(self) -> Checkpoint:
        """The component's headers; `choose` refuses one without."""
        return cast("Checkpoint", self.component.checkpoint)

    @property
    def is_adapter(self) -> bool:
        return stock_name(self.component.class_name) == ADAPTER

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


def _check_grown(source: Source, component: Component, settings: Settings) -> Checkpoint:
    """The component's headers. Raises `TrainError` where they have nothing of what trains."""
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
    return checkpoint


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
    if source.pipeline is not None:
        raise TrainError(
            f"{source.name}: a whole pipeline; --pipeline is for a component by itself. Leave it out, or name one of "
            f"its folders instead: {', '.join(part.name for part in source.components)}"
        )
    (component,) = source.components
    checkpoint = _check_grown(source, component, settings)
    around = open_source(pipeline, headers_only=True)
    if around.pipeline is None:
        raise TrainError(f"--pipeline {pipeline}: no pipeline: there is no {PIPELINE_NAME} in it")
    if stock_name(component.class_name) == ADAPTER:
        check_fit(checkpoint, around)
        place = PLACE
    else:
        place = _place(component, around.pipeline, settings)
        _check_same_kind(checkpoint, around, place)
    return Chosen(source=source, component=component, around=around, place=place)


def _place(component: Component, index: Mapping[str, Any], settings: Settings) -> str:
    """What the pipeline calls a component of this class."""
    stock = stock_name(component.class_name)
    found = [name for name, kind in components_of(index).items() if stock_name(kind) == stock]
    if settings.component is not None:
        found = [name for name in found if name == settings.component]
    if len(found) == 1:
        return found[0]
    if found:
        raise TrainError(
            f"--pipeline {settings.pipeline}: {' and '.join(found)} are {stock}; say with --component which one "
            f"{settings.model} is"
        )
    has = ", ".join(f"{name} ({kind})" for name, kind in components_of(index).items())
    which = f" called {settings.component}" if settings.component else ""
    raise TrainError(f"--pipeline {settings.pipeline}: has no {stock}{which}, which {settings.model} is; it has {has}")


def _check_same_kind(checkpoint: Checkpoint, around: Source, place: str) -> None:
    """Raises `TrainError` where the pipeline's own component is another model than what the grown one was."""
    own = next((part.checkpoint for part in around.components if part.name == place), None)
    steps = checkpoint.record.steps if checkpoint.record else ()
    edited = {key for step in steps for key in (*step.config_before, *step.config_added)}
    for key, value in own.config.items() if own is not None else ():
        ours = checkpoint.config.get(key, value)
        if not key.startswith("_") and key not in edited and ours != value:
            raise TrainError(
                f"{checkpoint.path}: {key} is {ours!r:.80}, and {value!r:.80} in {around.name}'s {place}, so it is of "
                "another model; name the pipeline that it was grown from"
            )
