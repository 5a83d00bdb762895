"""A packed growth onto a model in memory: the base's own tensors, with what is new between them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from modelgrow.surgery import CheckpointError, SourceError
from modelgrow.surgery.growth_file import find_growth
from modelgrow.surgery.packed import read_packed
from modelgrow.surgery.slot import slot_of
from modelgrow.surgery.trace import names_after, rename

from . import motion_adapter
from .base_check import check_base
from .dtypes import FROM_STORED
from .models import model_class
from .ready import check_ready

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgrow.surgery import Tensor
    from modelgrow.surgery.packed import Packed, PackedComponent

M = TypeVar("M")


def load_growth(model: M, growth: str | Path, *, component: str | None = None) -> M:
    """Grow a loaded pipeline, or a model by itself, by what `grow pack` wrote.

    Nothing is written to disk and no weight of the base is copied: the grown model holds the base's own
    tensors, and the new ones from the file in the same dtype and on the same device. What comes out computes,
    to the bit, what the grown folder would if it were loaded. Call it before enable_model_cpu_offload,
    torch.compile, LoRA and caches.

    Args:
        model: A pipeline, whose grown components are replaced, or a component such as a transformer.
        growth: The file, a folder that holds growth.safetensors, or a Hub id of such a folder.
        component: Which component of the growth, or of the pipeline, where that is not plain.

    Returns:
        The same pipeline, which is of a grown class from then on if the growth has a slot for a language model: give
        it one as `llm` and `llm_tokenizer`, or it fetches the one that the slot names. For a model, a new one of the
        class that the growth needs.

    Raises:
        SourceError: There is no such file, or the growth is of another base.
        CheckpointError: The growth is damaged, or the model is not in a state to be grown.
    """
    packed = read_packed(find_growth(growth))
    if not hasattr(model, "register_modules"):
        alone: M = _grow(model, _only(packed, component), packed, type(model).__name__)
        return alone
    pipeline: Any = model
    parts = _parts(pipeline, packed, component)
    grown = {name: _grow(getattr(pipeline, name), part, packed, name, pipeline) for name, part in parts.items()}
    if motion_adapter.NAME in grown and motion_adapter.PLACE not in grown:  # AnimateDiff runs the UNet that holds it
        adapter = grown[motion_adapter.NAME]
        grown[motion_adapter.PLACE] = motion_adapter.plug_again(pipeline.unet, adapter)
    pipeline.register_modules(**grown)
    if any(slot_of(part.config) for part in parts.values()):
        read_along(pipeline)
    return model


def read_along(pipeline: Any) -> None:
    """Make a pipeline whose model has a slot one that reads its prompts with a language model too."""
    from .grown.pipeline import GrownPipeline, grown_pipeline

    if not isinstance(pipeline, GrownPipeline):
        stock: Any = type(pipeline)
        pipeline.__class__ = grown_pipeline(stock)
        pipeline.register_modules(llm=None, llm_tokenizer=None)


def _only(packed: Packed, component: str | None) -> PackedComponent:
    if component is None and len(packed.components) == 1:
        return next(iter(packed.components.values()))
    if component is None or component not in packed.components:
        raise SourceError(
            f"{packed.path}: holds {', '.join(packed.components) or 'a model by itself'}; say which with component="
        )
    return packed.components[component]


def _parts(pipeline: Any, packed: Packed, component: str | None) -> dict[str, PackedComponent]:
    """The pipeline's component for each of the growth's."""
    alone = packed.components.get("")
    modules = {name: c for name, c in pipeline.components.items() if isinstance(c, torch.nn.Module)}
    if alone is None:
        found = {name: part for name, part in packed.components.items() if component in (None, name)}
    else:
        wanted = alone.record.base.class_name
        found = {name: alone for name, c in modules.items() if type(c).__name__ == wanted and component in (None, name)}
    if not found or not found.keys() <= modules.keys() or (alone is not None and len(found) > 1):
        what = ", ".join(packed.components) if alone is None else f"one {alone.record.base.class_name}"
        raise SourceError(
            f"{packed.path}: holds the growth of {what}; {type(pipeline).__name__} has {', '.join(modules)}. "
            "Say which with component="
        )
    return found


def _grow(model: Any, part: PackedComponent, packed: Packed, where: str, pipeline: Any = None) -> Any:
    check_ready(model, where, pipeline)
    state: dict[str, torch.Tensor] = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if _stays(name, part)}
    names = _fit(model, kept, part, packed, where)
    check_base(model, kept, names, part, where=f"{packed.path}: {where}")
    return _build(model, state, names, part)


def _stays(name: str, part: PackedComponent) -> bool:
    return all(after in part.expected for after in names_after(name, part.record.steps))


def _fit(
    model: Any, state: Mapping[str, torch.Tensor], part: PackedComponent, packed: Packed, where: str
) -> dict[str, str]:
    """The grown model's tensors that are the base's -> what they are called there. Raises `SourceError`."""
    base = part.record.base
    wrong = (
        f"{packed.path}: was grown from {base.name}, a {base.class_name}, and {where}, a {type(model).__name__}, "
        "is another model: "
    )
    extra = [name for name, _ in model.named_parameters() if name not in state]
    if extra:
        raise SourceError(f"{wrong}that one has no {extra[0]!r}")
    try:
        names = part.from_base(state, base=where)
    except CheckpointError as error:
        raise SourceError(wrong + str(error)) from error
    for key, name in names.items():
        if tuple(state[name].shape) != part.expected[key][1]:
            raise SourceError(
                f"{wrong}{name!r} has the shape {list(state[name].shape)} instead of {list(part.expected[key][1])}"
            )
    return names


def _build(model: Any, state: Mapping[str, torch.Tensor], names: Mapping[str, str], part: PackedComponent) -> Any:
    from accelerate import init_empty_weights

    # Not by name alone: an old config may call a class as it was called once, and diffusers knows which is meant.
    cls = type(model) if part.class_name == part.record.base.class_name else model_class(part.class_name)
    with init_empty_weights(include_buffers=False):
        grown = cls.from_config(dict(part.config))
    kinds = {_kind(name): tensor for name, tensor in state.items()}
    values = {
        key: state[names[key]] if key in names else _like(_read(part.tensors[key], key), kinds.get(_kind(key)), model)
        for key in part.expected
    }
    result = grown.load_state_dict(values, strict=False, assign=True)
    if result.unexpected_keys or any(tensor.is_meta for tensor in (*grown.parameters(), *grown.buffers())):
        fault = next(iter((*result.unexpected_keys, *result.missing_keys)))
        raise CheckpointError(
            f"the growth's config and weights do not belong together: {fault!r} is in one of them only"
        )
    _share_buffers(model, grown, part, values)
    _carry_settings(model, grown, {name: key for key, name in names.items()})
    grown.modelgrow_record = part.record
    return grown


def _read(tensor: Tensor, name: str) -> torch.Tensor:
    """A stored tensor in memory of its own, aligned as torch's allocator does it."""
    if tensor.dtype not in FROM_STORED:
        raise CheckpointError(f"{tensor.file}: {name!r} is {tensor.dtype}, which torch models are not made of")
    data = torch.empty(tensor.nbytes, dtype=torch.uint8)
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.offset)
        view = memoryview(data.numpy())  # type: ignore[arg-type]
        while view:
            count = file.readinto(view)
            if not count:
                raise CheckpointError(f"{tensor.file}: became shorter while it was read")
            view = view[count:]
    return data.view(FROM_STORED[tensor.dtype]).reshape(tensor.shape)


