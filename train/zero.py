"""DeepSpeed's ZeRO, stages 1 and 2: each process keeps the optimizer's state of its share of what trains.

DeepSpeed is shown the trained parameters alone. So the frozen ones may have any dtype, are not sent around, and cost it
nothing; arithmetic in bf16 is torch's autocast, and what trains stays float32, as in a run without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType

from modelgrow.surgery import TrainError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .settings import Settings

MOMENTS = ("exp_avg", "exp_avg_sq")
SIZED_BY_HIDDEN = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
"""Settings whose "auto" accelerate works out from a `hidden_size` that diffusers' models do not have."""


def is_asked_for() -> bool:
    """Whether `accelerate launch` was told to use DeepSpeed. Raises `TrainError` if it is not installed."""
    asked = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if asked and find_spec("deepspeed") is None:
        raise TrainError("accelerate's config asks for DeepSpeed, which is not installed: pip install deepspeed")
    return asked


def is_zero(accelerator: Accelerator) -> bool:
    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


def configure(accelerator: Accelerator, settings: Settings) -> None:
    """Bring DeepSpeed's config in line with the run's settings, which say what is computed; nothing without DeepSpeed.

    Raises:
        TrainError: The config asks for what this does not do.
    """
    if not is_zero(accelerator):
        if is_asked_for():
            raise TrainError("accelerate takes DeepSpeed up on GPUs alone, and this runs without one; use DDP")
        return
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    stage = config.setdefault("zero_optimization", {})
    _check(config, stage, settings)
    for key in SIZED_BY_HIDDEN:
        if stage.get(key) == "auto":
            del stage[key]
    for key in ("train_batch_size", "scheduler"):  # the one follows from what is set here; the other is the run's own
        config.pop(key, None)
    config |= {
        "train_micro_batch_size_per_gpu": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulate,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
    }


def _check(config: dict[str, Any], stage: dict[str, Any], settings: Settings) -> None:
    number = stage.get("stage", 0)
    offload = (stage.get("offload_optimizer") or {}).get("device") or "none"
    faults = {
        f"ZeRO stage {number}: stages 1 and 2 are supported; use FSDP2 for what 3 does, DDP for 0": number
        not in (1, 2),
        "an optimizer in its config: the run's settings name it; remove it there": "optimizer" in config,
        f"offload_optimizer to {offload}: not supported; FSDP2 saves more memory": offload != "none",
        "optimizer adamw8bit: its blocks would not lie as DeepSpeed cuts them; use adamw": settings.optimizer
        != "adamw",
        "precision fp16: use bf16 or no": settings.precision == "fp16",
    }
    for fault, found in faults.items():
        if found:
            raise TrainError(f"DeepSpeed with {fault}")


class OnlyTrained(torch.nn.Module):
    """A model whose parameters are the trained ones alone.

    Args:
        model: Called for the answer, inside `autocast`.
        trained: Some of its parameters.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        trained: Iterable[torch.nn.Parameter],
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        super().__init__()
        self.trained = torch.nn.ParameterList(trained)
        self.whole = (model,)  # a tuple, for a module would bring its other parameters
        self.autocast = autocast

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.autocast():
            return self.whole[0](*args, **kwargs)


def whole_state(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> dict[str, Any]:
    """AdamW's state dict as a run without DeepSpeed has it, on the CPU. All processes must call."""
    read = import_module("deepspeed.utils").safe_get_full_optimizer_state
    group = optimizer.param_groups[0]
    step = optimizer.state[group["params"][0]]["step"]
    rows = {
        number: {"step": step.detach().cpu(), **{key: read(parameter, key).cpu() for key in MOMENTS}}
        for number, parameter in enumerate(parameters)
    }
    return {"state": rows, "param_groups": [{**group, "params": list(rows)}]}


def load_state(zero: Any, state: dict[str, Any], parameters: list[torch.nn.Parameter]) -> None:
    """The way back. `parameters` hold their values already.

    Args:
        zero: DeepSpeed's optimizer around AdamW.
    """
    write = import_module("deepspeed.utils").safe_set_full_optimizer_state
    zero.refresh_fp32_params()
    for group in zero.optimizer.param_groups:
        for share in group["params"]:
            step = state["state"][0]["step"].clone()
            zero.optimizer.state[share] = {"step": step, **{key: torch.zeros_like(share) for key in MOMENTS}}
    zero._lazy_init_hp_params_optimizer_state()
    for number, parameter in enumerate(parameters):
        for key in MOMENTS:
            write(parameter, state["state"][number][key].to(parameter.device), key)
