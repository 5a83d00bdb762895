"""Wan 2.2 A14B: each of the two transformers trains at the noise levels that the pipeline calls it at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from tiny_from_images import BOUNDARY, tiny

from modelgrow.surgery import TrainError
from modelgrow.train.families import wan, wan_image
from modelgrow.train.objectives import RectifiedFlow
from modelgrow.train.objectives.one_side import OneSide
from modelgrow.train.settings import Settings

DRAWS = 20000


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny("wan-2.2")


def settings(**changes: Any) -> Settings:
    return Settings(model="m", data="d", output="o", **changes)


def drawn(pipeline: Any, **changes: Any) -> torch.Tensor:
    """Timesteps that a run tells its model."""
    objective = wan_image.objective(pipeline, settings(**changes))
    return objective.timesteps(objective.draw(DRAWS, torch.Generator().manual_seed(0)))


def served(pipeline: Any) -> dict[str, list[float]]:
    """The timesteps at which the pipeline calls each of them."""
    calls: dict[str, list[float]] = {"transformer": [], "transformer_2": []}
    handles = [
        getattr(pipeline, name).register_forward_hook(
            lambda _module, _args, kwargs, _output, name=name: calls[name].append(kwargs["timestep"].item()),
            with_kwargs=True,
        )
        for name in calls
    ]
    picture = Image.new("RGB", (32, 32), "red")
    pipeline(picture, prompt="a", height=32, width=32, num_frames=5, num_inference_steps=40, guidance_scale=1.0)
    for handle in handles:
        handle.remove()
    return calls


@pytest.mark.parametrize("sampling", ["logit_normal", "uniform"])
def test_levels_lie_on_the_side_that_a_transformer_serves(sampling: str, pipeline: Any) -> None:
    calls = served(pipeline)
    assert min(calls["transformer"]) >= 1000 * BOUNDARY > max(calls["transformer_2"])
    high = drawn(pipeline, component="transformer", timestep_sampling=sampling)
    low = drawn(pipeline, component="transformer_2", timestep_sampling=sampling)
    assert high.min() >= 1000 * BOUNDARY > low.max()
    # Both sides to their ends, as the pipeline calls them.
    assert high.max() > 0.99 * max(calls["transformer"])
    assert high.min() < 1.001 * 1000 * BOUNDARY
    assert low.max() > 0.999 * 1000 * BOUNDARY
    assert low.min() < min(calls["transformer_2"])


@pytest.mark.parametrize("sampling", ["logit_normal", "uniform"])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_the_two_sides_together_are_the_whole_density(sampling: str, shift: float) -> None:
    """What is drawn on a side is what a model of all levels would have drawn there."""
    generator = torch.Generator().manual_seed(0)
    whole = RectifiedFlow(sampling=sampling, shift=shift).draw(10 * DRAWS, generator)
    for low, high in ((0.0, 0.9), (0.9, 1.0)):
        expected = whole[(whole >= low) & (whole < high)]
        found = OneSide(sampling=sampling, shift=shift, low=low, high=high).draw(DRAWS, generator)
        shares = torch.linspace(0.05, 0.95, 10)
        spread = 0.03 * (high - low)  # of quantiles of 2000 draws and more, several times their deviation
        torch.testing.assert_close(found.quantile(shares), expected.quantile(shares), rtol=0, atol=spread)


def test_one_transformer_trains_at_all_levels(pipeline: Any) -> None:
    """As Wan 2.1's, whose draws are what they were before there were two."""
    single = tiny("wan-2.1")
    found = drawn(single, component="transformer")
    expected = RectifiedFlow(shift=5.0).draw(DRAWS, torch.Generator().manual_seed(0)) * 1000
    assert torch.equal(found, expected)
    assert not torch.equal(found, drawn(pipeline, component="transformer"))


def test_the_first_one_is_that_of_high_noise(pipeline: Any) -> None:
    assert wan.objective(pipeline, settings(component="transformer")) == OneSide(shift=5.0, low=BOUNDARY)


def test_a_boundary_asks_for_rectified_flow() -> None:
    other = SimpleNamespace(config={"boundary_ratio": BOUNDARY}, scheduler=DDIMScheduler())
    with pytest.raises(
        TrainError, match=r"boundary_ratio 0\.9 with DDIMScheduler: two transformers need rectified flow"
    ):
        wan.objective(other, settings())
