"""The two models that train together, and what trains them."""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from .settings import TEXT_ENCODER, TRANSFORMER

MATRIX_RATE, OTHER_RATE = 0.01, 2e-3
"""Peak learning rates of Muon, for the matrices inside blocks, and of AdamW, for everything else."""


class Foundation(nn.Module):
    """The two models that train together."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text_encoder = UMT5EncoderModel(UMT5Config(vocab_size=vocabulary, **TEXT_ENCODER))
        self.transformer = WanTransformer3DModel(**TRANSFORMER)


def make_optimizers(model: Foundation) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for the rest. `initial_lr` holds the peak rates."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        in_block = ".blocks." in name or ".block." in name
        is_matrix = parameter.ndim == 2 and "relative_attention_bias" not in name
        (matrices if in_block and is_matrix else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]
