"""Whether a packed growth and a base belong together: by the weights, or by headers while those are on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CheckpointError, SourceError
from .fingerprint import fingerprint_of
from .tensor import is_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .checkpoint import Checkpoint
    from .packed import Packed, PackedComponent
    from .source import Source
    from .tensor import Tensor


def find_base(packed: Packed, component: PackedComponent, base: Source) -> tuple[str, Checkpoint]:
    """The component of a base that a packed one was grown from, told by its weights. Raises `SourceError`."""
    expected = component.record.base
    candidates = {
        c.name: c.checkpoint
        for c in base.components
        if c.checkpoint is not None and c.checkpoint.class_name == expected.class_name
    }
    if component.name in candidates:
        candidates = {component.name: candidates[component.name]}
    elif component.name and "" not in candidates:
        candidates = {}
    found = {name: _compare(checkpoint, component) for name, checkpoint in candidates.items()}
    for name, difference in found.items():
        if difference is None:
            return name, candidates[name]
    what = "; ".join(
        f"{base.name}{'/' if name else ''}{name} is {expected.class_name} {difference}"
        for name, difference in found.items()
    )
    raise SourceError(
        f"{packed.path}: was grown from {expected.name} ({expected.class_name} {expected.fingerprint}), and "
        f"{what or f'{base.name} holds no {expected.class_name}'}. Name the base that it was grown from"
    )


def _compare(base: Checkpoint, component: PackedComponent) -> str | None:
    """How a model differs from the base of a packed one; None if it does not. What is not here is known by headers."""
    if is_here(base.tensors.values()):
        found = fingerprint_of(base)
        return None if found == component.record.base.fingerprint else found
    try:
        names = component.from_base(base.tensors, base="it")
    except CheckpointError as error:
        return f"with other tensors: {error}"
    other = next((key for key, name in names.items() if not _is(base.tensors[name], component.expected[key])), None)
    return None if other is None else f"whose {names[other]!r} is not as in the growth"


def check_shapes(packed: Packed, component: PackedComponent, base: Checkpoint, names: Mapping[str, str]) -> None:
    """Raises `CheckpointError` if a tensor that the growth wants of the base, by `names`, is another one there."""
    for key, what in component.expected.items():
        if key in names and not _is(tensor := base.tensors[names[key]], what):
            raise CheckpointError(
                f"{packed.path}: {key!r} should be {what[0]} {list(what[1])}, the base's {names[key]!r} is "
                f"{tensor.dtype} {list(tensor.shape)}; the growth is damaged"
            )


def _is(tensor: Tensor, what: tuple[str, tuple[int, ...]]) -> bool:
    return (tensor.dtype, tensor.shape) == what
