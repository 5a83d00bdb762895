"""What generated classes are called: "Grown" and the stock class's name, see `modelgrow.pipelines.grown`."""

from __future__ import annotations

PREFIX = "Grown"


def stock_name(name: str) -> str:
    """The stock class that a generated class grew from; any other name is its own."""
    return name.removeprefix(PREFIX)


def grown_name(name: str) -> str:
    """The generated class of a stock one, or of one that is generated already."""
    return PREFIX + stock_name(name)
