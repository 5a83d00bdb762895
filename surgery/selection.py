"""Which files of a model on the Hub are needed: its repository often holds the same weights several times over.

Stable Video Diffusion's has them in two precisions in folders and again in single files, LTX-Video's a dozen
versions of the model. What a pipeline's components do not load is left there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from .checkpoint import CONFIG_NAME, STEMS
from .disguise import OTHER_WEIGHTS
from .record import RECORD_NAME

PIPELINE_NAME = "model_index.json"
GENERATION_NAME = "generation.json"

_STEM = "|".join(map(re.escape, STEMS))
_WEIGHTS = re.compile(
    rf"(?:{_STEM})(?:\.(?P<variant>[\w.-]+?))?(?:-\d{{5}}-of-\d{{5}})?\.safetensors"
    rf"|(?:{_STEM})\.safetensors\.index(?:\.(?P<infix>[\w.-]+))?\.json",
    re.ASCII,
)


def is_small(name: str) -> bool:
    """Whether a file, by its path, is one of those that are read whole beside the headers of weights."""
    base = name.rpartition("/")[2]
    return base in (PIPELINE_NAME, CONFIG_NAME, RECORD_NAME, GENERATION_NAME) or _is_index(base)


def needed(sizes: Mapping[str, int], components: Collection[str] | None, variant: str | None) -> dict[str, int]:
    """The files of a repository that count, with their sizes.

    Args:
        sizes: Path of every file, with "/" -> bytes.
        components: A pipeline's; None for a repository that is one model.
        variant: The weights that are wanted of a folder that has them, as `open_source` has it.
    """
    shown = {name: size for name, size in sizes.items() if not any(part.startswith(".") for part in name.split("/"))}
    folders: dict[str, set[str | None]] = {}
    for name in filter(_is_weights, shown):
        folder, _, base = name.rpartition("/")
        folders.setdefault(folder, set()).add(_variant_of(base))
    kept = {}
    for name, size in shown.items():
        folder, _, base = name.rpartition("/")
        if not _is_weights(name):
            kept[name] = size
        elif folder in ({""} if components is None else components):
            there = folders[folder]
            chosen = variant if variant in there else None
            if chosen not in there or _variant_of(base) in (chosen, _UNKNOWN):
                kept[name] = size
    return kept


_UNKNOWN = ""
"""In a variant's place: a file of weights under a name of its own."""


def _variant_of(base: str) -> str | None:
    match = _WEIGHTS.fullmatch(base)
    return _UNKNOWN if match is None else match["variant"] or match["infix"]


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", *OTHER_WEIGHTS)) or _is_index(name)


def _is_index(name: str) -> bool:
    return ".safetensors.index" in name and name.endswith(".json")
