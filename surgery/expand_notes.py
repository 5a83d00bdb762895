"""What a user should know of a deeper model, whichever way its blocks were copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .anatomy import Anatomy, Stack
    from .order import ExpandOptions


def of_init(options: ExpandOptions) -> list[str]:
    """That a plain copy changes the function."""
    return ["init copy: the grown model does NOT compute the base's function"] if options.init == "copy" else []


def of_other_stacks(anatomy: Anatomy, stack: Stack, options: ExpandOptions) -> list[str]:
    """What else could have grown, where nobody has chosen."""
    others = [other.name for other in anatomy.stacks if other.name != stack.name]
    if options.stack is not None or not others:
        return []
    return [f"grows {stack.name}; also there, with --stack: {', '.join(others)}"]
