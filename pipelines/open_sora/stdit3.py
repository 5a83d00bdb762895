"""Open-Sora 1.2's transformer: blocks over the patches of a frame and blocks over frames take turns.

Reference: `opensora/models/stdit/stdit3.py` of hpcaitech/Open-Sora v1.2, Apache-2.0.

Shape letters: B samples, T frames in patches, S patches of a frame, C width, L text tokens, D width of a text state.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from modelgrow.surgery import GenerateError

from .base import OpenSoraTransformer, Time
from .block import OpenSoraBlock
from .layers import ScalarEmbedder, modulate, repeat_rows
from .positions import RotaryTime, scaled_plane


class STDiT3Block(OpenSoraBlock):
    """Attention within frames, or with `temporal` among frames; cross-attention to the prompt; a feed-forward."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool, temporal: bool = False) -> None:
        super().__init__(width, heads, mlp_ratio, qk_norm)
        self.temporal = temporal

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        modulation: Tensor,
        frames: int,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """See `OpenSoraBlock`.

        Args:
            rotary_emb: Cosines and sines for a temporal block, each (T, width of a head).
        """
        rows = self.scale_shift_table + modulation
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = rows.chunk(6, dim=2)
        states: Tensor = hidden_states.unflatten(1, (frames, -1))
        states = states + gate * self._attend(modulate(self.norm1(states), shift, scale), rotary_emb)
        return self._add_text_and_mlp(
            states, encoder_hidden_states, encoder_attention_mask, mlp_shift, mlp_scale, mlp_gate
        )

    def _attend(self, states: Tensor, rotary_emb: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.temporal:
            states = states.transpose(1, 2)
        attended: Tensor = self.attn(states.flatten(0, 1), rotary_emb)
        attended = attended.unflatten(0, states.shape[:2])
        return attended.transpose(1, 2) if self.temporal else attended


class STDiT3Transformer3DModel(OpenSoraTransformer):
    """STDiT3, the transformer of Open-Sora 1.2 (checkpoint hpcai-tech/OpenSora-STDiT-v3).

    `from_pretrained` reads the published folders and this class's own. Arguments have the reference's names, and their
    defaults are those of STDiT3-XL/2: 1,207,643,972 parameters, "1.1B" to its authors.

    In 16 bits it is not to the bit the reference, which rounds timesteps, positions and rotations to the model's dtype;
    here they are float32. In float32 they agree.

    It predicts the velocity, clean minus noise, for timesteps up to 1000 and latents of any size. `forward` raises
    `GenerateError` without fps, height or width.

    Args, beside those of `OpenSoraTransformer`:
        input_sq_size: Side in pixels of the square whose positions are not scaled.
        depth: Spatial blocks; there are as many temporal ones.
        qk_norm: Whether queries and keys of self-attention are normalized.
    """

    __module__ = "modelgrow.pipelines"
    _no_split_modules = ("STDiT3Block",)
    _repeated_blocks = ("STDiT3Block",)
    _keep_in_fp32_modules: ClassVar[list[str]] = ["rope"]
    _unread = ("input_size",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_sq_size: int = 512,
        in_channels: int = 4,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        class_dropout_prob: float = 0.1,
        pred_sigma: bool = True,
        qk_norm: bool = True,
        caption_channels: int = 4096,
        model_max_length: int = 300,
    ) -> None:
        super().__init__()
        self._build_shell(caption_channels, model_max_length, patch_size)
        self.fps_embedder = ScalarEmbedder(hidden_size)
        self.rope = RotaryTime(hidden_size // num_heads)
        self.spatial_blocks, self.temporal_blocks = (
            nn.ModuleList(STDiT3Block(hidden_size, num_heads, mlp_ratio, qk_norm, temporal) for _ in range(depth))
            for temporal in (False, True)
        )

    def _embed(
        self, latents: Tensor, fps: Tensor | None, height: Tensor | None, width: Tensor | None
    ) -> tuple[Tensor, tuple[int, int, int], Tensor]:
        if fps is None or height is None or width is None:
            raise GenerateError("STDiT3Transformer3DModel needs fps, height and width, one number for each sample")
        tokens = self.x_embedder(latents)
        batch, frames = tokens.shape[:2]
        rows, columns = (-(-length // patch) for length, patch in zip(latents.shape[3:], self.patch[1:], strict=True))
        tokens = (tokens + self.positions(rows, columns, height, width)).to(latents.dtype)
        speed = self.fps_embedder(repeat_rows(fps.to(tokens.device), batch, "fps"), latents.dtype)
        return tokens.flatten(1, 2), (frames, rows, columns), speed

    def _run_blocks(self, tokens: Tensor, text: Tensor, mask: Tensor | None, time: Time) -> Tensor:
        rotary_emb = self.rope(time.frames)
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            tokens = self._run(spatial, tokens, text, mask, time.by_frame, time.frames)
            tokens = self._run(temporal, tokens, text, mask, time.by_frame, time.frames, rotary_emb)
        return tokens

    def positions(self, rows: int, columns: int, height: Tensor, width: Tensor) -> Tensor:
        """(1, S, C) float32, for a clip of `height` by `width` pixels, each (B,), of which the first is read."""
        device = self.x_embedder.proj.weight.device
        area = height[0].to(device, torch.float32) * width[0].to(device, torch.float32)
        return scaled_plane(rows, columns, self.config.hidden_size, area.sqrt() / self.config.input_sq_size)
