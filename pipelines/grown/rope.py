"""RoPE for longer clips: frequencies in, frequencies out.

A frequency is what one step in time turns a pair of channels by, in radians; there are d/2 of them for d channels. RoPE
has theta^(-2j/d), j from 0 (RoFormer, arXiv 2104.09864). Positions count latent frames, or patches of them.

Letters: N, the positions of a clip that the base was trained on; L, those of the longer clip; s = L / N.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TURNS = (1.0, 32.0)
"""YaRN's alpha and beta: below the first a frequency is stretched, above the second it stays (its section 3.2)."""
RIFLEX_MARGIN = 0.9
"""Of a full turn: what RIFLEx lets its frequency do in the whole clip."""


def frequencies(dim: int, theta: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """RoPE's own: (dim / 2,), the fastest first."""
    return 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=dtype) / dim))


def interpolate(freqs: Tensor, trained: int, wanted: int) -> Tensor:
    """Position interpolation (arXiv 2306.15595, equation 4): position p becomes p / s, all of them in the old range."""
    return freqs * (trained / wanted)


def ntk(freqs: Tensor, trained: int, wanted: int) -> Tensor:
    """NTK-aware scaling: theta becomes theta * s^(d / (d - 2)) (YaRN, arXiv 2309.00071, equation 6 with its text).

    Written out, frequency j of d/2 is divided by s^(j / (d/2 - 1)): the fastest stays, the slowest is interpolated. In
    this form it also holds for frequencies that are spaced evenly in the logarithm and are not RoPE's own.
    """
    if len(freqs) == 1:
        return freqs.clone()
    exponents = torch.arange(len(freqs), dtype=freqs.dtype) / (len(freqs) - 1)
    return freqs * (trained / wanted) ** exponents


def yarn(freqs: Tensor, trained: int, wanted: int) -> Tensor:
    """YaRN's "NTK by parts" (arXiv 2309.00071, section 3.2): slow frequencies are interpolated, fast ones stay.

    r = N f / (2 pi) is how often a frequency turns in a trained clip; g(r) is 0 below alpha = 1, 1 above beta = 32 and
    linear between; f becomes (1 - g) f / s + g f. The paper's temperature (0.1 ln(s) + 1 on queries and keys, section
    3.3) is left out: it scales whole dot products, in which here height, width and, in some models, the text have a
    part too, and what they were trained to would change with the length of the clip.
    """
    turns = freqs * trained / (2 * math.pi)
    keep = ((turns - TURNS[0]) / (TURNS[1] - TURNS[0])).clamp(0, 1)
    return (1 - keep) * interpolate(freqs, trained, wanted) + keep * freqs


def riflex(freqs: Tensor, trained: int, wanted: int) -> Tensor:
    """RIFLEx (arXiv 2502.15894): the frequency that would make the clip begin anew turns less than once in all of it.

    That is the one whose period is nearest to N; it becomes 0.9 * 2 pi / L, if L is longer than its period. All
    others stay.
    """
    number, period = intrinsic(freqs, trained)
    chosen = (torch.arange(len(freqs)) == number) & (period < wanted)
    return torch.where(chosen, torch.full_like(freqs, RIFLEX_MARGIN * 2 * math.pi / wanted), freqs)


def intrinsic(freqs: Tensor, trained: int) -> tuple[Tensor, Tensor]:
    """The number, from 0, of the frequency whose period is nearest to `trained`, and that period in whole positions.

    In the paper's terms k - 1 and N_k. Both are scalars.
    """
    periods = _periods(freqs)
    number = (periods - trained).abs().argmin()
    # Not periods[number], which a compiler that captures scalars, as accelerate asks it to, takes for an unknown size.
    return number, periods.take(number)


def _periods(freqs: Tensor) -> Tensor:
    return (2 * math.pi / freqs.double()).round()


Method = Callable[[Tensor, int, int], Tensor]
METHODS: dict[str, Method] = {"interpolate": interpolate, "ntk": ntk, "yarn": yarn, "riflex": riflex}


def factors(method: str, freqs: Tensor, trained: int, wanted: int) -> Tensor:
    """What a method multiplies each frequency by, for a clip of `wanted` positions; ones if that is no longer."""
    if method == "none" or wanted <= trained:
        return torch.ones_like(freqs)
    return METHODS[method](freqs, trained, wanted) / freqs
