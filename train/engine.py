"""accelerate, the engine of a run: one process or many, with the precision that the settings ask for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, ProjectConfiguration

from modelgrow.surgery import TrainError

from .optimizer import check_optimizer
from .zero import configure, is_asked_for, is_zero

if TYPE_CHECKING:
    from .settings import Settings


def make_accelerator(settings: Settings) -> Accelerator:
    """accelerate's, as `accelerate launch` or its own config set it up. Raises `TrainError` without the tracker."""
    if settings.tracker != "none" and settings.tracker not in map(str, get_available_trackers()):
        known = ", ".join(sorted(str(kind) for kind in LoggerType if kind is not LoggerType.ALL))
        raise TrainError(
            f"tracker {settings.tracker} is not installed: pip install {settings.tracker}, or choose "
            f"tensorboard or none (accelerate knows {known})"
        )
    tracker = settings.tracker if settings.tracker != "none" else None
    accelerator = Accelerator(
        mixed_precision="no" if is_asked_for() else precision_of(settings),
        gradient_accumulation_steps=settings.accumulate,
        log_with=tracker,
        project_config=ProjectConfiguration(project_dir=settings.output, logging_dir=f"{settings.output}/logs"),
        step_scheduler_with_optimizer=False,
    )
    configure(accelerator, settings)
    check_optimizer(accelerator, settings)
    return accelerator


def precision_of(settings: Settings) -> str:
    """Of the arithmetic, with "auto" decided."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if torch.cuda.is_available() else "no"


def autocast(accelerator: Accelerator, settings: Settings) -> AbstractContextManager[Any]:
    """What a forward pass stands in. With DeepSpeed accelerate leaves that to others, see `zero`."""
    if is_zero(accelerator) and precision_of(settings) == "bf16":
        return torch.autocast(accelerator.device.type, torch.bfloat16)
    found: AbstractContextManager[Any] = accelerator.autocast()
    return found
