"""A family whose model has a slot: captions are read by the language model too, and its states go to the model.

Shape letters: B samples, L tokens of the language model, D width of its states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.pipelines.grown.pipeline import GrownPipeline
from modelgrow.pipelines.text.reader import MAX_LENGTH

from .families.clips import clip_by_clip
from .families.family import captions_beside

if TYPE_CHECKING:
    from .families.family import Family, Text

PREFIX = "llm."
STATES, MASK = f"{PREFIX}states", f"{PREFIX}mask"
"""(B, L, D) and (B, L) bool, among a batch's text."""


@dataclass(frozen=True)
class SlotFamily:
    """A `Family` around that of the stock model."""

    family: Family

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)  # what a family says of itself, see `trait`

    def encode_text(self, pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
        """The family's own, and the language model's."""
        return {**self.family.encode_text(pipeline, captions), **_llm_states(pipeline, captions)}

    def encode_captions(self, pipeline: Any, captions: list[str], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same, of captions that have clips."""
        return {**captions_beside(self.family, pipeline, captions, pixels), **_llm_states(pipeline, captions)}

    def encode_video(self, pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
        return self.family.encode_video(pipeline, pixels)

    def predict(
        self, pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text
    ) -> torch.Tensor:
        if len(noisy) > 1 and getattr(self.family, "BY_CLIP", False):
            return clip_by_clip(partial(self.predict, pipeline, model), noisy, timesteps, text)
        read = partial(model, llm_hidden_states=text[STATES], llm_attention_mask=text[MASK])
        own = {name: value for name, value in text.items() if not name.startswith(PREFIX)}
        return self.family.predict(pipeline, read, noisy, timesteps, own)


def _llm_states(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """Padded to the slot's length."""
    read = pipeline.encode_llm(captions).padded(int(pipeline.reading.slot.get("max_length") or MAX_LENGTH))
    return {STATES: read.states, MASK: read.mask}


def with_slot(family: Family, pipeline: Any) -> Family:
    """The family of a pipeline's model, which may have a slot."""
    return SlotFamily(family) if isinstance(pipeline, GrownPipeline) and pipeline.slot_models else family


def rest(pipeline: Any) -> None:
    """All captions have been read: the language model leaves the device to the model that trains."""
    if isinstance(pipeline, GrownPipeline) and pipeline.slot_models:
        pipeline.reading.rest()


def without(text: dict[str, torch.Tensor], empty: dict[str, torch.Tensor], *, llm: bool) -> dict[str, torch.Tensor]:
    """The text with what one of the two encoders read of it left out: the language model's, or all else."""
    return {name: empty[name] if name.startswith(PREFIX) is llm else value for name, value in text.items()}
