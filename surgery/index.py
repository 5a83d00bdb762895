"""model_index.json, where a growth changes what a component or its pipeline is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import PlanError
from .grown import grown_name, stock_name
from .index_check import is_model
from .language_model import COMPONENT, TOKENIZER

if TYPE_CHECKING:
    from .plan import Plan

LIBRARY = "modelgrow.pipelines"
"""What model_index.json names for classes that are not diffusers' own."""
CLASS_NAME = "_class_name"


def index_edits(index: Mapping[str, Any] | None, plans: Mapping[str, Plan]) -> dict[str, Any]:
    """What changes in model_index.json.

    Args:
        index: The source's; None where it is no pipeline.
        plans: Per component.

    Returns:
        Keys -> their new values; None for one that goes.

    Raises:
        PlanError: A component of another library's class would become one of ours.
    """
    edits: dict[str, Any] = {}
    for name, plan in plans.items() if index is not None else ():
        if index is not None and name in index and CLASS_NAME in plan.config_edits:
            if not is_model(index[name]):
                raise PlanError(
                    f"model_index.json: {name} is {index[name]!r:.100}, and would become a class of modelgrow's. "
                    "Grow the component's folder by itself, and load it into a pipeline of yours"
                )
            edits[name] = [LIBRARY, plan.config_edits[CLASS_NAME]]
        edits |= plan.pipeline_edits
    return edits


def follow_slots(index: Mapping[str, Any] | None, edits: Mapping[str, Any], *, slotted: bool) -> dict[str, Any]:
    """The edits, so that the pipeline is of the class that reads a language model while one of its components does.

    Args:
        index: The source's; None where it is no pipeline.
        edits: From `index_edits`.
        slotted: Whether a component of the output has a slot.
    """
    if index is None:
        return dict(edits)
    after = edit_index(index, edits)
    name = after.get(CLASS_NAME)
    if isinstance(name, str) and slotted:
        after[CLASS_NAME] = grown_name(name)
        after |= {key: index.get(key) or [None, None] for key in (COMPONENT, TOKENIZER) if key not in after}
    elif isinstance(name, str) and name != stock_name(name):
        after[CLASS_NAME] = stock_name(name)
        after |= dict.fromkeys((COMPONENT, TOKENIZER))
    return {key: after.get(key) for key in {**index, **edits, **after} if after.get(key) != index.get(key)}


def index_before(index: Mapping[str, Any] | None, edits: Mapping[str, Any]) -> dict[str, Any]:
    """The edits that take these edits back."""
    return {key: index.get(key) for key in edits} if index is not None else {}


def edit_index(index: Mapping[str, Any], edits: Mapping[str, Any]) -> dict[str, Any]:
    """The edited file; keys keep their order, and new ones come last."""
    return {key: value for key, value in {**index, **edits}.items() if key not in edits or value is not None}
