"""The script that everybody writes first, to compare `grow` with: load all tensors, copy every fourth block, save."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

base, output, group = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
ZEROED = ("attn1.to_out.0.", "attn2.to_out.0.", "ffn.net.2.")
tensors = {name: tensor for path in sorted(base.glob("*.safetensors")) for name, tensor in load_file(path).items()}
grown = {}
for name, tensor in tensors.items():
    stack, _, rest = name.partition(".")
    if stack != "blocks":
        grown[name] = tensor
        continue
    number, _, inner = rest.partition(".")
    place = int(number) + int(number) // group
    grown[f"blocks.{place}.{inner}"] = tensor
    if int(number) % group == group - 1:
        copy = torch.zeros_like(tensor) if inner.startswith(ZEROED) else tensor.clone()
        grown[f"blocks.{place + 1}.{inner}"] = copy
output.mkdir()
save_file(grown, output / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
