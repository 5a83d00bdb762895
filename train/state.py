"""Where a loop stands: what trains, the optimizer, the averages and the step, into a checkpoint and out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import TrainError

from . import checkpoints, zero
from .sharded import split_like, split_state, whole, whole_state
from .zero import is_zero

if TYPE_CHECKING:
    from .loop import Loop


def save_state(loop: Loop) -> None:
    """Write a checkpoint, and remove those that are not kept. Every process has to call it."""
    run = loop.run
    judged = loop.average if loop.validation is None else loop.validation
    if judged is not None and judged < loop.best_loss:
        loop.best_loss, loop.best_step = judged, loop.step
    averaged = dict(zip(loop.names, loop.ema.shadow_params, strict=True)) if loop.ema else {}
    state = checkpoints.State(
        step=loop.step,
        trained={name: whole(parameter) for name, parameter in run.trained},
        optimizer=_optimizer_state(loop),
        ema={name: whole(value) for name, value in averaged.items()},
        best_loss=loop.best_loss,
        best_step=loop.best_step,
        average=loop.average,
        first_loss=loop.first_loss,
        seconds=loop.seconds,
    )
    if run.accelerator.is_main_process:
        checkpoints.save(loop.folder, state)
        checkpoints.prune(loop.folder, keep=run.settings.keep, best=loop.best_step)
    run.accelerator.wait_for_everyone()


def load_state(loop: Loop) -> None:
    """Go on from the last checkpoint, if there is one. Raises `TrainError` if it is of other parameters."""
    found = checkpoints.all_of(loop.folder)
    if not found:
        return
    state = checkpoints.load(found[-1])
    if set(state.trained) != set(loop.names):
        raise TrainError(
            f"{found[-1]}: holds other parameters than this run trains; choose another -o, or the settings it had"
        )
    with torch.no_grad():
        for name, parameter in loop.run.trained:
            parameter.copy_(split_like(state.trained[name], parameter))
    if is_zero(loop.run.accelerator):
        zero.load_state(loop.optimizer.optimizer, state.optimizer, loop.parameters)
    else:
        loop.adam.load_state_dict(split_state(state.optimizer, loop.parameters))
    if loop.ema:
        loop.ema.shadow_params = [split_like(state.ema[name], p) for name, p in loop.run.trained]
        loop.ema.optimization_step = state.step
    loop.step, loop.best_loss, loop.best_step = state.step, state.best_loss, state.best_step
    loop.average, loop.first_loss, loop.seconds = state.average, state.first_loss, state.seconds


def _optimizer_state(loop: Loop) -> dict[str, Any]:
    if is_zero(loop.run.accelerator):
        return zero.whole_state(loop.adam, loop.parameters)
    return whole_state(loop.adam.state_dict())
