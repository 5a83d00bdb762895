"""The loop: noise, predict, compare, step. What trains was chosen before; what is shown is the caller's part.

    loss = mean of (model(noisy, timestep, text) - target)^2

Everything random follows from (seed, step), see `batch`, so a stopped run goes on bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from diffusers.training_utils import EMAModel

from modelgrow.pipelines.memory import peak_bytes, reset_peak
from modelgrow.surgery import TrainError

from . import alarm
from .objectives.objective import mean_error
from .optimizer import make_optimizer, make_schedule
from .progress import EDGE, Progress
from .state import load_state, save_state
from .trunk import Trunk, replayed
from .validate import Validation
from .watch import Watch
from .zero import OnlyTrained, is_zero

if TYPE_CHECKING:
    from pathlib import Path

    from .batch import Batch
    from .setup import Run


@dataclass(kw_only=True)
class Loop:
    """One run's training state."""

    run: Run
    report: Callable[[Progress], None]
    preview: Callable[[int], None] | None = None
    step: int = 0
    trunk: Trunk | None = None
    best_loss: float = float("inf")
    best_step: int = 0
    changed: alarm.Changed | None = None
    losses: list[float] = field(default_factory=list)
    """Of this session's steps."""
    average: float | None = None
    """The running loss, over about the last 50 steps."""
    first_loss: float | None = None
    """Mean of the whole run's first steps, 20 of them at most."""
    validation: float | None = None
    seconds: float = 0.0
    """Spent on training in all sessions."""
    peak: int = 0
    """Bytes that steps took on a GPU, what comes between them left out; 0 elsewhere."""
    adam: torch.optim.Optimizer = field(init=False)
    """torch's or bitsandbytes', without what accelerate wraps around it."""

    def __post_init__(self) -> None:
        run, settings = self.run, self.run.settings
        optimizer = make_optimizer([parameter for _, parameter in run.trained], settings)
        if settings.compile:  # not before the memory is predicted: what runs on fake tensors is never compiled again
            run.model.compile_repeated_blocks()
        model = run.model
        if is_zero(run.accelerator):
            model = OnlyTrained(run.model, [parameter for _, parameter in run.trained], run.autocast)
        self.model, self.optimizer = run.accelerator.prepare(model, optimizer)
        self.adam = optimizer
        held = dict(run.model.named_parameters())  # FSDP2 puts parts in the place of whole ones
        run.trained = [(name, held[name]) for name in self.names]
        self.parameters = [parameter for _, parameter in run.trained]
        self.ema = EMAModel(self.parameters, decay=settings.ema_decay) if settings.ema_decay else None
        self.held_out = Validation(loop=self) if run.held_out else None
        load_state(self)
        self.schedule = make_schedule(self.adam, settings, done=self.step)

    @property
    def folder(self) -> Path:
        return self.run.folder / "checkpoints"

    def train(self) -> None:
        """Run to the last step. Raises `TrainError` if the loss is not finite or nothing changes."""
        settings = self.run.settings
        watch = Watch(self) if self.step == 0 else None
        self._validate(settings.validate_every)
        begun, first, before = time.monotonic(), self.step, self.seconds
        while self.step < settings.steps:
            loss = self._measured()
            self.step += 1
            self.seconds = before + time.monotonic() - begun
            self._note(loss, self.seconds - before, first)
            self._validate(settings.validate_every)
            if watch and self.step == min(settings.alarm_after, settings.steps):
                self.changed = watch.look()
                alarm.check(self.changed, self.step)
            if self.step % settings.save_every == 0 or self.step == settings.steps:
                save_state(self)
            if self.preview and settings.preview_every and self.step % settings.preview_every == 0:
                self.preview(self.step)

    def _measured(self) -> float:
        """A step, with its peak on a GPU. Previews and held-out clips have peaks of their own, not predicted."""
        device = self.run.accelerator.device
        if device.type != "cuda":
            return self._optimize()
        reset_peak(device)
        loss = self._optimize()
        self.peak = max(self.peak, peak_bytes(device))
        return loss

    def _optimize(self) -> float:
        """One optimizer step over `accumulate` batches. Returns their mean loss over all processes."""
        run, settings = self.run, self.run.settings
        total = 0.0
        for micro in range(settings.accumulate):
            number = self.step * settings.accumulate + micro
            batch = self.batch(number)
            with run.accelerator.accumulate(self.model):
                loss = self.loss(batch, number)
                run.accelerator.backward(loss)
                if run.accelerator.sync_gradients:
                    run.accelerator.clip_grad_norm_(self.parameters, settings.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total += run.accelerator.gather(loss.detach()).mean().item()
        self.schedule.step()
        if self.ema:
            self.ema.step(self.parameters)
        mean = total / settings.accumulate
        if not math.isfinite(mean):
            raise TrainError(
                f"the loss of step {self.step + 1} is {mean}; lower the learning rate ({settings.learning_rate}), or "
                "train in another precision"
            )
        return mean

    def batch(self, number: int) -> Batch:
        return self.run.batch(number)

    def loss(self, batch: Batch, number: int) -> torch.Tensor:
        """Mean squared error of the prediction, in float32."""
        device = self.run.accelerator.device
        if self.trunk:
            batch, streams = self.trunk.sample(batch, number)
            placed = tuple(stream.to(device, self.dtype) for stream in streams)
            with replayed(self.run.model, self.trunk.stack, self.trunk.depth, placed):
                return self.error(batch)
        return self.error(batch)

    def error(self, batch: Batch) -> torch.Tensor:
        device = self.run.accelerator.device
        latents, noise = batch.latents.to(device), batch.noise.to(device)
        levels = batch.levels.to(device)
        target = self.run.objective.target(latents, noise, levels)
        return mean_error(self.run.objective, self.predict(batch).float(), target, levels)

    def predict(self, batch: Batch) -> torch.Tensor:
        """The model's answer, shape (B, C, F, h, w)."""
        run = self.run
        device = run.accelerator.device
        dtype = self.dtype
        levels = batch.levels.to(device)
        noisy = run.objective.noisy(batch.latents.to(device), batch.noise.to(device), levels)
        text = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in batch.text.items()}
        with run.accelerator.autocast():
            return run.family.predict(run.pipeline, self.model, noisy.to(dtype), run.objective.timesteps(levels), text)

    def _validate(self, every: int) -> None:
        if self.held_out and (self.step % every == 0 or self.step == self.run.settings.steps):
            self.validation = self.held_out.loss()
            self.run.accelerator.log({"validation_loss": self.validation}, step=self.step)

    def _note(self, loss: float, seconds: float, first: int) -> None:
        settings = self.run.settings
        self.losses.append(loss)
        if first == 0 and len(self.losses) <= EDGE:
            self.first_loss = sum(self.losses) / len(self.losses)
        self.average = loss if self.average is None else 0.98 * self.average + 0.02 * loss
        samples = settings.batch_size * settings.accumulate * self.run.accelerator.num_processes
        rate = self.optimizer.param_groups[0]["lr"]
        self.report(
            Progress(
                step=self.step,
                steps=settings.steps,
                loss=self.average,
                validation=self.validation,
                learning_rate=rate,
                samples_per_second=samples * (self.step - first) / seconds,
                memory=self.peak,
                seconds=seconds,
                seconds_left=seconds / (self.step - first) * (settings.steps - self.step),
            )
        )
        self.run.accelerator.log({"loss": loss, "learning_rate": rate}, step=self.step)

    @property
    def dtype(self) -> torch.dtype:
        return self.run.dtype

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.run.trained]
