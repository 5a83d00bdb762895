"""What a model is trained to predict, and at which noise levels: one small file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgrow.surgery import TrainError

from .diffusion import Diffusion
from .edm import Edm
from .given_frames import GivenFrames
from .rectified_flow import RectifiedFlow

if TYPE_CHECKING:
    from ..settings import Settings
    from .objective import Objective

__all__ = ["Diffusion", "Edm", "GivenFrames", "RectifiedFlow", "objective_of", "scheduled"]


def scheduled(pipeline: Any, settings: Settings) -> Objective:
    """The objective that a pipeline's scheduler integrates, with levels as the settings say, see `objective_of`."""
    return objective_of(pipeline.scheduler, sampling=settings.timestep_sampling, shift=settings.shift)


def objective_of(scheduler: Any, *, sampling: str = "logit_normal", shift: float | None = None) -> Objective:
    """The objective that a pipeline's scheduler integrates.

    Args:
        scheduler: A diffusers scheduler.
        sampling: See `RectifiedFlow`.
        shift: Of the noise levels; None is the scheduler's own, 1 where it has none or chooses by resolution.

    Raises:
        TrainError: It is of a kind that is not trained here.
    """
    config = scheduler.config
    if "FlowMatch" in type(scheduler).__name__ or config.get("prediction_type") == "flow_prediction":
        own = config.get("shift") or config.get("flow_shift") or 1.0
        return RectifiedFlow(
            sampling=sampling,
            shift=float(own if shift is None else shift),
            inverted=bool(config.get("invert_sigmas")),
        )
    continuous = config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction"
    if continuous or "EDM" in type(scheduler).__name__:
        return Edm.of(scheduler)
    if hasattr(scheduler, "alphas_cumprod"):
        return Diffusion.of(scheduler)
    raise TrainError(
        f"no objective for {type(scheduler).__name__}; rectified flow, EDM, epsilon and v prediction are there"
    )
