"""Loading bars and advice of libraries would break into the output of programs; errors still show."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOGGERS = ("torchao", "bitsandbytes", "torch.utils._pytree")
"""What diffusers loads where it is installed, and what it says of it."""
WARNINGS = ("Mismatch dtype between input and weight",)
"""Of torch: a norm that trains is in float32, its input in bfloat16, which takes two kernels and not one."""


def quiet_libraries() -> None:
    """For a program's own processes, before anything else is imported. A library should not call this."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1" if not sys.stderr.isatty() else "0")
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


@contextmanager
def quietly() -> Iterator[None]:
    """No bars and no advice while components load, unless the user turned the libraries' logging up."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    if diffusers_logging.get_verbosity() <= logging.INFO:
        yield
        return
    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    verbosities = [library.get_verbosity() for library in libraries]
    barred = [library for library in libraries if library.is_progress_bar_enabled()]
    try:
        for library in libraries:
            library.set_verbosity_error()
        for library in barred:
            library.disable_progress_bar()
        yield
    finally:
        for library, verbosity in zip(libraries, verbosities, strict=True):
            library.set_verbosity(verbosity)
        for library in barred:
            library.enable_progress_bar()
