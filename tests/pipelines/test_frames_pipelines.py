"""Extended pipelines of diffusers, from prompt to frames: as many as were asked for, and the base's own as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_trained
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from longer import extend
from tiny_families import FAMILIES, build_pipeline

from modelgrow.pipelines.generate import Generated, GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline


def animatediff() -> Any:
    pipeline = tiny_trained.animatediff()
    for module in pipeline.unet.modules():
        if isinstance(module, SinusoidalPositionalEmbedding):
            module.pe.copy_(SinusoidalPositionalEmbedding(module.pe.shape[2], module.pe.shape[1]).pe)
    return pipeline


BUILT: dict[str, Callable[[], Any]] = {
    "animatediff": animatediff,
    "mochi": tiny_trained.mochi,
    "hunyuan_video": tiny_trained.hunyuan_video,
    "sana_video": tiny_trained.sana_video,
}
LENGTHS = {
    "animatediff": (8, 18),
    "cogvideox": (9, 18),
    "cogvideox-rope": (9, 18),
    "hunyuan_video": (9, 18),
    "latte": (4, 11),
    "ltx": (9, 18),
    "mochi": (7, 16),
    "sana_video": (9, 18),
}
"""Frames of the base's clips, and of longer ones, which no VAE with a stride decodes."""


def save(name: str, folder: Path) -> Path:
    if name in FAMILIES:
        return build_pipeline(FAMILIES[name], folder)
    BUILT[name]().save_pretrained(folder)
    if name == "sana_video":  # else it makes the nearest of its own sizes, of 480 pixels and more
        (folder / "generation.json").write_text('{"use_resolution_binning": false}')
    return folder


def clip(folder: Path, num_frames: int) -> Generated:
    size: dict[str, Any] = {"height": 32, "width": 32}
    if "cogvideox" in folder.name:
        size = {"height": 48, "width": 64}
    asked = GenerateOptions(prompt="a red circle", num_frames=num_frames, num_inference_steps=2, **size)
    return generate(load_pipeline(folder, device="cpu"), asked)


@pytest.mark.filterwarnings("ignore:In CPU autocast")  # Mochi asks for float32 there, which it has already
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # SANA-Video's scheduler hands a tensor to NumPy
@pytest.mark.parametrize("name", LENGTHS)
def test_longer_clips(name: str, tmp_path: Path) -> None:
    base_frames, wanted = LENGTHS[name]
    base = save(name, tmp_path / name)
    longer = extend(base, tmp_path / f"{name}-longer", wanted, base_frames=base_frames)
    made = clip(longer, wanted)
    assert len(made.frames) == made.settings["num_frames"] == wanted
    assert made.settings["notes"] == []
    digests = [clip(folder, base_frames).settings["frames_sha256"] for folder in (base, longer)]
    assert (digests[0] == digests[1]) == (name != "mochi")
