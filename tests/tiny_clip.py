"""CLIP's text encoder and tokenizer in miniature, every weight random."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

from models import noisy
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def clip_tokenizer() -> Any:
    """Letter by letter, so that no two prompts read the same."""
    pieces = [letter + end for letter in ascii_lowercase for end in ("", "</w>")]
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, **{piece: i + 2 for i, piece in enumerate(pieces)}}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def clip(width: int, kind: Any = CLIPTextModel) -> Any:
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        projection_dim=width,
    )
    return noisy(kind(config), 3)
