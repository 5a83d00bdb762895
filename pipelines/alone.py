"""A component by itself, and the pipeline that it runs in: where its place is there, whether they fit, both in memory.

A motion adapter is plugged into the UNet of a Stable Diffusion pipeline. Any other model takes the place of the
pipeline's own of its class. Headers tell whether the two fit, before anything is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from modelgrow.surgery import GenerateError, open_source
from modelgrow.surgery.disguise import CONVERT
from modelgrow.surgery.grown import stock_name
from modelgrow.surgery.slot import slot_of
from modelgrow.surgery.source import PIPELINE_NAME, components_of

from .dtypes import resolve_dtype
from .growth import read_along
from .load import check_offload, load_pipeline, locate, resolve_device
from .models import load_model
from .motion_adapter import ADAPTER, PLACE, check_fit, plug_in
from .provenance import came_from

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelgrow.surgery import Checkpoint, Component, Source


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A component and the pipeline that it runs in."""

    source: Source
    """What was named."""
    component: Component
    """Its part that is meant; "" is its name where the source is a component by itself."""
    around: Source
    """The pipeline that it runs in; the source itself, for a whole pipeline."""
    place: str
    """What the model that holds its parameters is called there."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The component's headers; what has none is refused before this."""
        return cast("Checkpoint", self.component.checkpoint)

    @property
    def is_adapter(self) -> bool:
        return stock_name(self.component.class_name) == ADAPTER


_Placed = TypeVar("_Placed", bound=Placed)


def load_alone(
    model: str | Path,
    pipeline: str | Path,
    *,
    component: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    variant: str | None = None,
    revision: str | None = None,
    pipeline_revision: str | None = None,
    offload: str | None = None,
) -> Any:
    """A pipeline with a component in its place, for inference.

    With a slot, it reads along with the slot's language model.

    Args:
        model: Folder, .safetensors file or Hub id of the component: a motion adapter, a transformer, a UNet, a VAE.
        pipeline: Folder or Hub id. Of one on the Hub, what the component replaces is not downloaded.
        component: What the pipeline calls it, where two of its models have that class.
        device: As `load_pipeline` has it; `dtype` and `offload` too.
        dtype: Of every component.
        variant: Weights variant of the pipeline, and of the component where its folder has it.
        revision: Branch, tag or commit of a component on the Hub.
        pipeline_revision: The same of the pipeline.
        offload: Where weights wait.

    Raises:
        GrowError: One of them is not there or can't be loaded, or they do not fit.
    """
    check_offload(device, offload)
    own = variant if variant and any(Path(model).glob(f"*.{variant}*")) else None
    source = open_source(model, headers_only=True, variant=own, revision=revision)
    part = by_itself(source)
    around = pipeline_around(str(pipeline), variant=variant, revision=pipeline_revision)
    place = place_of(part, around, model=str(model), pipeline=str(pipeline), named=component)
    placed = fetched_alone(Placed(source=source, component=part, around=around, place=place), variant=variant)
    made = load_placed(placed, device=device, dtype=dtype, variant=variant, offload=offload)
    named = (source.name, source.commit) if source.commit else (str(model), None)
    return came_from(made, *named, place=place)


def by_itself(source: Source) -> Component:
    """The component that a source is.

    Raises:
        GenerateError: It is a whole pipeline, not safetensors, or no model of diffusers.
    """
    if source.pipeline is not None:
        raise GenerateError(
            f"{source.name}: a whole pipeline; --pipeline is for a component by itself. Leave it out, or name one of "
            f"its folders instead: {', '.join(part.name for part in source.components)}"
        )
    (component,) = source.components
    if component.checkpoint is None:
        raise GenerateError(f"{source.name} has no safetensors: {CONVERT}")
    if "_class_name" not in component.checkpoint.config:
        raise GenerateError(
            f"{component.checkpoint.path}: {component.class_name}; a component by itself is a model of diffusers, "
            "such as a motion adapter or a transformer, with a config.json whose _class_name says which"
        )
    return component


def pipeline_around(name: str, *, variant: str | None = None, revision: str | None = None) -> Source:
    """The pipeline that a component is to run in, by its headers. Raises `GenerateError` if it is none."""
    around = open_source(name, headers_only=True, variant=variant, revision=revision)
    if around.pipeline is None:
        raise GenerateError(f"--pipeline {name}: no pipeline: there is no {PIPELINE_NAME} in it")
    return around


