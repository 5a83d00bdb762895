"""A language model as far as a slot needs to know it: how wide its states are, and where it is to be had."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import strict_json
from .checkpoint import CONFIG_NAME, has_weights
from .errors import SourceError
from .hub import download, fetch_file, is_hub_id, open_repo
from .regular import check_link, names_in

COMPONENT = "llm"
TOKENIZER = "llm_tokenizer"

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")
_DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where models that also see or hear keep the config of their language model."""
_MODEL_FILES = re.compile(r"(config|generation_config)\.json|.*\.safetensors(\.index\.json)?", re.ASCII)
_TOKENIZER_FILES = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|"
    r"(spiece|sentencepiece.*)\.model|chat_template\.(json|jinja)",
    re.ASCII,
)
_TOKENIZER_CONFIG = "tokenizer_config.json"
_DEFAULT_TOKENIZER = "PreTrainedTokenizerFast"


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """What `--llm` names."""

    name: str
    """The Hub id, or the folder's absolute path."""
    dim: int
    """Width of its hidden states."""
    class_name: str
    """In transformers."""
    depth: int | None = None
    """Its layers, where its config says how many."""
    revision: str | None = None
    """The commit that a Hub id stood for."""
    folder: Path | None = None
    """Where its files are, if they are here."""
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """Files of it that were left on the Hub: place in a pipeline's folder -> bytes."""

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Its files and its tokenizer's that are here, and their places in a pipeline's folder.

        Raises:
            SourceError: The folder lacks safetensors or a tokenizer.
        """
        folder = self._here()
        for name in names_in(folder):
            place = _place(name)
            if place is not None and os.path.isfile(folder / name):
                yield Path(os.path.realpath(folder / name)), Path(place)

    def entries(self) -> dict[str, list[str]]:
        """What model_index.json says of both, where they stand in the pipeline's folder."""
        config = strict_json.read_object(self._here() / _TOKENIZER_CONFIG)
        tokenizer = config.get("tokenizer_class") or _DEFAULT_TOKENIZER
        if not isinstance(tokenizer, str) or not tokenizer.isidentifier():
            raise SourceError(f"{self.name}: {_TOKENIZER_CONFIG} names the tokenizer_class {tokenizer!r:.80}")
        return {COMPONENT: ["transformers", self.class_name], TOKENIZER: ["transformers", tokenizer]}

    def _here(self) -> Path:
        if self.folder is None:
            raise SourceError(f"{self.name}: only its {CONFIG_NAME} was fetched; open it with its weights")
        if not has_weights(self.folder) and not any(name.endswith(".safetensors") for name in self.elsewhere):
            raise SourceError(f"{self.folder}: no .safetensors file, so the language model can't be included")
        if not (self.folder / _TOKENIZER_CONFIG).is_file():
            raise SourceError(f"{self.folder}: no {_TOKENIZER_CONFIG}, so its tokenizer can't be included")
        return self.folder


def open_language_model(
    argument: str,
    *,
    revision: str | None = None,
    dim: int | None = None,
    with_weights: bool = False,
    headers_only: bool = False,
) -> LanguageModel:
    """Read what a user named.

    Args:
        argument: A folder in transformers' layout, or a Hub id, of which config.json alone is fetched.
        revision: Branch, tag or commit of a Hub id.
        dim: Width of its states, for a config that does not say it in a known way.
        with_weights: Fetch all of a Hub id.
        headers_only: Leave the weights of a Hub id there even so; the plan can only be shown then.

    Raises:
        SourceError: It is not there, or its config does not say how wide its states are.
        CheckpointError: config.json is damaged.
    """
    is_local = os.path.isdir(argument)
    elsewhere: Mapping[str, int] = {}
    if is_local:
        folder = Path(os.path.abspath(argument))
        commit = None
    elif is_hub_id(argument):
        if with_weights:
            folder, elsewhere = _download(argument, revision, headers_only=headers_only)
        else:
            folder = fetch_file(argument, CONFIG_NAME, revision).parent
        commit = folder.name if _COMMIT.fullmatch(folder.name) else revision
    else:
        raise SourceError(f"{argument[:300]!r}: no such folder, and not a Hub id (those look like Qwen/Qwen3-0.6B)")
    path = folder / CONFIG_NAME
    if not os.path.lexists(path):
        raise SourceError(f"{argument}: there is no {CONFIG_NAME} in it, so it is no language model of transformers")
    if is_local:
        check_link(path, folder)
    config = strict_json.read_object(path)
    names = config.get("architectures")
    return LanguageModel(
        name=str(folder) if is_local else argument,
        dim=dim or _width(config, argument),
        depth=_number(config, _DEPTHS),
        class_name=names[0] if isinstance(names, list) and names and isinstance(names[0], str) else "AutoModel",
        revision=commit,
        folder=folder if is_local or with_weights else None,
        elsewhere=elsewhere,
    )


def _place(name: str) -> str | None:
    """Where a file of it stands in a pipeline's folder."""
    for component, pattern in ((COMPONENT, _MODEL_FILES), (TOKENIZER, _TOKENIZER_FILES)):
        if pattern.fullmatch(name):
            return f"{component}/{name}"
    return None


def _number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """What the language model's own part of a config says under the first of these keys that it has."""
    parts = [config[key] for key in _PARTS if isinstance(config.get(key), dict)]
    nested = [part["text_config"] for part in parts if isinstance(part.get("text_config"), dict)]
    for part in (*nested, *parts, config):
        for key in keys:
            if type(part.get(key)) is int and part[key] > 0:
                return int(part[key])
    return None


def _width(config: Mapping[str, Any], argument: str) -> int:
    width = _number(config, _WIDTHS)
    if width is not None:
        return width
    raise SourceError(
        f"{argument}: its {CONFIG_NAME} does not say how wide its hidden states are (looked for {', '.join(_WIDTHS)}, "
        f"also in {', '.join(_PARTS)}). Say it with --llm-dim"
    )


def _download(repo_id: str, revision: str | None, *, headers_only: bool) -> tuple[Path, dict[str, int]]:
    """Its folder, and what was left on the Hub, by its place."""
    repo = open_repo(repo_id, revision)
    sizes = {name: size for name, size in (repo.sizes or {}).items() if "/" not in name and _place(name) is not None}
    large = [name for name in sizes if headers_only and name.endswith(".safetensors")]
    download(repo, [name for name in sizes if name not in large], with_bars=not headers_only)
    return repo.folder, {str(_place(name)): sizes[name] for name in large if not (repo.folder / name).exists()}
