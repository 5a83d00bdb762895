"""Where new blocks go: ModelGrow's modes (arXiv 2412.18966, figure 2 b, c, d).

With N blocks o[0..N-1], P new ones and groups of M:

    insert   for every group: its M originals, then P*M/N copies of the group's last
    prefix   P copies of o[0], then all originals
    suffix   all originals, then P copies of o[N-1]
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import PlanError

MODES = ("insert", "prefix", "suffix")
INITS = ("zero", "copy")
MAX_BLOCKS = 10_000
"""New blocks of one growth; the deepest published stack has some hundred blocks."""


@dataclass(frozen=True, kw_only=True)
class ExpandOptions:
    """What to grow and by how much. None means the default that `resolve` works out from the depth."""

    mode: str
    blocks: int | None = None
    """P, the number of new blocks; in a stack that stands in many places, in each of them."""
    group: int | None = None
    """M, the size of a group; for insert only."""
    stack: str | None = None
    init: str = "zero"
    """"zero" keeps the function; "copy" leaves the copies as they are, and does not."""
    allow_inexact: bool = False
    """Grow even where the architecture makes the copy inexact."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The blocks of the output: for each, the block of the input it is, and whether it is a new copy of it."""

    sources: tuple[int, ...]
    is_new: tuple[bool, ...]

    @property
    def index_map(self) -> tuple[int, ...]:
        return tuple(place for place, new in enumerate(self.is_new) if not new)

    @property
    def copied_from(self) -> dict[int, int]:
        return {place: self.sources[place] for place, new in enumerate(self.is_new) if new}


def resolve(options: ExpandOptions, depth: int) -> tuple[int, int]:
    """P and M for a stack of `depth` blocks, defaults filled in.

    insert doubles the depth, as the paper does, or puts one copy into every group of M; prefix and
    suffix add a quarter.

    Raises:
        PlanError: An unknown mode, a number that is not positive, or groups that do not come out even.
    """
    mode, blocks, group = options.mode, options.blocks, options.group
    if mode not in MODES:
        raise PlanError(f"unknown mode {mode!r}; choose from {', '.join(MODES)}")
    if options.init not in INITS:
        raise PlanError(f"unknown init {options.init!r}; choose from {', '.join(INITS)}")
    if blocks is not None and blocks < 1:
        raise PlanError(f"--blocks is {blocks}; at least 1 block must be new")
    if blocks is not None and blocks > MAX_BLOCKS:
        raise PlanError(f"--blocks is {blocks}; no more than {MAX_BLOCKS} can be new at a time")
    if mode != "insert":
        if group is not None:
            raise PlanError(f"--group belongs to --mode insert; {mode} adds all its blocks in one place")
        return blocks or max(depth // 4, 1), depth
    if group is not None and (group < 1 or depth % group):
        raise PlanError(f"--group {group} does not divide the {depth} blocks; choose from {_divisors(depth)}")
    if blocks is None:
        group = group or 1
        return depth // group, group
    if group is None:
        if blocks % depth and depth % blocks:
            raise PlanError(
                f"--blocks {blocks} can't be spread evenly over {depth} blocks; "
                f"choose from {_divisors(depth)}, a multiple of {depth}, or say --group"
            )
        group = max(depth // blocks, 1)
    if blocks * group % depth:
        raise PlanError(
            f"--blocks {blocks} is not a whole number of copies for each of the {depth // group} groups of {group}; "
            f"choose a multiple of {depth // group}"
        )
    return blocks, group


def order_blocks(mode: str, *, depth: int, blocks: int, group: int) -> Order:
    """ModelGrow's rule: N = `depth`, P = `blocks`, M = `group`."""
    originals = [(i, False) for i in range(depth)]
    if mode == "prefix":
        places = [(0, True)] * blocks + originals
    elif mode == "suffix":
        places = originals + [(depth - 1, True)] * blocks
    else:
        copies = blocks * group // depth
        places = []
        for first in range(0, depth, group):
            places += originals[first : first + group] + [(first + group - 1, True)] * copies
    return Order(sources=tuple(i for i, _ in places), is_new=tuple(new for _, new in places))


def _divisors(number: int) -> str:
    return ", ".join(str(i) for i in range(1, number + 1) if number % i == 0)
