"""Wan 2.1 and 2.2, text to video; what WanPipeline does before and around its transformer.

Wan 2.2 A14B has two transformers: `transformer` at noise levels from `boundary_ratio` on, `transformer_2` below. Each
trains on its own side.

Shape letters: B samples, D width of a token's state.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from modelgrow.surgery import TrainError

from ..objectives import RectifiedFlow, scheduled
from ..objectives.one_side import OneSide
from .latents import mean_of, normalised

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

MAX_TOKENS = 512
"""What WanPipeline pads its prompts to."""
LOW_NOISE = "transformer_2"


def objective(pipeline: Any, settings: Settings) -> Objective:
    """What the scheduler integrates, on the side of the boundary that `settings.component` serves, if there is one.

    The pipeline compares timesteps after the shift with `boundary_ratio * num_train_timesteps`, so the levels that are
    drawn are compared after it too.
    """
    flow = scheduled(pipeline, settings)
    boundary = pipeline.config.get("boundary_ratio")
    if boundary is None:
        return flow
    if not isinstance(flow, RectifiedFlow) or flow.inverted or not 0 < boundary < 1:
        raise TrainError(
            f"boundary_ratio {boundary} with {type(pipeline.scheduler).__name__}: two transformers need rectified flow "
            "and a boundary between 0 and 1"
        )
    if settings.component == LOW_NOISE:
        # The boundary itself belongs to the other one.
        return OneSide(**asdict(flow), high=torch.tensor(boundary).nextafter(torch.tensor(0.0)).item())
    return OneSide(**asdict(flow), low=boundary)


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, 512, D), zeros behind a caption's own."""
    tokens = pipeline.tokenizer(
        [prompt_clean(caption) for caption in captions], max_length=MAX_TOKENS, truncation=True
    ).input_ids
    # The pipeline cuts pads off and puts zeros in their place, so none need go through the encoder.
    longest = max(map(len, tokens))
    states, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=longest)
    padded: torch.Tensor = torch.nn.functional.pad(states, (0, 0, 0, MAX_TOKENS - longest))
    return {"states": padded}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return normalised(pipeline.vae, mean_of(pipeline.vae, pixels))


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        hidden_states=noisy, timestep=timesteps, encoder_hidden_states=text["states"], return_dict=False
    )[0]
    return output
