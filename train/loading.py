"""What trains and its pipeline, from the Hub into its cache and from there, or from a folder, into memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelgrow.pipelines.alone import fetched_alone, fetched_pipeline, load_placed
from modelgrow.pipelines.load import load_pipeline

if TYPE_CHECKING:
    from .component import Chosen


def fetched(chosen: Chosen) -> Chosen:
    """The same with all that runs, and all that is written again, on the disk.

    Where the component takes the place of its pipeline's own, that one is not downloaded, and the component is in its
    place in `around`. A motion adapter takes no place.

    Raises:
        GrowError: It can't be had from the Hub.
    """
    if chosen.is_alone:
        return fetched_alone(chosen)
    source = fetched_pipeline(chosen.source)
    name = chosen.component.name
    return replace(chosen, source=source, component=source.named([name])[name], around=source)


def load(chosen: Chosen, *, device: str, dtype: str = "auto", quantization: Any = None) -> Any:
    """The pipeline, with the component in its place. `device` and `dtype` are as `load_pipeline` takes them.

    Raises:
        GrowError: It can't be loaded, or the two do not fit.
    """
    if chosen.is_alone or chosen.is_adapter:
        return load_placed(chosen, device=device, dtype=dtype, quantization=quantization)
    return load_pipeline(chosen.around.path, device=device, dtype=dtype, quantization=quantization)
