"""Random inputs of the right shapes, one recipe per architecture.

Small on purpose: two samples, few frames, few tokens. Every optional input that the config asks for
is there, so that no branch of the model is skipped.

Shape letters: B samples, C channels, F latent frames, H, W latent height and width, L text tokens,
S video tokens, D width of a text or image state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import VerifyError

if TYPE_CHECKING:
    from torch import Tensor

Config = Mapping[str, Any]
Randn = Callable[..., "Tensor"]
"""Shape as separate numbers -> standard normal noise."""
Inputs = dict[str, Any]

_B, _F, _L = 2, 3, 8


def _wan(config: Config, randn: Randn) -> Inputs:
    frames, height, width = (n * p for n, p in zip((_F, 3, 4), config["patch_size"], strict=True))
    inputs: Inputs = {
        "hidden_states": randn(_B, config["in_channels"], frames, height, width),
        "timestep": torch.linspace(999.0, 1.0, _B),
        "encoder_hidden_states": randn(_B, _L, config["text_dim"]),
    }
    if config.get("image_dim") is not None:
        length = config.get("pos_embed_seq_len")
        # First-and-last-frame models read two images per sample and fold them into one sequence.
        shape = (_B, 5) if length is None else (2 * _B, length // 2)
        inputs["encoder_hidden_states_image"] = randn(*shape, config["image_dim"])
    return inputs


def _cogvideox(config: Config, randn: Randn) -> Inputs:
    patch, patch_t = config["patch_size"], config["patch_size_t"] or 1
    learned = config["use_learned_positional_embeddings"]
    frames = patch_t * 2
    height = config["sample_height"] if learned else patch * 3  # a learned table fits one size only
    width = config["sample_width"] if learned else patch * 4
    length = config["max_text_seq_length"] if not config["use_rotary_positional_embeddings"] or learned else _L
    inputs: Inputs = {
        "hidden_states": randn(_B, frames, config["in_channels"], height, width),
        "encoder_hidden_states": randn(_B, length, config["text_embed_dim"]),
        "timestep": torch.linspace(999.0, 1.0, _B),
    }
    if config["use_rotary_positional_embeddings"]:
        angles = randn(frames // patch_t * (height // patch) * (width // patch), config["attention_head_dim"])
        inputs["image_rotary_emb"] = (angles.cos(), angles.sin())
    if config.get("ofs_embed_dim"):
        inputs["ofs"] = torch.full((1,), 2.0)
    return inputs


def _ltx(config: Config, randn: Randn) -> Inputs:
    height, width = 3, 4
    mask = torch.ones(_B, _L)
    mask[0, _L // 2 :] = 0
    return {
        "hidden_states": randn(_B, _F * height * width, config["in_channels"]),
        "encoder_hidden_states": randn(_B, _L, config["caption_channels"]),
        "timestep": torch.linspace(999.0, 1.0, _B),
        "encoder_attention_mask": mask,
        "num_frames": _F,
        "height": height,
        "width": width,
    }


RECIPES: Mapping[str, Callable[[Config, Randn], Inputs]] = {
    "WanTransformer3DModel": _wan,
    "CogVideoXTransformer3DModel": _cogvideox,
    "LTXVideoTransformer3DModel": _ltx,
}


def random_inputs(
    class_name: str, config: Config, *, seed: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Keyword arguments for one `forward`. The same seed gives the same inputs on every device.

    Raises:
        VerifyError: There is no recipe for the class.
    """
    if class_name not in RECIPES:
        raise VerifyError(f"no input recipe for {class_name}; known are {', '.join(RECIPES)}")
    generator = torch.Generator().manual_seed(seed)
    inputs = RECIPES[class_name](config, lambda *shape: torch.randn(shape, generator=generator))
    return {name: _place(value, device, dtype, keep=name == "timestep") for name, value in inputs.items()}


def _place(value: Any, device: torch.device, dtype: torch.dtype, *, keep: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(_place(item, device, torch.float32, keep=keep) for item in value)
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=None if keep else dtype)
    return value
