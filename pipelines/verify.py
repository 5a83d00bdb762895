"""Is a grown model still the same function? Run both on the same random inputs and compare to the bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

from modelgrow.surgery import CheckpointError, Source, VerifyError, open_source
from modelgrow.surgery.compare import broken_promises
from modelgrow.surgery.grown import stock_name

from .dtypes import DTYPES
from .models import load_model
from .probes import RECIPES, random_inputs, run_model
from .probes.recipe import Config
from .verdict import ComponentVerdict, VerifyReport

if TYPE_CHECKING:
    from pathlib import Path

    from modelgrow.surgery import Checkpoint, Component

    _Pair = tuple[str, Checkpoint, Checkpoint]
    """What a component is called, the grown one and its base."""


def verify(
    grown: str | Path,
    base: str | Path,
    *,
    draws: int = 3,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "cpu",
    report: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Compare every component that both hold and that can grow. One model is in memory at a time.

    Args:
        grown: Folder, file or Hub id.
        base: What it was grown from, likewise.
        draws: Random inputs to try.
        seed: Of the first draw.
        dtype: "float32", "bfloat16" or "float16"; "auto" is float32, which shows the smallest fault, or
            the stored dtype where the model would not fit into memory.
        device: Where to run, as torch has it.
        report: Told what is going on, a line each.

    Raises:
        GrowError: One of them can't be opened or built, or they have nothing in common.
    """
    if draws < 1:
        raise VerifyError(f"draws is {draws}; at least one input is needed")
    if dtype != "auto" and dtype not in DTYPES:
        raise VerifyError(f"unknown dtype {dtype!r}; choose from auto, {', '.join(DTYPES)}")
    pairs = _open(str(grown), str(base))
    verdicts = []
    for name, new, old in pairs:
        if stock_name(str(new.class_name)) not in RECIPES:
            verdicts.append(_unrun(name, new, old))
            continue
        kind = DTYPES[dtype] if dtype != "auto" else _auto_dtype(new, device)
        tell = report or (lambda _: None)
        tell(f"{name or new.class_name}: running the base")
        expected, config = _run(old, draws, seed, kind, device)
        tell(f"{name or new.class_name}: running the grown model")
        found, _ = _run(new, draws, seed, kind, device, config)
        tell(f"{name or new.class_name}: comparing the weights with the record")
        verdicts.append(_verdict((name, new, old), expected, found, kind, draws))
    return VerifyReport(components=tuple(verdicts))


def _open(grown: str, base: str) -> list[_Pair]:
    """What is to be compared: found by headers, and then downloaded where it is on the Hub."""
    new, old = (open_source(name, headers_only=True) for name in (grown, base))
    pairs = _pairs(new, old)
    return _pairs(
        _with_weights(grown, new, [pair[1] for pair in pairs]), _with_weights(base, old, [pair[2] for pair in pairs])
    )


def _with_weights(name: str, source: Source, checkpoints: Iterable[Checkpoint]) -> Source:
    missing = source.holding(tensor for checkpoint in checkpoints for tensor in checkpoint.tensors.values())
    return open_source(name, revision=source.commit, headers_only=True, fetch=missing) if missing else source


def _pairs(grown: Source, base: Source) -> list[_Pair]:
    """Components by the same name; where one side is a single component, by the same class."""
    pairs = []
    for new in grown.components:
        for old in base.components:
            same = new.name == old.name or "" in (new.name, old.name)
            known = old.class_name in _classes(new) and (new.class_name in RECIPES or _has_grown(new))
            if same and known and new.checkpoint and old.checkpoint:
                pairs.append((new.name or old.name, new.checkpoint, old.checkpoint))
                break
    if not pairs:
        for part in (*grown.components, *base.components):
            if part.checkpoint is not None and not part.checkpoint.config:
                raise VerifyError(
                    f"{part.checkpoint.path}: there is no config.json beside it, so its architecture is unknown. Put "
                    "the model's config.json there"
                )
        classes = [", ".join(c.class_name for c in side.components) for side in (grown, base)]
        raise VerifyError(
            f"nothing to compare: {grown.name} holds {classes[0] or 'nothing'}, {base.name} holds "
            f"{classes[1] or 'nothing'}; both need a component of the same class, one that can grow"
        )
    return pairs


def _classes(component: Component) -> tuple[str, ...]:
    """What a component is, and what it was before its growth gave it another class."""
    record = component.checkpoint.record if component.checkpoint else None
    own = (component.class_name, stock_name(component.class_name))
    return (*own, record.base.class_name) if record else own


def _has_grown(component: Component) -> bool:
    return component.checkpoint is not None and component.checkpoint.record is not None


def _unrun(name: str, grown: Checkpoint, base: Checkpoint) -> ComponentVerdict:
    """What the record alone can tell of a class whose inputs nobody declared."""
    return ComponentVerdict(
        name=name,
        class_name=str(grown.class_name),
        dtype="none",
        draws=0,
        max_difference=None,
        output_scale=0.0,
        promises=_promises(grown, base),
    )


def _run(
    checkpoint: Checkpoint, draws: int, seed: int, dtype: torch.dtype, device: str, config: Config | None = None
) -> tuple[list[torch.Tensor], Config]:
    """Outputs on random inputs, and the model's config. The inputs are drawn for `config` if one is given: those of an
    extended model would be longer clips than its base's."""
    model = load_model(checkpoint, dtype=dtype, device=device)
    drawn_for = {**(config or model.config), "llm_slot": model.config.get("llm_slot")}
    outputs = []
    for draw in range(draws):
        inputs = random_inputs(
            str(checkpoint.class_name),
            drawn_for,
            seed=seed + draw,
            device=torch.device(device),
            dtype=dtype,
        )
        outputs += [output.float().cpu() for output in run_model(model, inputs)]
    return outputs, model.config


def _verdict(
    pair: _Pair,
    expected: list[torch.Tensor],
    found: list[torch.Tensor],
    dtype: torch.dtype,
    draws: int,
) -> ComponentVerdict:
    name, grown, base = pair
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape:
            raise VerifyError(f"{name}: the base's output has shape {tuple(a.shape)}, the grown one's {tuple(b.shape)}")
        if not a.isfinite().all():
            raise VerifyError(f"{name}: the base's own output is not finite in {dtype}; try --dtype float32")
    differences = [
        (a - b).abs().nan_to_num(nan=float("inf")).max().item() for a, b in zip(expected, found, strict=True)
    ]
    return ComponentVerdict(
        name=name,
        class_name=str(grown.class_name),
        dtype=str(dtype).removeprefix("torch."),
        draws=draws,
        max_difference=max(differences),
        output_scale=max(a.abs().max().item() for a in expected),
        promises=_promises(grown, base),
    )


def _promises(grown: Checkpoint, base: Checkpoint) -> tuple[str, ...] | None:
    try:
        return broken_promises(grown, base)
    except CheckpointError:
        return None


def _auto_dtype(checkpoint: Checkpoint, device: str) -> torch.dtype:
    if device.startswith("cuda"):
        memory = torch.cuda.mem_get_info(device)[0]
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if checkpoint.num_parameters * 4 < memory * 0.6:
        return torch.float32
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(next(iter(checkpoint.dtypes), ""), torch.bfloat16)
