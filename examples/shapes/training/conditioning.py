"""Captions to what the transformer attends to, just as WanPipeline does it, but cheaper.

The pipeline pads every prompt with zeros to 512 and masks nothing, so the number of zeros is an input
of the model. All these zeros have the same key and value: N of them weigh as much as one whose
attention logit is raised by log(N). Training uses that one, with N drawn anew for every sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from transformers import T5Tokenizer, UMT5EncoderModel

from .settings import TEXT_LENGTH

PIPELINE_LENGTH = 512
"""WanPipeline's default `max_sequence_length`."""

PIPELINE_SHARE = 0.4
"""Share of samples with exactly that length; the others' lengths are spread evenly on a log scale."""


class CountedPads(WanAttnProcessor):
    """Cross-attention that adds `bias`, shape `(B, 1, 1, L)`, to the logits."""

    bias: torch.Tensor | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        output: torch.Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, self.bias, rotary_emb)
        return output


def use_counted_pads(transformer: WanTransformer3DModel) -> CountedPads:
    """Put one shared processor into every cross-attention. Set its `bias` before each forward."""
    processor = CountedPads()
    for block in transformer.blocks:
        block.attn2.set_processor(processor)
    return processor


def tokenize(tokenizer: T5Tokenizer, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, both `(B, TEXT_LENGTH)` int64."""
    tokens = tokenizer(
        list(captions), padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids, tokens.attention_mask


def embed(encoder: UMT5EncoderModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Text states with zeros for pads, and one more pad at the end. `(B, L + 1, D)`."""
    states = encoder(ids, mask).last_hidden_state * mask[..., None]
    return torch.cat([states, states.new_zeros(len(states), 1, states.shape[2])], dim=1)


def pad_bias(mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The logits' bias that makes the last column stand for all pads up to `lengths`.

    Args:
        mask: `(B, L)`, 1 for real tokens.
        lengths: `(B,)`, what each prompt would be padded to; more than its real tokens.

    Returns:
        `(B, 1, 1, L + 1)` float32: 0 for real tokens, minus infinity for pads, log of their count at the end.
    """
    bias = torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask == 0, -math.inf)
    pads = (lengths - mask.sum(dim=1)).float().log()
    return torch.cat([bias, pads[:, None]], dim=1)[:, None, None, :]


def random_lengths(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Padded lengths for training, `(B,)` int64, from just over TEXT_LENGTH to the pipeline's default."""
    shortest, longest = math.log(TEXT_LENGTH + 1), math.log(PIPELINE_LENGTH)
    lengths = torch.rand(batch, generator=generator).mul_(longest - shortest).add_(shortest).exp_().long()
    usual = torch.rand(batch, generator=generator) < PIPELINE_SHARE
    return lengths.masked_fill_(usual, PIPELINE_LENGTH)
