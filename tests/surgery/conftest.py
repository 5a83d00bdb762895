"""Checkpoints made with the standard library alone, so that surgery is tested without torch."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from modelgrow.surgery.header import write_header

Maker = Callable[..., Path]


def write_file(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """A safetensors file: name -> (dtype, shape, data)."""
    header = write_header(
        {n: (d, s, len(data)) for n, (d, s, data) in tensors.items()}, {"format": "pt", "made": "by hand"}
    )
    path.write_bytes(header + b"".join(data for _, _, data in tensors.values()))


@pytest.fixture
def make_ltx(tmp_path: Path) -> Maker:
    """Makes an LTX component folder of random bytes: `make_ltx(name, depth=, shards=, width=)`."""

    def make(name: str = "base", *, depth: int = 3, shards: int = 1, width: int = 4) -> Path:
        rng = random.Random(7)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        tensors = {"proj_in.weight": ("BF16", (4, 2), rng.randbytes(16)), "scale": ("F32", (3,), rng.randbytes(12))}
        for i in range(depth):
            for module in ("attn1.to_q", "attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
                tensors[f"transformer_blocks.{i}.{module}.weight"] = (
                    "BF16",
                    (width, width),
                    rng.randbytes(2 * width * width),
                )
                tensors[f"transformer_blocks.{i}.{module}.bias"] = ("F32", (width,), rng.randbytes(4 * width))
        names = list(tensors)
        parts = [names[i::shards] for i in range(shards)]
        files = [f"diffusion_pytorch_model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
        if shards == 1:
            files = ["diffusion_pytorch_model.safetensors"]
        else:
            weight_map = {n: file for file, part in zip(files, parts, strict=True) for n in part}
            index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
            (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        for file, part in zip(files, parts, strict=True):
            write_file(folder / file, {n: tensors[n] for n in part})
        config = {"_class_name": "LTXVideoTransformer3DModel", "num_layers": depth, "note": "kept"}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "README.md").write_text("carried along")
        return folder

    return make


@pytest.fixture
def make_pipeline(make_ltx: Maker, tmp_path: Path) -> Callable[[], Path]:
    """Makes a pipeline folder: one component that grows, one with weights that does not, one without weights."""

    def make() -> Path:
        folder = tmp_path / "pipeline"
        make_ltx("pipeline/transformer", shards=2)
        (folder / "vae").mkdir()
        write_file(folder / "vae" / "diffusion_pytorch_model.safetensors", {"w": ("F32", (1,), b"abcd")})
        (folder / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKLLTXVideo"}')
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text("{}")
        (folder / ".git").mkdir()
        (folder / ".git" / "config").write_text("not carried")
        index = {
            "_class_name": "LTXPipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
            "transformer_2": [None, None],
            "vae": ["diffusers", "AutoencoderKLLTXVideo"],
        }
        (folder / "model_index.json").write_text(json.dumps(index))
        return folder

    return make


@pytest.fixture
def pipeline(make_pipeline: Callable[[], Path]) -> Path:
    return make_pipeline()


@pytest.fixture
def wide(make_ltx: Maker, make_pipeline: Callable[[], Path]) -> Path:
    """A pipeline whose weights are many times larger than headers: 6 MB grow, in two shards, and as many do not."""
    folder = make_pipeline()
    for name, shards in (("transformer", 2), ("vae", 1)):
        made = make_ltx(f"made/{name}", width=512, shards=shards)
        for path in made.glob("diffusion*"):
            path.rename(folder / name / path.name)
    return folder
