"""The foundation's text as it is trained with: pads are counted, not computed.

WanPipeline pads every prompt with zeros to 512 and masks nothing. All these zeros have the same key and the
same value, so N of them weigh as much as one whose attention logit is raised by log(N). The function is the
same; for so small a model a step costs half as much.

Shape letters: B samples, L tokens kept, D width of a token.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import DataError

from .training.conditioning import CountedPads, pad_bias, use_counted_pads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelgrow.train.families.family import Family, Text

KEPT = 32
"""Tokens: three objects need 24 at most, in the base's own words."""
KEPT_OF_ANY = 192
"""Tokens: `paraphrases` and long captions need 169; the foundation spells the words that it does not know."""


def counted(states: torch.Tensor, kept: int = KEPT) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded states, (B, 512, D), as "states" and "bias" of `CountedText`.

    Raises:
        DataError: A caption has more tokens than are kept.
    """
    lengths = (states != 0).any(dim=2).sum(dim=1)
    if int(lengths.max()) > kept:
        raise DataError(f"a caption has {int(lengths.max())} tokens; {kept} are kept")
    mask = (torch.arange(kept, device=lengths.device) < lengths[:, None]).long()
    return states[:, : kept + 1], pad_bias(mask, torch.full_like(lengths, states.shape[1]))


@contextmanager
def counting(transformer: Any, kept: int = KEPT) -> Iterator[None]:
    """Inside, the pipeline's own calls count pads too."""
    before = [block.attn2.processor for block in transformer.blocks]
    processor = use_counted_pads(transformer)

    def shorten(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states, processor.bias = counted(kwargs["encoder_hidden_states"], kept)
        return args, {**kwargs, "encoder_hidden_states": states}

    handle = transformer.register_forward_pre_hook(shorten, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        for block, processor_before in zip(transformer.blocks, before, strict=True):
            block.attn2.set_processor(processor_before)


@dataclass(frozen=True)
class CountedText:
    """A `Family` around Wan's, for the foundation and what grows out of it."""

    family: Family
    kept: int = KEPT

    def encode_text(self, pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
        """ "states", (B, L + 1, D), of which the last stands for all pads, and "bias", (B, 1, 1, L + 1)."""
        states, bias = counted(self.family.encode_text(pipeline, captions)["states"], self.kept)
        return {"states": states, "bias": bias}

    def encode_video(self, pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
        return self.family.encode_video(pipeline, pixels)

    def predict(
        self, pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text
    ) -> torch.Tensor:
        processor = pipeline.transformer.blocks[-1].attn2.processor  # the first may be a cached trunk
        if not isinstance(processor, CountedPads):
            processor = use_counted_pads(pipeline.transformer)
        processor.bias = text["bias"]
        return self.family.predict(pipeline, model, noisy, timesteps, {"states": text["states"]})
