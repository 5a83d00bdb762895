"""Optimizer and schedule, from torch, bitsandbytes and diffusers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from diffusers.optimization import get_scheduler

from modelgrow.surgery import TrainError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .settings import Settings


def make_optimizer(parameters: list[torch.nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """AdamW over float32 parameters. Raises `TrainError` if the 8-bit one is asked for and not installed."""
    kwargs: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw8bit":
        try:
            library = import_module("bitsandbytes.optim")
        except ImportError as error:
            raise TrainError(
                "optimizer adamw8bit needs bitsandbytes, which is not installed: pip install bitsandbytes"
            ) from error
        eight: torch.optim.Optimizer = library.AdamW8bit(parameters, **kwargs)
        return eight
    return torch.optim.AdamW(parameters, **kwargs)


def make_schedule(optimizer: torch.optim.Optimizer, settings: Settings, *, done: int = 0) -> Any:
    """The learning rate by optimizer step, `done` steps on: a pure function of the step, so nothing is saved of it."""
    schedule = get_scheduler(
        settings.schedule,
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=settings.steps,
    )
    rates = schedule.lr_lambdas
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = settings.learning_rate * rate(done)
    schedule.last_epoch = done
    return schedule


def check_optimizer(accelerator: Accelerator, settings: Settings) -> None:
    """Raises `TrainError` where the optimizer can't step what FSDP2 has split."""
    if settings.optimizer == "adamw8bit" and accelerator.is_fsdp2:
        raise TrainError("optimizer adamw8bit with FSDP2: bitsandbytes can't step split parameters; use adamw, or DDP")
