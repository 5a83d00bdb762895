"""What a stranger's growth may write into model_index.json, which says what diffusers imports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import CheckpointError

LIBRARIES = ("diffusers", "transformers", "modelgrow.pipelines")


def check_edits(edits: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The edits, if they name the pipeline's class, components of libraries of models, and numbers, and nothing else.

    Raises:
        CheckpointError: One of them does not.
    """
    for key, value in edits.items():
        if not _is_fine(key, value):
            raise CheckpointError(f"{where}: a growth may not write {key!r:.80}: {value!r:.80} into model_index.json")
    return dict(edits)


def _is_fine(key: str, value: Any) -> bool:
    if key == "_class_name":
        return isinstance(value, str) and value.isidentifier()
    if not key.isidentifier() or key.startswith("_"):
        return False
    return value in (None, [None, None]) or type(value) in (int, float, bool) or is_model(value)


def is_model(value: Any) -> bool:
    """Whether it is a component's entry: a library of models and a class of it."""
    if not isinstance(value, list) or len(value) != 2 or value[0] not in LIBRARIES:
        return False
    return isinstance(value[1], str) and value[1].isidentifier()
