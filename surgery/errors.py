"""What can go wrong, in one family.

Every error a user can cause derives from `GrowError` and also from the standard class it stands
in for, so that a script may catch either. A message names the file or key, says what was found,
what was expected, and what to do.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with everything escaped that a terminal could take for a command: names in files can hold anything."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """What another library's error says first; its name if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class GrowError(Exception):
    """Base of all errors that modelgrow raises on purpose. Its message is one line, safe to print."""

    def __str__(self) -> str:
        return printable(super().__str__())


class CheckpointError(GrowError, ValueError):
    """A checkpoint is damaged, incomplete, or not what it says it is."""


class SourceError(GrowError, FileNotFoundError):
    """There is no checkpoint where one was named."""


class AnatomyError(GrowError, ValueError):
    """An architecture's declaration is wrong, or does not fit the checkpoint."""


class PlanError(GrowError, ValueError):
    """An operation can't be done as asked, or its plan does not fit its checkpoint."""


class OutputError(GrowError, OSError):
    """The output can't be written: it exists, or the disk is full, or the place is wrong."""


class VerifyError(GrowError, RuntimeError):
    """Two models can't be compared."""


class GenerateError(GrowError, RuntimeError):
    """A pipeline can't be loaded, or can't make what was asked for."""


class TrainError(GrowError, RuntimeError):
    """A run can't be set up, or did not do what a run must do."""


class DataError(GrowError, ValueError):
    """A data set, or a clip of it, can't be trained on."""
