"""Folders as the Open-Sora authors published them, read by `from_pretrained` of the classes here.

Such a folder has a config.json in transformers' form, without `_class_name`, and its weights in one .safetensors file.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers.models.modeling_utils import _get_model_file
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME

from modelgrow.surgery import SourceError, strict_json
from modelgrow.surgery.checkpoint import find_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PUBLISHED_WEIGHTS = "model.safetensors"
_HUB = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder")


def published_config(cls: Any, path: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """config.json of a published folder or Hub id; None if it is diffusers' own form.

    Args:
        cls: The model class.
        path: As `from_pretrained` takes it.
        options: The keyword arguments of `from_pretrained`.
    """
    config: dict[str, Any] = cls.load_config(path, **{name: options[name] for name in _HUB if name in options})
    return None if "_class_name" in config else config


@contextmanager
def as_diffusers(cls: Any, path: Any, config: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Path]:
    """A folder with a published model's weights under diffusers' name and `config` beside it: a link, nothing copied.

    The names of the tensors stay the published ones; `cls._fix_state_dict_keys_on_load` maps them.
    """
    weights = _weights(path, options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SAFETENSORS_WEIGHTS_NAME).symlink_to(weights.resolve())
        (folder / "config.json").write_text(strict_json.dump({"_class_name": cls.__name__, **config}), encoding="utf-8")
        yield folder


def _weights(path: Any, options: Mapping[str, Any]) -> Path:
    """The one file of weights. In a folder it may have any name; on the Hub it is model.safetensors.

    Raises:
        GrowError: A folder has none, or several.
    """
    hub = {"revision": None, "subfolder": None} | {name: options[name] for name in _HUB if name in options}
    folder = Path(path, hub["subfolder"] or "")
    if not folder.is_dir():
        return Path(_get_model_file(path, weights_name=PUBLISHED_WEIGHTS, **hub))
    weights = find_weights(folder, None)
    if weights.suffix != ".safetensors":
        raise SourceError(
            f"{folder}: {weights.name} speaks of several files, and a published model is one. Join them, or name the "
            "class in config.json (_class_name) and the files diffusers' way"
        )
    return weights


def load(
    cls: Any, path: Any, options: Mapping[str, Any], convert: Callable[[Mapping[str, Any]], dict[str, Any]], stock: Any
) -> Any:
    """`from_pretrained` of a class that reads both forms.

    Args:
        cls, path, options: As in `published_config`.
        convert: From the published config to the arguments of `cls`.
        stock: `from_pretrained` as diffusers has it, bound to `cls`.
    """
    config = published_config(cls, path, options)
    if config is None:
        return stock(path, **options)
    rest = {name: value for name, value in options.items() if name not in _HUB}
    with as_diffusers(cls, path, convert(config), options) as folder:
        loaded = stock(folder, **rest)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    model.register_to_config(_name_or_path=str(path))
    return loaded
