"""Checkpoints of real size and random content, to be measured on: Wan's blocks, and llama's for mergekit."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from modelgrow.surgery.header import write_header

Shapes = dict[str, tuple[int, ...]]
WIDTH, FFN = 1536, 8960
"""Wan 2.1 1.3B's own."""
NUM_SHARDS = 4
_CHUNK = 16 << 20


def wan(folder: Path, num_bytes: float) -> int:
    """A sharded bf16 WanTransformer3DModel of about that size. Returns its depth, a multiple of 4."""
    block: Shapes = {"scale_shift_table": (1, 6, WIDTH), "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,)}
    for attention in ("attn1", "attn2"):
        for module in ("to_q", "to_k", "to_v", "to_out.0"):
            block |= {f"{attention}.{module}.weight": (WIDTH, WIDTH), f"{attention}.{module}.bias": (WIDTH,)}
        block |= {f"{attention}.norm_q.weight": (WIDTH,), f"{attention}.norm_k.weight": (WIDTH,)}
    block |= {"ffn.net.0.proj.weight": (FFN, WIDTH), "ffn.net.0.proj.bias": (FFN,)}
    block |= {"ffn.net.2.weight": (WIDTH, FFN), "ffn.net.2.bias": (WIDTH,)}
    rest: Shapes = {
        "condition_embedder.text_embedder.linear_1.weight": (WIDTH, 4096),
        "patch_embedding.weight": (WIDTH, 16, 1, 2, 2),
        "patch_embedding.bias": (WIDTH,),
        "proj_out.weight": (64, WIDTH),
        "proj_out.bias": (64,),
        "scale_shift_table": (1, 2, WIDTH),
    }
    depth = _depth(block, num_bytes)
    _write(folder, "diffusion_pytorch_model", {**_stack("blocks", block, depth), **rest})
    _write_json(folder / "config.json", {"_class_name": "WanTransformer3DModel", "num_layers": depth})
    return depth


def llama(folder: Path, num_bytes: float) -> int:
    """A sharded bf16 LlamaForCausalLM of about that size. Returns its depth, a multiple of 4."""
    hidden, inner, vocabulary = 2048, 8192, 2048
    block: Shapes = {f"self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
    block |= {f"mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
    block |= {"mlp.down_proj.weight": (hidden, inner)}
    block |= {f"{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    rest: Shapes = {
        "lm_head.weight": (vocabulary, hidden),
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    depth = _depth(block, num_bytes)
    _write(folder, "model", {**_stack("model.layers", block, depth), **rest})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden}
    config |= {"intermediate_size": inner, "num_attention_heads": 16, "num_key_value_heads": 16}
    config |= {"num_hidden_layers": depth, "vocab_size": vocabulary, "torch_dtype": "bfloat16"}
    _write_json(folder / "config.json", config)
    return depth


def dense(folder: Path, num_bytes: int) -> None:
    """As many random bytes in as many files: what `cp` is measured on."""
    folder.mkdir(parents=True)
    for i in range(NUM_SHARDS):
        _fill(folder / f"part-{i}", b"", num_bytes // NUM_SHARDS)


def _depth(block: Shapes, num_bytes: float) -> int:
    return max(4, int(num_bytes / sum(map(_size, block.values()))) // 4 * 4)


def _stack(prefix: str, block: Shapes, depth: int) -> Shapes:
    return {f"{prefix}.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def _size(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)


def _write(folder: Path, stem: str, shapes: Shapes) -> None:
    folder.mkdir(parents=True)
    total = sum(map(_size, shapes.values()))
    groups = list(_in_shards(dict(sorted(shapes.items())), total / NUM_SHARDS))
    weight_map: dict[str, str] = {}
    for i, group in enumerate(groups, 1):
        name = f"{stem}-{i:05d}-of-{len(groups):05d}.safetensors"
        entries = {key: ("BF16", shape, _size(shape)) for key, shape in group.items()}
        _fill(folder / name, write_header(entries, {"format": "pt"}), sum(map(_size, group.values())))
        weight_map |= dict.fromkeys(group, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / f"{stem}.safetensors.index.json", index)


def _in_shards(shapes: Shapes, limit: float) -> Iterator[Shapes]:
    shard: Shapes = {}
    size = 0
    for name, shape in shapes.items():
        shard[name] = shape
        size += _size(shape)
        if size >= limit:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def _fill(path: Path, header: bytes, num_bytes: int) -> None:
    with path.open("xb") as file:
        file.write(header)
        while num_bytes:
            count = min(num_bytes, _CHUNK)
            file.write(os.urandom(count))
            num_bytes -= count
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
