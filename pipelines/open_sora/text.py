"""Prompts to the states that the transformer reads.

Shape letters: B prompts, L tokens, D width of a T5 state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import GenerateError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True, eq=False)
class TextStates:
    """States of prompts and, for guidance, before them those of what stands against them."""

    states: torch.Tensor
    """(B, L, D), or (2B, L, D)."""
    mask: torch.Tensor
    """(B, L) or (2B, L), int64, 1 where there is a token."""

    def guided_by(self, negative: TextStates) -> TextStates:
        """`negative`, then the prompts: diffusers' order. The reference has the prompts first."""
        return TextStates(
            states=torch.cat([negative.states.to(self.states), self.states]),
            mask=torch.cat([negative.mask.to(self.mask), self.mask]),
        )

    def repeated(self, times: int) -> TextStates:
        """Each prompt `times` times, one after another."""
        return TextStates(
            states=self.states.repeat_interleave(times, dim=0), mask=self.mask.repeat_interleave(times, dim=0)
        )


def encode_text(
    tokenizer: Any, text_encoder: Any, prompts: Sequence[str], max_length: int, device: torch.device
) -> TextStates:
    """T5's last hidden states, padded to `max_length` tokens; longer prompts are cut.

    The dtype is the text encoder's. The reference runs it in float32 to sample and in bfloat16 to train.
    """
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=max_length,
        truncation=True,
        return_attention_mask=True,
        add_special_tokens=True,
        return_tensors="pt",
    )
    ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
    return TextStates(states=text_encoder(input_ids=ids, attention_mask=mask)[0], mask=mask)


def given_or_encoded(
    pipeline: Any,
    prompts: str | Sequence[str] | None,
    states: torch.Tensor | None,
    mask: torch.Tensor | None,
    max_length: int,
    device: torch.device,
) -> TextStates:
    """States that were made before, or else those of prompts. Raises `GenerateError` if there is neither."""
    if states is not None and mask is not None:
        return TextStates(states=states.to(device), mask=mask.to(device))
    if states is not None or prompts is None:
        raise GenerateError("give prompts, or their states together with their attention mask")
    texts = [prompts] if isinstance(prompts, str) else prompts
    return encode_text(pipeline.tokenizer, pipeline.text_encoder, texts, max_length, device)


def null_caption(transformer: Any, like: TextStates) -> TextStates:
    """The learned caption that stands for none, for each prompt of `like`.

    It has as many tokens as the prompt it stands against: the reference gives both halves the prompts' mask, in
    training too, so the length of a prompt tells on its opposite.
    """
    table: torch.Tensor = transformer.y_embedder.y_embedding
    count, length, width = like.states.shape
    if table.shape[0] < length or table.shape[1] != width:
        raise GenerateError(
            f"{type(transformer).__name__}: its null caption has {table.shape[0]} tokens of width {table.shape[1]}, "
            f"the prompts have {length} of {width}; ask for no longer prompts, or take the text encoder it was made for"
        )
    return TextStates(states=table[None, :length].to(like.states).expand(count, -1, -1), mask=like.mask)
