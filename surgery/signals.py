"""Signals that end a process, and the cleaning up before it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def exits_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as `sys.exit` does, so that everything is cleaned up on the way.

    Only in the main thread, where Python handles signals, and only those that nobody else handles.
    """
    if not _is_main():
        yield
        return
    numbers = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Let the signals that end a process, an interrupt too, wait for the end of the block."""
    if not _is_main():
        yield
        return
    seen: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ENDING)}
    ours = {number: handler for number, handler in handlers.items() if handler is not None}  # None: not Python's
    for number in ours:
        signal.signal(number, lambda number, frame: seen.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    for late in seen:
        signal.raise_signal(late)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
