"""Loading bars and advice of libraries would break into the output of programs; errors still show."""

from __future__ import annotations

import logging
import os
import sys
import warnings

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
