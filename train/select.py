"""Which parameters train. growth.json decides, not a naming habit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import TrainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from modelgrow.surgery import Record

LORA_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("qkv", "q_linear", "kv_linear", "attn.proj", "attn_temp.proj", "cross_attn.proj"),
    *("to_query", "to_key", "to_value", "self_attention.out_layer", "cross_attention.out_layer"),
)
"""Attention projections, by the names that diffusers gives them; then by Open-Sora's, and by Kandinsky's."""


def names_to_train(
    model: torch.nn.Module, record: Record | None, train: str, within: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    """Names of the parameters that train, in the model's order.

    Args:
        model: The grown model.
        record: Its growth.json; needed unless everything trains.
        train: "new", "grown-blocks" or "all".
        within: Which parameters belong to what was named, by name; None: all of the model's.

    Raises:
        TrainError: Nothing has grown, or the record names what the model does not have.
    """
    parameters = {name: p for name, p in model.named_parameters() if within is None or within(name)}
    names = list(parameters)
    if train == "all":
        # Open-Sora stores its rotary frequencies as a parameter that never trains.
        return tuple(name for name, parameter in parameters.items() if parameter.requires_grad)
    if record is not None:
        grown = grown_names(names, record, train)
        missing = sorted(grown - set(names) - {name for name, _ in model.named_buffers()})
        if missing:
            raise TrainError(f"growth.json names {missing[0]!r}, which {type(model).__name__} does not have")
    return grown_among(names, record, train)


def grown_among(names: Iterable[str], record: Record | None, train: str) -> tuple[str, ...]:
    """Those of `names`, in their order, that train if "new" or "grown-blocks" is what trains.

    Raises:
        TrainError: There are none.
    """
    if record is None:
        raise TrainError("this model has no growth.json, so nothing in it is new; grow it first, or train 'all'")
    names = list(names)
    grown = grown_names(names, record, train)
    chosen = tuple(name for name in names if name in grown)
    if not chosen:
        raise TrainError(
            "growth.json names no parameter that is new (tables of positions that are computed are none); "
            "--train grown-blocks trains the blocks that it changed"
        )
    return chosen


def grown_names(names: Iterable[str], record: Record, train: str) -> set[str]:
    """What the record names, and for "grown-blocks" what of `names` is in its blocks."""
    grown = {*record.new, *record.changed}
    if train == "grown-blocks":
        grown |= {name for name in names if any(name.startswith(block + ".") for block in record.blocks)}
    return grown


def reached(names: Iterable[str], idle: Callable[[str], bool] | None) -> tuple[str, ...]:
    """Those of the names that a family's clips can train, see `idle` in `families.family`. Without gradients a
    parameter would never move, and several processes would wait for it.

    Raises:
        TrainError: There are none.
    """
    names = tuple(names)
    found = names if idle is None else tuple(name for name in names if not idle(name))
    if not found:
        raise TrainError(
            f"{names[0]} and all else that would train ({len(names)} tensors) has no part in what this model makes of "
            "clips as they are read here, so they can't train it; choose another --train"
        )
    return found


def freeze_all_but(model: torch.nn.Module, names: Iterable[str]) -> list[tuple[str, torch.nn.Parameter]]:
    """Frozen means frozen: no gradient, hence no gradient buffer. What trains becomes float32.

    Returns the trained parameters by name.
    """
    wanted = set(names)
    trained = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)
        if name in wanted:
            parameter.data = parameter.data.float()
            trained.append((name, parameter))
    return trained


def add_lora(
    model: Any, rank: int, seed: int, within: Callable[[str], bool] | None = None
) -> list[tuple[str, torch.nn.Parameter]]:
    """A LoRA on every attention projection, or on those `within`, through PEFT. Returns its parameters by name."""
    from peft import LoraConfig

    if not hasattr(model, "add_adapter"):
        raise TrainError(f"{type(model).__name__} takes no LoRA in diffusers (it is no PeftAdapterMixin)")
    model.requires_grad_(False)
    targets = list(LORA_TARGETS)
    if within is not None:
        targets = [name for name, _ in model.named_modules() if within(name) and name.endswith(LORA_TARGETS)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for _, parameter in trained:
        parameter.data = parameter.data.float()
    return trained
