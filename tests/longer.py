"""What tests of longer clips share: extending a folder, and inputs of any number of latent frames."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import Architecture
from diffusers.models.embeddings import (
    SinusoidalPositionalEmbedding,
    get_3d_rotary_pos_embed,
    get_3d_rotary_pos_embed_allegro,
)
from models import build

from modelgrow.pipelines import probes
from modelgrow.surgery import Checkpoint, Job, anatomies, execute, open_source
from modelgrow.surgery.clip_default import prepare_extend
from modelgrow.surgery.extend_frames import ExtendOptions
from modelgrow.surgery.positions import Frames


def plan(folder: Path, to: int, **options: Any) -> Job:
    return prepare_extend(open_source(str(folder)), ExtendOptions(to=to, **options))


def extend(folder: Path, output: Path, to: int, **options: Any) -> Path:
    """`grow extend-frames`."""
    return execute(plan(folder, to, **options), output, overwrite=True)


def inputs_of(
    class_name: str, config: Any, frames: int, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Random inputs of so many latent frames, with true tables where a pipeline makes them."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{probes.__name__}.") and hasattr(module, "F"):
            monkeypatch.setattr(module, "F", frames)
    inputs = probes.random_inputs(class_name, config, seed=3, device=torch.device("cpu"), dtype=dtype)
    if class_name == "CogVideoXTransformer3DModel":
        return {**inputs, **_cogvideox(config, frames, inputs["hidden_states"])}
    if class_name == "AllegroTransformer3DModel":
        return {**inputs, **_allegro(config, frames)}
    if class_name == "LatteTransformer3DModel":
        states = inputs["hidden_states"]
        noise = torch.randn(*states.shape[:2], frames, *states.shape[3:], generator=torch.Generator().manual_seed(5))
        return {**inputs, "hidden_states": noise.to(dtype)}
    return inputs


def _cogvideox(config: Any, frames: int, states: torch.Tensor) -> dict[str, Any]:
    patch = config["patch_size_t"] or 1
    noise = torch.randn(2, frames, *states.shape[2:], generator=torch.Generator().manual_seed(5)).to(states.dtype)
    found: dict[str, Any] = {"hidden_states": noise}
    if config["use_rotary_positional_embeddings"]:
        size = (states.shape[3] // config["patch_size"], states.shape[4] // config["patch_size"])
        found["image_rotary_emb"] = get_3d_rotary_pos_embed(
            config["attention_head_dim"], ((0, 0), size), size, frames // patch
        )
    return found


def _allegro(config: Any, frames: int) -> dict[str, Any]:
    scale = (config["interpolation_scale_t"], config["interpolation_scale_h"], config["interpolation_scale_w"])
    *freqs, time, height, width = get_3d_rotary_pos_embed_allegro(
        config["attention_head_dim"], ((0, 0), (3, 4)), (3, 4), frames, scale
    )
    places = torch.cartesian_prod(time.long(), height.long(), width.long()).reshape(-1, 3).T.reshape(3, 1, -1)
    return {"image_rotary_emb": (tuple(freqs), tuple(places.contiguous()))}


def frames_of(row: Architecture) -> Frames:
    checkpoint = Checkpoint(path=Path(row.name), tensors={}, config={"_class_name": row.class_name, **row.tiny})
    return anatomies()[row.class_name].frames_of(checkpoint.config)


def save(folder: Path, row: Architecture) -> Path:
    """Random weights; tables of sines stay sines."""
    model = build(row.class_name, row.tiny)
    for module in model.modules():
        if isinstance(module, SinusoidalPositionalEmbedding):
            module.pe.copy_(SinusoidalPositionalEmbedding(module.pe.shape[2], module.pe.shape[1]).pe)
    model.save_pretrained(folder)
    return folder


def worst(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> float:
    return max((a.float() - b.float()).abs().max().item() for a, b in zip(first, second, strict=True))
