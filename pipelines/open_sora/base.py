"""What the two transformers of Open-Sora have in common: a shell, how they load and run, and what a timestep becomes.

Shape letters: B samples, T frames in patches, S patches of a frame, C width, L text tokens, D width of a text state.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from modelgrow.surgery import GenerateError

from . import published
from .keys import own_config
from .layers import CaptionEmbedder, FinalLayer, PatchEmbed3D, ScalarEmbedder, repeat_rows, text_mask, unpatchify


class Time(NamedTuple):
    """A timestep as the model reads it. Given frames are at timestep 0."""

    now: Tensor
    """(B, C), its embedding."""
    clean: Tensor | None
    """(B, C), that of timestep 0; None without given frames."""
    rows: Tensor
    """(B, 1, 6, C), the blocks' modulation by the timestep alone."""
    by_frame: Tensor
    """(B, T, 6, C), by the timestep or by 0, as a frame is denoised or given; `rows` without given frames."""
    frames: int
    """T."""


class OpenSoraTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin, AttentionMixin):
    """The part of `STDiT3Transformer3DModel` and `STDiTTransformer3DModel` that is alike.

    There is no plan for context parallelism: the sequence that attention runs over changes from the patches of a frame
    to the frames of a patch, so no axis can be split throughout, and diffusers' plans have no exchange between blocks.

    Arguments that both are built with:
        in_channels: Of the latents.
        patch_size: Frames, height and width that make a token.
        hidden_size: C.
        num_heads: Of every attention.
        mlp_ratio: Width of the feed-forward over C.
        class_dropout_prob: Share of the prompts that training replaces by the null caption, for whoever trains.
        pred_sigma: Whether there are as many channels of variance behind those of what is predicted.
        caption_channels: D.
        model_max_length: L of the null caption.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ("x_embedder", "rope", "pos_embed", "norm")
    _cp_plan = None
    _unread: tuple[str, ...] = ()
    config: Any
    patch: tuple[int, int, int]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As diffusers has it; reads a folder, or a Hub id, in the published form too."""
        convert = partial(own_config, unread=cls._unread)
        return published.load(cls, pretrained_model_name_or_path, kwargs, convert, super().from_pretrained)

    @classmethod
    def extract_init_dict(cls, config_dict: Any, **kwargs: Any) -> Any:
        """As diffusers has it; a config that was grown from a published one still has the reference's keys."""
        return super().extract_init_dict(own_config(config_dict, cls._unread), **kwargs)

    def _build_shell(self, text_width: int, text_tokens: int, patch: tuple[int, int, int]) -> None:
        width, channels = self.config.hidden_size, self.config.in_channels
        self.patch = patch = (patch[0], patch[1], patch[2])  # a list, where it comes from JSON
        # The second half of the output is a variance that diffusion in the way of DDPM can learn.
        self.out_channels = 2 * channels if self.config.pred_sigma else channels
        self.x_embedder = PatchEmbed3D(channels, width, patch)
        self.t_embedder = ScalarEmbedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = CaptionEmbedder(text_width, width, text_tokens)
        self.final_layer = FinalLayer(width, patch[0] * patch[1] * patch[2] * self.out_channels)
        self.gradient_checkpointing = False

    @apply_lora_scale("attention_kwargs")  # type: ignore[untyped-decorator]
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        fps: Tensor | None = None,
        height: Tensor | None = None,
        width: Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """What is predicted, and a variance behind it if there is `pred_sigma`: (B, 2 * in_channels, t, h, w) float32.

        Args:
            hidden_states: (B, in_channels, t, h, w), noisy latents.
            timestep: (B,), from 0, clean, to 999 or 1000, noise; or one for all.
            encoder_hidden_states: (B, L, D), T5's.
            encoder_attention_mask: (B, L), 1 where a token counts; (B / 2, L) stands for both halves of guidance.
                None is all.
            frame_mask: (B, T) bool, True where a frame is denoised; others are given, and at timestep 0. None is all.
            fps: (B,), frames per second of the clip; 120 for an image.
            height, width: (B,), of the clip in pixels. A batch has one size: only the first is read.
            attention_kwargs: `scale`, of LoRA layers.
            return_dict: Whether to return an object instead of a tuple.

        Raises:
            GenerateError: The model can't do what is asked, or something has not a row for each sample.
        """
        size, dtype = hidden_states.shape[2:], self.x_embedder.proj.weight.dtype
        tokens, grid, extra = self._embed(hidden_states.to(dtype), fps, height, width)
        frame_mask = self._read_frame_mask(frame_mask, tokens, grid[0])
        time = self._read_time(timestep, grid[0], frame_mask, tokens, extra)
        text, mask = self._read_text(encoder_hidden_states, encoder_attention_mask, dtype)
        tokens = self._run_blocks(tokens, text, mask, time)
        patches = self.final_layer(tokens, time.now, time.clean, frame_mask)
        return _as_output(unpatchify(patches, grid, self.patch, size), return_dict)

    def _embed(
        self, latents: Tensor, fps: Tensor | None, height: Tensor | None, width: Tensor | None
    ) -> tuple[Tensor, tuple[int, int, int], Tensor | float]:
        """The video's tokens at their positions, (B, T * S, C); T, rows and columns of them; and what is added to the
        timestep's embedding, (B, C). The latents are in the model's dtype."""
        raise NotImplementedError

    def _run_blocks(self, tokens: Tensor, text: Tensor, mask: Tensor | None, time: Time) -> Tensor:
        """(B, T * S, C) to the same."""
        raise NotImplementedError

    def _read_text(self, states: Tensor, mask: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """(B, L, D), or (B, 1, L, D) as in the reference, and its mask -> (B, L, C) and (B, 1, 1, L)."""
        if states.ndim == 4:
            states = states.squeeze(1)
        return self.y_embedder(states.to(dtype)), text_mask(mask, len(states))

    def _read_time(
        self, timestep: Tensor | float, frames: int, frame_mask: Tensor | None, like: Tensor, extra: Tensor | float
    ) -> Time:
        """What the blocks and the final layer are told of the timestep.

        Args:
            timestep: (B,), from 0 to 1000; or one for all.
            frames: T.
            frame_mask: (B, T) bool, True where a frame is denoised.
            like: The video's tokens, (B, ...), in the model's device and dtype.
            extra: (B, C), added to both embeddings.
        """
        values = torch.as_tensor(timestep, device=like.device, dtype=torch.float32).reshape(-1)
        values = repeat_rows(values, len(like), "timestep")
        now = self.t_embedder(values, like.dtype) + extra
        rows = self._six(now)
        if frame_mask is None:
            return Time(now=now, clean=None, rows=rows, by_frame=rows, frames=frames)
        clean = self.t_embedder(torch.zeros_like(values), like.dtype) + extra
        by_frame = torch.where(frame_mask[:, :, None, None], rows, self._six(clean))
        return Time(now=now, clean=clean, rows=rows, by_frame=by_frame, frames=frames)

    def _six(self, embedded: Tensor) -> Tensor:
        """(B, C) -> (B, 1, 6, C): shift, scale and gate of the attention, then of the feed-forward."""
        rows: Tensor = self.t_block(embedded).unflatten(1, (1, 6, -1))
        return rows

    def _read_frame_mask(self, frame_mask: Tensor | None, tokens: Tensor, frames: int) -> Tensor | None:
        """As bool, on the tokens' device. Raises `GenerateError` if it is not (B, T)."""
        if frame_mask is None:
            return None
        if tuple(frame_mask.shape) != (len(tokens), frames):
            raise GenerateError(
                f"frame_mask is {list(frame_mask.shape)}; expected [{len(tokens)}, {frames}], samples by latent frames"
            )
        return frame_mask.to(tokens.device, torch.bool)

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            states: Tensor = self._gradient_checkpointing_func(block, *args)
            return states
        output: Tensor = block(*args)
        return output


def _as_output(sample: Tensor, return_dict: bool) -> Transformer2DModelOutput | tuple[Tensor]:
    """In float32 whatever the model's dtype, as in the reference: the scheduler adds up small steps."""
    sample = sample.float()
    return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
