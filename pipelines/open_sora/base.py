"""What the two transformers of Open-Sora have in common: their shell, how they load, and what is made of a timestep.

Shape letters: B samples, T frames in patches, S patches of a frame, C width, L text tokens, D width of a text state.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from modelgrow.surgery import GenerateError

from . import published
from .keys import own_config
from .layers import CaptionEmbedder, FinalLayer, PatchEmbed3D, ScalarEmbedder, frame_modulation, repeat_rows, text_mask


class OpenSoraTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin, AttentionMixin):
    """The part of `STDiT3Transformer3DModel` and `STDiTTransformer3DModel` that is alike.

    There is no plan for context parallelism: the sequence that attention runs over changes from the patches of a frame
    to the frames of a patch, so no axis can be split throughout, and diffusers' plans have no exchange between blocks.
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

    def _read_text(self, states: Tensor, mask: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """(B, L, D), or (B, 1, L, D) as in the reference, and its mask -> (B, L, C) and (B, 1, 1, L)."""
        if states.ndim == 4:
            states = states.squeeze(1)
        return self.y_embedder(states.to(dtype)), text_mask(mask, len(states))

    def _read_time(
        self, timestep: Tensor | float, frame_mask: Tensor | None, grid: tuple[int, int], like: Tensor, extra: Any = 0
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Embeddings of the timestep and of timestep 0, each (B, C), and the blocks' modulation, (B, T or 1, 6, C).

        Args:
            timestep: (B,), from 0 to 1000; or one for all.
            frame_mask: (B, T) bool, True where a frame is denoised.
            grid: B and T.
            like: What has the model's device and dtype.
            extra: (B, C), added to both embeddings.
        """
        if frame_mask is not None and tuple(frame_mask.shape) != grid:
            raise GenerateError(
                f"frame_mask is {list(frame_mask.shape)}; expected [{grid[0]}, {grid[1]}], samples by latent frames"
            )
        values = torch.as_tensor(timestep, device=like.device, dtype=torch.float32).reshape(-1)
        values = repeat_rows(values, grid[0], "timestep")
        now = self.t_embedder(values, like.dtype) + extra
        if frame_mask is None:
            return now, None, frame_modulation(self.t_block(now), None, None)
        clean = self.t_embedder(torch.zeros_like(values), like.dtype) + extra
        return now, clean, frame_modulation(self.t_block(now), self.t_block(clean), frame_mask.bool())

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            states: Tensor = self._gradient_checkpointing_func(block, *args)
            return states
        output: Tensor = block(*args)
        return output


def as_output(sample: Tensor, return_dict: bool) -> Transformer2DModelOutput | tuple[Tensor]:
    """In float32 whatever the model's dtype, as in the reference: the scheduler adds up small steps."""
    sample = sample.float()
    return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
