"""Where the embedded foundation is: the tiny text-to-video pipeline that ships with the small world."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrow.surgery import GenerateError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_PACKAGE = "modelgrow.examples.shapes"
_INDEX = "model_index.json"


def foundation_path() -> Path:
    """The foundation's pipeline folder. It is package data: only ever read from.

    Raises:
        GenerateError: This installation does not have it.
    """
    folder = _folder()
    if not isinstance(folder, Path) or not (folder / _INDEX).is_file():
        raise GenerateError(
            f"{folder}: the pipeline that comes with modelgrow is not there, so this installation is incomplete. "
            "Install it again with 'pip install --force-reinstall --no-deps .' in the clone, or name a --model"
        )
    return folder


def is_foundation(folder: Path) -> bool:
    """Whether a pipeline's folder is the foundation's."""
    return folder == _folder()


def _folder() -> Traversable:
    return resources.files(_PACKAGE) / "foundation"
