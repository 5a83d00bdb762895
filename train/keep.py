"""The settings of a run in its folder: written by the first session, held to by the next."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from typing import TYPE_CHECKING

from modelgrow.surgery import TrainError
from modelgrow.surgery.disk import make_folder, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings

SETTINGS_NAME = "settings.toml"
FREE = frozenset(
    {
        "alarm_after",
        "keep",
        "link",
        "preview_every",
        "previews",
        "preview_image",
        "save_every",
        "tracker",
        "validate_every",
    }
)
"""Settings that a run may go on with changed: none of them changes what is learned."""


def keep_settings(settings: Settings, folder: Path) -> None:
    """Save the settings, or see that a run that is there had the same.

    `FREE` ones may change, and so may the number of steps, unless the learning rate depends on it. Before its first
    checkpoint a run has learned nothing, and all of them may: it may have failed for one of them.

    Raises:
        TrainError: The run that is there had others, or the folder is one of what the run reads.
        OutputError: They can't be written.
    """
    _check_place(settings, folder)
    path = folder / SETTINGS_NAME
    text = settings.to_toml()
    if path.exists() and any((folder / "checkpoints").glob("step-*")):
        before = path.read_text(encoding="utf-8")
        if before == text:
            return
        free = FREE | ({"steps"} if settings.schedule.startswith("constant") else set())
        # A version that knew fewer settings did what their defaults do now.
        defaults = {item.name: item.default for item in fields(settings)}
        old, new = ({k: v for k, v in tomllib.loads(toml).items() if k not in free} for toml in (before, text))
        differ = sorted(name for name in {*old, *new} if old.get(name, defaults.get(name)) != new.get(name))
        if differ:
            told = "; ".join(
                f"{name} was {old.get(name, defaults.get(name))!r}, is {new.get(name)!r}" for name in differ
            )
            raise TrainError(
                f"{path}: the run there has other settings ({told[:300]}). Go on with its own, or choose another -o"
            )
    make_folder(folder)
    partial = folder / f".{SETTINGS_NAME}.{os.getpid()}"  # several processes may come by at once
    write_text(partial, text)
    partial.replace(path)


def _check_place(settings: Settings, folder: Path) -> None:
    """Nothing is written into the model or among the clips, where previews would be taken for clips."""
    for name in ("model", "pipeline", "data"):
        given = getattr(settings, name)
        if given and os.path.isdir(given) and folder.resolve().is_relative_to(os.path.realpath(given)):
            raise TrainError(
                f"{folder}: is the {name} {given}, or lies in it, and that is only read. Choose another -o"
            )