def place_of(component: Component, around: Source, *, model: str, pipeline: str, named: str | None = None) -> str:
    """What the pipeline calls the model that holds the component's parameters.

    Args:
        component: From `by_itself`.
        around: From `pipeline_around`.
        model: What the user calls the one.
        pipeline: And the other.
        named: Which it is, where two of the pipeline's have that class.

    Raises:
        GenerateError: The pipeline has no such place, or two, or what is there is another model.
    """
    checkpoint = cast("Checkpoint", component.checkpoint)
    if stock_name(component.class_name) == ADAPTER:
        check_fit(checkpoint, around)
        return PLACE
    stock, kinds = stock_name(component.class_name), components_of(around.pipeline or {})
    found = [name for name, kind in kinds.items() if stock_name(kind) == stock and named in (None, name)]
    if not found:
        has = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        which = f" called {named}" if named else ""
        raise GenerateError(f"--pipeline {pipeline}: has no {stock}{which}, which {model} is; it has {has}")
    if len(found) > 1:
        raise GenerateError(
            f"--pipeline {pipeline}: {' and '.join(found)} are {stock}; say with --component which one {model} is"
        )
    _check_same_kind(checkpoint, around, found[0])
    return found[0]


def _check_same_kind(checkpoint: Checkpoint, around: Source, place: str) -> None:
    """Raises `GenerateError` where the pipeline's own component is another model than what the grown one was."""
    own = next((part.checkpoint for part in around.components if part.name == place), None)
    steps = checkpoint.record.steps if checkpoint.record else ()
    edited = {key for step in steps for key in (*step.config_before, *step.config_added)}
    for key, value in own.config.items() if own is not None else ():
        ours = checkpoint.config.get(key, value)
        if not key.startswith("_") and key not in edited and ours != value:
            raise GenerateError(
                f"{checkpoint.path}: {key} is {ours!r:.80}, and {value!r:.80} in {around.name}'s {place}, so it is of "
                "another model; name the pipeline that it was grown from"
            )


def fetched_alone(placed: _Placed, *, variant: str | None = None) -> _Placed:
    """The same with all that runs on the disk, and the component in its place in `around`.

    The model that it replaces is not downloaded. A motion adapter replaces none.

    Raises:
        GrowError: It can't be had from the Hub.
    """
    source, place = placed.source, placed.place
    if source.commit is not None:
        source = open_source(source.name, revision=source.commit)
    (component,) = source.components
    if placed.is_adapter:
        around = fetched_pipeline(placed.around, without=["safety_checker"], variant=variant)
    else:
        around = fetched_pipeline(placed.around, without=[place], variant=variant)
        others = (part for part in around.components if part.name != place)
        around = replace(around, components=(*others, replace(component, name=place)))
    return replace(placed, source=source, component=component, around=around)


def fetched_pipeline(pipeline: Source, *, without: Iterable[str] = (), variant: str | None = None) -> Source:
    """A pipeline on the Hub, but for some components, as the folder of the cache that it is then in."""
    if pipeline.commit is None:
        return pipeline
    folder = locate(pipeline.name, variant=variant, revision=pipeline.commit, without=without)
    return replace(open_source(str(folder), variant=variant), name=pipeline.name)


def load_placed(
    placed: Placed,
    *,
    device: str,
    dtype: str = "auto",
    variant: str | None = None,
    offload: str | None = None,
    quantization: Any = None,
) -> Any:
    """The pipeline around a component by itself, with that in its place. The rest is as `load_pipeline` takes it.

    Raises:
        GrowError: It can't be loaded, or the two do not fit.
    """
    options: dict[str, Any] = {"device": device, "dtype": dtype, "variant": variant, "offload": offload}
    if placed.is_adapter:
        return plug_in(placed.checkpoint, placed.around, **options)
    bits = quantization.quant_mapping[placed.place] if quantization is not None else None
    kind = resolve_dtype(dtype, resolve_device(device))
    model = load_model(placed.checkpoint, dtype=kind, device=None, quantization=bits)
    pipeline = load_pipeline(placed.around.path, components={placed.place: model}, **options)
    if slot_of(placed.checkpoint.config):
        read_along(pipeline)
    return pipeline
