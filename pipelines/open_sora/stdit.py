"""Open-Sora 1.0's transformer: every block attends within frames, among frames, and to the prompt.

Reference: `opensora/models/stdit/stdit.py` of hpcaitech/Open-Sora v1.2, Apache-2.0.

Shape letters: B samples, T frames in patches, S patches of a frame, C width, L text tokens, D width of a text state.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import Tensor, nn

from modelgrow.surgery import GenerateError

from .attention import SelfAttention
from .base import OpenSoraTransformer, Time
from .block import OpenSoraBlock
from .layers import modulate
from .positions import KeepsFloat32, plane, sines


class STDiTBlock(OpenSoraBlock):
    """Attention within frames, attention among frames, cross-attention to the prompt, a feed-forward."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__(width, heads, mlp_ratio)
        self.attn_temp = SelfAttention(width, heads)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        modulation: Tensor,
        frames: int,
        time_gate: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """See `OpenSoraBlock`.

        Args:
            time_gate: (B, 1, 1, C), what gates the attention among frames, less the block's own table.
            positions: (1, T, 1, C), added to what the attention among frames reads, not to the stream itself.
        """
        rows = self.scale_shift_table + modulation
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = rows.chunk(6, dim=2)
        states: Tensor = hidden_states.unflatten(1, (frames, -1))
        modulated = modulate(self.norm1(states), shift, scale)
        states = states + gate * self.attn(modulated.flatten(0, 1)).unflatten(0, states.shape[:2])
        states = states + (self.scale_shift_table[2] + time_gate) * self._attend_in_time(states, positions)
        return self._add_text_and_mlp(
            states, encoder_hidden_states, encoder_attention_mask, mlp_shift, mlp_scale, mlp_gate
        )

    def _attend_in_time(self, states: Tensor, positions: Tensor | None) -> Tensor:
        """The attention among frames reads the stream as it is: no norm, no modulation."""
        if positions is not None:
            states = (states + positions).to(states.dtype)
        columns = states.transpose(1, 2)
        attended: Tensor = self.attn_temp(columns.flatten(0, 1)).unflatten(0, columns.shape[:2])
        return attended.transpose(1, 2)


# diffusers' caches ask here what a block returns.
TransformerBlockRegistry.register(STDiTBlock, TransformerBlockMetadata(return_hidden_states_index=0))


class STDiTTransformer3DModel(KeepsFloat32, OpenSoraTransformer):
    """STDiT, the transformer of Open-Sora 1.0 and most probably the base of ModelGrow's published results.

    `from_pretrained` reads folders with the reference's config and tensors, and this class's own. Arguments have the
    reference's names and defaults, which are those of STDiT-XL/2 for an image. In 16 bits it is not to the bit the
    reference, which rounds timesteps and positions; here they are float32.

    It predicts noise, for timesteps up to 999, and does not read fps, height and width.

    Args, beside those of `OpenSoraTransformer`:
        input_size: Latent frames, height and width, (16, 32, 32) for 16 frames of 256 x 256 pixels. Its position
            tables fit no others: `forward` raises `GenerateError`.
        depth: Blocks.
        space_scale, time_scale: Positions are divided by these; 0.5 and 1 for 256 x 256 pixels.
        temporal_position_block: The block that adds the table of frame positions. The reference's first one does; it
            keeps doing so when blocks are put before it.
    """

    __module__ = "modelgrow.pipelines"
    _no_split_modules = ("STDiTBlock",)
    _repeated_blocks = ("STDiTBlock",)
    _float32_tables = ("pos_embed", "pos_embed_temporal")
    _keep_in_fp32_modules: ClassVar[list[str]] = list(_float32_tables)

    pos_embed: Tensor
    pos_embed_temporal: Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_size: tuple[int, int, int] = (1, 32, 32),
        in_channels: int = 4,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        class_dropout_prob: float = 0.1,
        pred_sigma: bool = True,
        caption_channels: int = 4096,
        model_max_length: int = 120,
        space_scale: float = 1.0,
        time_scale: float = 1.0,
        temporal_position_block: int = 0,
    ) -> None:
        super().__init__()
        frames, rows, columns = (size // patch for size, patch in zip(input_size, patch_size, strict=True))
        self.grid: tuple[int, int, int] = (frames, rows, columns)
        times, down, across = (
            torch.arange(count, dtype=torch.float64) / scale
            for count, scale in zip(self.grid, (time_scale, space_scale, space_scale), strict=True)
        )
        self.register_buffer("pos_embed", plane(down, across, hidden_size).float())
        self.register_buffer("pos_embed_temporal", sines(times, hidden_size)[None].float())
        self._build_shell(caption_channels, model_max_length, patch_size)
        self.blocks = nn.ModuleList(STDiTBlock(hidden_size, num_heads, mlp_ratio) for _ in range(depth))

    def _embed(
        self, latents: Tensor, fps: Tensor | None, height: Tensor | None, width: Tensor | None
    ) -> tuple[Tensor, tuple[int, int, int], float]:
        if tuple(latents.shape[2:]) != tuple(self.config.input_size):
            raise GenerateError(
                f"latents of {list(latents.shape[2:])} (frames, height, width): this model's position tables are for "
                f"{list(self.config.input_size)}, as config.json says in input_size"
            )
        tokens = (self.x_embedder(latents) + self.pos_embed).to(latents.dtype)
        return tokens.flatten(1, 2), self.grid, 0.0

    def _run_blocks(self, tokens: Tensor, text: Tensor, mask: Tensor | None, time: Time) -> Tensor:
        # The gate of the attention among frames is the timestep's for given frames too: the reference's weights know
        # nothing else.
        time_gate = time.rows[:, :, 2:3]
        positions = self.pos_embed_temporal[:, :, None]
        for number, block in enumerate(self.blocks):
            added = positions if number == self.config.temporal_position_block else None
            tokens = self._run(block, tokens, text, mask, time.by_frame, time.frames, time_gate, added)
        return tokens
