"""Whether a model in memory is the base that a growth was made from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import GrowError, SourceError, open_checkpoint
from modelgrow.surgery.fingerprint import Sampled, fingerprint, fingerprint_of

from .dtypes import STORED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelgrow.surgery.packed import PackedComponent

_log = logging.getLogger(__name__)


def check_base(
    model: Any, state: Mapping[str, torch.Tensor], names: Mapping[str, str], part: PackedComponent, *, where: str
) -> None:
    """Compare fingerprints: of the tensors in memory if they are as they were stored, else of the files they came from.

    Args:
        model: The loaded model.
        state: Its tensors, those that the base's files hold.
        names: The grown model's carried tensors -> the base's.
        part: The growth of it.
        where: For the message.

    Raises:
        SourceError: It is another model.
    """
    base = part.record.base
    if all(STORED.get(state[name].dtype) == part.expected[key][0] for key, name in names.items()):
        found = fingerprint(_sampled(state))
    else:
        folder = Path(str(getattr(model.config, "_name_or_path", "")) or "-")
        try:
            found = fingerprint_of(open_checkpoint(folder))
        except GrowError:
            _log.warning(
                "%s: the weights are in another dtype than %s was stored in, and its folder is not known, so that only "
                "names and shapes could be checked",
                where,
                base.name,
            )
            return
    if found != base.fingerprint:
        raise SourceError(
            f"{where} has other weights ({found}) than {base.name} ({base.fingerprint}), from which the growth was made"
        )


def _sampled(state: Mapping[str, torch.Tensor]) -> list[Sampled]:
    return [
        Sampled(name=name, dtype=STORED[tensor.dtype], shape=tuple(tensor.shape), read=_reader(tensor))
        for name, tensor in state.items()
        if tensor.dtype in STORED
    ]


def _reader(tensor: torch.Tensor) -> Callable[[int, int], bytes]:
    def read(start: int, count: int) -> bytes:
        data = tensor.detach().contiguous().flatten().view(torch.uint8)[start : start + count]
        return data.cpu().numpy().tobytes()

    return read
