"""What trains and its pipeline, from the Hub into its cache and from there, or from a folder, into memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelgrow.pipelines.dtypes import resolve_dtype
from modelgrow.pipelines.growth import read_along
from modelgrow.pipelines.load import load_pipeline, locate, resolve_device
from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.motion_adapter import plug_in
from modelgrow.surgery import open_source
from modelgrow.surgery.slot import slot_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelgrow.surgery import Component, Source

    from .component import Chosen


def fetched(chosen: Chosen) -> Chosen:
    """The same with all that runs, and all that is written again, on the disk.

    Where the component takes the place of its pipeline's own, that one is not downloaded, and the component is in its
    place in `around`. A motion adapter takes no place.

    Raises:
        GrowError: It can't be had from the Hub.
    """
    if not chosen.is_alone:
        source = _fetched(chosen.source)
        name = chosen.component.name
        return replace(chosen, source=source, component=source.named([name])[name], around=source)
    source = chosen.source
    if source.commit is not None:
        source = open_source(source.name, revision=source.commit)
    (component,) = source.components
    if chosen.is_adapter:
        around = _fetched(chosen.around, without=["safety_checker"])
    else:
        around = _with(_fetched(chosen.around, without=[chosen.place]), replace(component, name=chosen.place))
    return replace(chosen, source=source, component=component, around=around)


def load(chosen: Chosen, *, device: str, dtype: str = "auto", quantization: Any = None) -> Any:
    """The pipeline, with the component in its place. `device` and `dtype` are as `load_pipeline` takes them.

    Raises:
        GenerateError: It can't be loaded, or the two do not fit.
    """
    if chosen.is_adapter:
        return plug_in(chosen.checkpoint, chosen.around, device=device, dtype=dtype)
    if not chosen.is_alone:
        return load_pipeline(chosen.around.path, device=device, dtype=dtype, quantization=quantization)
    bits = quantization.quant_mapping[chosen.place] if quantization is not None else None
    kind = resolve_dtype(dtype, resolve_device(device))
    model = load_model(chosen.checkpoint, dtype=kind, device=None, quantization=bits)
    pipeline = load_pipeline(chosen.around.path, device=device, dtype=dtype, components={chosen.place: model})
    if slot_of(chosen.checkpoint.config):
        read_along(pipeline)
    return pipeline


def _fetched(pipeline: Source, without: Iterable[str] = ()) -> Source:
    """A pipeline on the Hub, but for some components, as the folder of the cache that it is then in."""
    if pipeline.commit is None:
        return pipeline
    folder = locate(pipeline.name, revision=pipeline.commit, without=without)
    return replace(open_source(str(folder)), name=pipeline.name)


def _with(pipeline: Source, component: Component) -> Source:
    """A pipeline with a component in the place of its own."""
    others = (part for part in pipeline.components if part.name != component.name)
    return replace(pipeline, components=(*others, component))
