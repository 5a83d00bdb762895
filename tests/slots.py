"""Pipelines with a slot, made in memory from stock ones, and what their models read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import pytest
import torch
from models import build
from tiny_families import FAMILIES, TINY
from tiny_llms import WIDTH
from tiny_pipelines import T5, tokenizer
from transformers import T5EncoderModel

import modelgrow.pipelines
from modelgrow.pipelines.grown.model import GrownModel

_STACKS = {"WanTransformer3DModel": "blocks", "Kandinsky5Transformer3DModel": "visual_transformer_blocks"}


def with_slot(pipeline: Any, llm: Any = None, llm_tokenizer: Any = None, *, live: bool = True, **slot: Any) -> Any:
    """The grown pipeline of a stock one. `live`: the slot's output is noise instead of zero."""
    stock = pipeline.transformer
    stack = _STACKS.get(type(stock).__name__, "transformer_blocks")
    config = stock.config
    width = config.get("model_dim") or config.num_attention_heads * config.attention_head_dim
    settings = {
        "blocks": {stack: list(range(len(getattr(stock, stack))))},
        "widths": {stack: width},
        "outputs": {},
        "llm_dim": WIDTH,
        "heads": 2,
        "head_dim": 8,
        "model": None,
        "revision": None,
        "layer": "mean",
        "template": "plain",
        "max_length": 64,
        **slot,
    }
    torch.manual_seed(5)
    cls = getattr(modelgrow.pipelines, f"Grown{type(stock).__name__}")
    model = cls.from_config({**config, "llm_slot": settings}).eval()
    missing = model.load_state_dict(stock.state_dict(), strict=False).missing_keys
    assert all("llm_" in key for key in missing)
    for name, parameter in model.named_parameters():
        if live and "llm_attn.to_out" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    parts = {**pipeline.components, "transformer": model, "llm": llm, "llm_tokenizer": llm_tokenizer}
    grown = getattr(modelgrow.pipelines, f"Grown{type(pipeline).__name__}")(**parts)
    grown.set_progress_bar_config(disable=True)
    return grown


class Trusting(torch.nn.Module):
    """In the place of Cosmos' guardrail, whose models are gigabytes."""

    device = torch.device("cpu")

    def check_text_safety(self, prompt: str) -> bool:
        return True


def cosmos_pipeline() -> Any:
    """Two plain calls of the model, without names, for the two branches of guidance."""
    torch.manual_seed(0)
    vae = {
        "latent_channels": 4,
        "encoder_block_out_channels": (8, 8, 8, 8),
        "decode_block_out_channels": (8, 8, 8, 8),
        "attention_resolutions": (8,),
        "resolution": 64,
        "num_layers": 1,
        "latents_mean": None,
        "latents_std": None,
    }
    stock: Any = diffusers.CosmosTextToWorldPipeline
    return stock(
        tokenizer=tokenizer(),
        text_encoder=T5EncoderModel(T5).eval(),
        vae=build("AutoencoderKLCosmos", vae, seed=1),
        transformer=build("CosmosTransformer3DModel", TINY["cosmos2"].tiny),
        scheduler=diffusers.EDMEulerScheduler(),
        safety_checker=Trusting(),
    )


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """What models read, call by call: (B, L, D) states and their (B, L) mask, or two times None."""
    calls: list[Any] = []
    fill = GrownModel._fill

    def spy(self: Any, like: Any, states: Any, mask: Any) -> None:
        calls.append((states, mask))
        fill(self, like, states, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GrownModel, "_fill", spy)
        yield calls


OPTIONS = {
    "wan": {"num_frames": 5, "height": 32, "width": 32},
    "cosmos": {"num_frames": 9, "height": 32, "width": 32, "fps": 8},
    "latte": {"video_length": 4, "height": 16, "width": 16},
    **{name: FAMILIES[name].options for name in ("cogvideox", "ltx")},
}
