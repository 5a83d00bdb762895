"""Stored tables and frequencies of positions, made longer: the only tensors that `extend-frames` computes.

Shape letters: N rows that are there, M rows that are wanted, C width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .errors import PlanError

if TYPE_CHECKING:
    from .tensor import Tensor

_SAME = 0.02
"""How far a stored row may be from the formula's: bfloat16 keeps 8 bits of a number up to 1."""


def continued(tensor: Tensor, rows: int, name: str) -> bytes:
    """(1, M, C): the N rows as they are stored, byte for byte, and the formula's own next ones.

    Raises:
        PlanError: The stored rows are not sines of 0, 1, 2 and so on, or are of an unknown dtype.
    """
    import numpy as np

    count, stored = tensor.shape[1], _decode(tensor, name)[0]
    formulas = [_sines(rows, tensor.shape[2], apart=apart) for apart in (False, True)]
    formula = min(formulas, key=lambda table: np.abs(stored - table[:count]).max())
    if np.abs(stored - formula[:count]).max() > _SAME:
        raise PlanError(
            f"{name!r} holds no sines, so no formula says how it goes on (was it trained?). "
            "--method interpolate stretches its rows"
        )
    return tensor.read() + _encode(formula[count:], tensor.dtype)


def stretched(tensor: Tensor, rows: int, first: int, name: str) -> bytes:
    """(1, M, C): the first `first` rows stretched over M, linear between the two around. Raises as above."""
    import numpy as np

    table = _decode(tensor, name)[0, :first]
    places = np.linspace(0, first - 1, rows)
    below = np.minimum(np.floor(places).astype(int), first - 1)
    above, share = np.minimum(below + 1, first - 1), (places - below)[:, None]
    return _encode(table[below] * (1 - share) + table[above] * share, tensor.dtype)


def slowed(tensor: Tensor, factor: float, name: str) -> bytes:
    """Frequencies (3, ...) for time, height and width: those for time divided by `factor`. Raises as above."""
    values = _decode(tensor, name)
    values[0] /= factor
    return _encode(values, tensor.dtype)


def _sines(rows: int, width: int, *, apart: bool) -> Any:
    """(M, C): sine and cosine of row / 10000^(2j / C), in turns (AnimateDiff), or all sines first (`apart`, STDiT)."""
    import numpy as np

    angles = np.arange(rows)[:, None] * np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    if apart:
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    table = np.zeros((rows, width))
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table


def _decode(tensor: Tensor, name: str) -> Any:
    """The values as float64."""
    import numpy as np

    if tensor.dtype == "BF16":
        words = np.frombuffer(tensor.read(), dtype="<u2").astype("<u4") << 16
        values = words.view("<f4")
    elif tensor.dtype in ("F16", "F32", "F64"):
        values = np.frombuffer(tensor.read(), dtype=f"<f{int(tensor.dtype[1:]) // 8}")
    else:
        raise PlanError(f"{name!r} is {tensor.dtype}; expected F32, F16 or BF16. Save the model in one of them")
    return values.astype(np.float64).reshape(tensor.shape)


def _encode(values: Any, dtype: str) -> bytes:
    if dtype != "BF16":
        return bytes(values.astype(f"<f{int(dtype[1:]) // 8}").tobytes())
    words = values.astype("<f4").view("<u4")
    return bytes(((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype("<u2").tobytes())  # to the nearest, even at ties