def _kind(name: str) -> str:
    """A name without its numbers: the same for a parameter in every block."""
    return re.sub(r"\d+", "#", name)


def _like(tensor: torch.Tensor, model: torch.Tensor | None, parent: Any) -> torch.Tensor:
    """The tensor in the dtype, and on the device, of the base's tensor of the same kind."""
    dtype = tensor.dtype if not tensor.is_floating_point() else model.dtype if model is not None else parent.dtype
    return tensor.to(device=model.device if model is not None else parent.device, dtype=dtype)


def _share_buffers(model: Any, grown: Any, part: PackedComponent, values: Mapping[str, torch.Tensor]) -> None:
    """Buffers that no file holds, such as RoPE's tables: the base's own, or computed ones in their dtype and place."""
    held = {rename(name, part.record.steps): buffer for name, buffer in model.named_buffers()}
    kinds = {_kind(name): buffer for name, buffer in held.items()}
    for name, buffer in list(grown.named_buffers()):
        if name in values:
            continue
        own = held.get(name)
        if own is None or own.shape != buffer.shape:
            own = _like(buffer, kinds.get(_kind(name)), model)
        prefix, _, leaf = name.rpartition(".")
        setattr(grown.get_submodule(prefix), leaf, own)


def _carry_settings(model: Any, grown: Any, places: Mapping[str, str]) -> None:
    """What was set on the model since it was loaded."""
    parameters = dict(grown.named_parameters())
    for name, parameter in model.named_parameters():
        if name in places:
            parameters[places[name]].requires_grad_(parameter.requires_grad)
    if getattr(model.config, "_name_or_path", None):
        grown.register_to_config(_name_or_path=model.config._name_or_path)
    grown.train(model.training)
    if getattr(model, "is_gradient_checkpointing", False):
        grown.enable_gradient_checkpointing()
    backends = {processor._attention_backend for processor in _processors(model)}
    for processor in _processors(grown) if len(backends) == 1 else ():
        processor._attention_backend = next(iter(backends))


def _processors(model: Any) -> list[Any]:
    """What `set_attention_backend` sets."""
    found: list[Any] = [getattr(module, "processor", None) for module in model.modules()]
    return [processor for processor in found if hasattr(processor, "_attention_backend")]
