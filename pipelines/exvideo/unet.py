"""Stable Video Diffusion's UNet with ExVideo's temporal blocks.

Shape letters: B clips, T frames, h, w height and width of the latents, S tokens and D channels of the image's states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import UNetSpatioTemporalConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

from modelgrow.surgery import GenerateError

from .temporal import ExVideoTransformerSpatioTemporalModel

if TYPE_CHECKING:
    import torch
    from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionOutput

_DOWN_BLOCKS = (
    "CrossAttnDownBlockSpatioTemporal",
    "CrossAttnDownBlockSpatioTemporal",
    "CrossAttnDownBlockSpatioTemporal",
    "DownBlockSpatioTemporal",
)
_UP_BLOCKS = (
    "UpBlockSpatioTemporal",
    "CrossAttnUpBlockSpatioTemporal",
    "CrossAttnUpBlockSpatioTemporal",
    "CrossAttnUpBlockSpatioTemporal",
)


class ExVideoUNetSpatioTemporalConditionModel(UNetSpatioTemporalConditionModel):
    """SVD's UNet for clips of up to `num_position_frames` frames (arXiv 2406.14130).

    Each of its temporal attention blocks, sixteen in SVD, is an `ExVideoTransformerSpatioTemporalModel`; all else is
    SVD's. New parameters, for a block at A: `A.position_table.weight` (num_position_frames, C),
    `A.temporal_conv.weight` (C, C, 3, 3, 3) and `A.temporal_conv.bias` (C).

    Args:
        num_frames: Of the clips that the base was trained on (25 for SVD-XT, 14 for SVD). Clips no longer than that
            have the base's own positions in a new model.
        num_position_frames: Rows of the position tables: the most frames that a clip may have.

    The others are `UNetSpatioTemporalConditionModel`'s.
    """

    __module__ = "modelgrow.pipelines"
    _no_split_modules = ("ExVideoTransformerSpatioTemporalModel", "SpatioTemporalResBlock")
    _repeated_blocks = ("ExVideoTransformerSpatioTemporalModel",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = _DOWN_BLOCKS,
        up_block_types: tuple[str, ...] = _UP_BLOCKS,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int, ...] = 2,
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[Any, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        num_position_frames: int = 128,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        for path, block in list(self.named_modules()):
            if isinstance(block, TransformerSpatioTemporalModel):
                self.set_submodule(path, _extended(block, num_position_frames, num_frames))

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        added_time_ids: torch.Tensor,
        return_dict: bool = True,
    ) -> UNetSpatioTemporalConditionOutput | tuple[torch.Tensor]:
        """As in diffusers.

        Args:
            sample: (B, T, in_channels, h, w): scaled noisy latents, and beside them the image's.
            timestep: 0.25 ln(sigma), one for all or (B,).
            encoder_hidden_states: (B, S, D), the image's CLIP states.
            added_time_ids: (B, 3): frames per second less one, motion bucket, noise on the image.
            return_dict: Whether to return an object instead of a tuple.

        Raises:
            GenerateError: The clip is longer than the tables, or too short or too small for reflect padding.
        """
        self._check_size(sample.shape[1], sample.shape[3], sample.shape[4])
        output: UNetSpatioTemporalConditionOutput | tuple[torch.Tensor] = super().forward(
            sample, timestep, encoder_hidden_states, added_time_ids, return_dict=return_dict
        )
        return output

    def _check_size(self, frames: int, height: int, width: int) -> None:
        rows = self.config.num_position_frames
        if frames > rows:
            raise GenerateError(
                f"a clip of {frames} frames: this model's position tables have {rows} rows. Ask for {rows} frames at "
                f"most, or make them longer with 'grow extend-frames --to {frames}'"
            )
        if frames < 2:
            raise GenerateError("a clip of one frame: ExVideo's convolution over time needs two at least")
        factor = 2**self.num_upsamplers
        if min(height, width) <= factor:
            raise GenerateError(
                f"latents of {height}x{width}: at its deepest level this model sees them {factor} times smaller, and "
                f"its convolution needs 2x2 there. Ask for sides of {2 * factor} latents at least"
            )


def _extended(
    block: TransformerSpatioTemporalModel, num_position_frames: int, base_frames: int
) -> ExVideoTransformerSpatioTemporalModel:
    return ExVideoTransformerSpatioTemporalModel(
        block.num_attention_heads,
        block.attention_head_dim,
        in_channels=block.in_channels,
        num_layers=len(block.transformer_blocks),
        cross_attention_dim=block.transformer_blocks[0].attn2.cross_attention_dim,
        num_position_frames=num_position_frames,
        base_frames=base_frames,
    )
