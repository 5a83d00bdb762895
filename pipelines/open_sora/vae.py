"""Open-Sora's VAE as a diffusers model: each frame by a 2D VAE, then time by causal convolutions.

    latents = (temporal(spatial_scale * spatial(frames)) - shift) / scale

Shape letters: B samples, C latent channels, T frames, F latent frames, H, W height and width in pixels,
h, w in latents.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook

from modelgrow.surgery import GenerateError

from . import published
from .temporal_vae import TemporalVAE
from .vae_config import SDXL_VAE, TEMPORAL, arguments, from_published

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHIFT = (-0.10, 0.34, 0.27, 0.98)
_SCALE = (3.85, 2.32, 2.33, 3.06)


class AutoencoderKLOpenSora(ModelMixin, AutoencoderMixin, ConfigMixin):
    """The VAE of Open-Sora 1.2, and, without its temporal part, that of 1.0.

    Latents are normalized here, not by the pipeline, as in the reference (`opensora/models/vae/vae.py`). Every 17
    frames make 5 latent frames with no knowledge of the frames before, so clips may be of any length, and there can
    be a seam at every 17th frame. `from_pretrained` reads this class's folders and the published ones.

    Args:
        spatial: Arguments of `AutoencoderKL`. Default: SDXL's VAE, as Open-Sora 1.2 has it.
        temporal: Arguments of `TemporalVAE`; None is without, every frame then has a latent frame of its own.
        micro_frame_size: Frames coded together in time; None is all.
        micro_batch_size: Frames coded together by the 2D VAE; None is all.
        spatial_scale: Of the 2D latents. The reference has Stable Diffusion 1's 0.18215 in its code and takes no
            notice of what the 2D VAE's own config says (0.13025 for SDXL's); the temporal part was trained so.
        shift, scale: Of the latents, one number for each channel.
    """

    __module__ = "modelgrow.pipelines"
    _no_split_modules = ("ResBlock", "ResnetBlock2D", "Attention")
    _supports_gradient_checkpointing = False

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        spatial: Mapping[str, Any] = SDXL_VAE,
        temporal: Mapping[str, Any] | None = TEMPORAL,
        micro_frame_size: int | None = 17,
        micro_batch_size: int | None = 4,
        spatial_scale: float = 0.18215,
        shift: Sequence[float] = _SHIFT,
        scale: Sequence[float] = _SCALE,
    ) -> None:
        super().__init__()
        self.spatial_vae = AutoencoderKL(**spatial)
        self.temporal_vae = None if temporal is None else TemporalVAE(**temporal)
        self.use_slicing = False
        for name, values in (("shift", shift), ("scale", scale)):
            if len(values) != self.latent_channels:
                raise GenerateError(
                    f"AutoencoderKLOpenSora: {name} has {len(values)} numbers, the latents have "
                    f"{self.latent_channels} channels; config.json must give one for each"
                )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As diffusers has it; reads a folder, or a Hub id, in the published form too."""
        return published.load(cls, pretrained_model_name_or_path, kwargs, from_published, super().from_pretrained)

    @classmethod
    def from_spatial(cls, spatial: AutoencoderKL) -> AutoencoderKLOpenSora:
        """A 2D VAE for clips, frame by frame, its weights shared: Open-Sora 1.0's. Latents are scaled and no more."""
        channels = spatial.config.latent_channels
        config = arguments(AutoencoderKL, spatial.config)
        model = cls(spatial=config, temporal=None, shift=[0.0] * channels, scale=[1.0] * channels)
        model.spatial_vae = spatial
        return model.to(spatial.dtype).eval()  # type: ignore[no-any-return]

    @property
    def use_tiling(self) -> bool:
        """Of the 2D part, which has the large pictures and is diffusers' own; `enable_tiling` sets it."""
        return bool(self.spatial_vae.use_tiling)

    @use_tiling.setter
    def use_tiling(self, value: bool) -> None:
        self.spatial_vae.use_tiling = value

    @property
    def latent_channels(self) -> int:
        """C."""
        return int(self.spatial_vae.config.latent_channels)

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels to a latent, along a side."""
        return int(2 ** (len(self.spatial_vae.config.block_out_channels) - 1))

    @property
    def temporal_compression_ratio(self) -> int:
        """Frames to a latent frame within a chunk; the last latent frame of a chunk may hold fewer."""
        return 1 if self.temporal_vae is None else int(self.temporal_vae.time_factor)

    def latent_frames(self, num_frames: int) -> int:
        """F for T frames: 5 for every 17, and a quarter of the rest, rounded up."""
        size, factor = self._chunk(num_frames), self.temporal_compression_ratio
        whole, rest = divmod(num_frames, size)
        return int(whole * ceil(size / factor) + ceil(rest / factor))

    def pixel_frames(self, latent_frames: int) -> int:
        """The fewest frames that make so many latent ones: 17 for 5, 1 for 1, 5 for 2."""
        factor = self.temporal_compression_ratio
        size = self.config.micro_frame_size or factor * latent_frames + 1
        whole, rest = divmod(latent_frames, ceil(size / factor))
        return int(whole * size + (factor * (rest - 1) + 1 if rest else 0))

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def encode(
        self,
        x: torch.Tensor,
        return_dict: bool = True,
        *,
        sample_spatial: bool = False,
        generator: torch.Generator | None = None,
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """`x` (B, 3, T, H, W) in [-1, 1] -> the posterior of the normalized latents (B, C, F, h, w), float32.

        Its `mode()` is repeatable. The reference draws from both posteriors, always; that is `sample_spatial=True`
        and `latent_dist.sample()`.

        Args:
            x: Frames. A height or width that the 2D VAE's factor does not divide loses its last few pixels.
            return_dict: False gives a tuple.
            sample_spatial: Draw from the 2D VAE's posterior, rather than take its mean.
            generator: Of that draw.
        """
        parts = x.split(1) if self.use_slicing else (x,)
        moments = torch.cat([self._encode(part, sample_spatial, generator) for part in parts])
        posterior = DiagonalGaussianDistribution(moments)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def decode(
        self, z: torch.Tensor, num_frames: int | None = None, return_dict: bool = True
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Normalised latents (B, C, F, h, w) -> frames (B, 3, T, H, W).

        Args:
            z: The latents.
            num_frames: T, which F does not say alone. Default: `pixel_frames(F)`.
            return_dict: False gives a tuple.

        Raises:
            GenerateError: `num_frames` frames do not have F latent ones.
        """
        count = self.pixel_frames(z.shape[2]) if num_frames is None else num_frames
        if self.latent_frames(count) != z.shape[2]:
            raise GenerateError(
                f"{z.shape[2]} latent frames can't become {count} frames, which have {self.latent_frames(count)}; "
                f"decode them to {self.pixel_frames(z.shape[2])}"
            )
        parts = z.split(1) if self.use_slicing else (z,)
        frames = torch.cat([self._decode(part, count) for part in parts])
        return DecoderOutput(sample=frames) if return_dict else (frames,)

    def forward(
        self,
        sample: torch.Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """There and back: (B, 3, T, H, W) -> the same."""
        posterior = self.encode(sample, sample_spatial=sample_posterior, generator=generator).latent_dist
        latents = posterior.sample(generator=generator) if sample_posterior else posterior.mode()
        output: DecoderOutput | tuple[torch.Tensor] = self.decode(latents, sample.shape[2], return_dict)
        return output

    def _encode(self, x: torch.Tensor, sample: bool, generator: torch.Generator | None) -> torch.Tensor:
        """Mean and log variance, normalized, (B, 2C, F, h, w)."""
        frames = x.transpose(1, 2).flatten(0, 1).to(self.dtype)
        outputs = [self.spatial_vae.encode(few).latent_dist for few in frames.split(self._micro_batch(frames))]
        if self.temporal_vae is None:
            moments = torch.cat([output.parameters for output in outputs]).unflatten(0, (len(x), -1)).transpose(1, 2)
            mean, log_variance = moments.float().chunk(2, dim=1)
            return self._normalize(mean, log_variance, self.config.spatial_scale)
        drawn = torch.cat([output.sample(generator) if sample else output.mode() for output in outputs])
        spatial = (drawn * self.config.spatial_scale).unflatten(0, (len(x), -1)).transpose(1, 2)
        chunks = [self.temporal_vae.encode(chunk) for chunk in spatial.split(self._chunk(x.shape[2]), dim=2)]
        mean, log_variance = torch.cat(chunks, dim=2).float().chunk(2, dim=1)
        return self._normalize(mean, log_variance, 1.0)

    def _normalize(self, mean: torch.Tensor, log_variance: torch.Tensor, factor: float) -> torch.Tensor:
        shift, scale = self._table(self.config.shift, mean), self._table(self.config.scale, mean)
        # diffusers' bounds hold for the log variance as the model gives it.
        spread = log_variance.clamp(-30.0, 20.0) + 2 * torch.log(factor / scale)
        return torch.cat([(mean * factor - shift) / scale, spread], dim=1)

    def _decode(self, z: torch.Tensor, num_frames: int) -> torch.Tensor:
        raw = z.float() * self._table(self.config.scale, z) + self._table(self.config.shift, z)
        spatial = raw.to(self.dtype)
        if self.temporal_vae is not None:
            size = self._chunk(num_frames)
            chunks = spatial.split(self.latent_frames(size), dim=2)
            counts = [min(size, num_frames - start) for start in range(0, num_frames, size)]
            spatial = torch.cat(
                [self.temporal_vae.decode(chunk, count) for chunk, count in zip(chunks, counts, strict=True)], dim=2
            )
        frames = spatial.transpose(1, 2).flatten(0, 1) / self.config.spatial_scale
        decoded = torch.cat([self.spatial_vae.decode(few).sample for few in frames.split(self._micro_batch(frames))])
        clips: torch.Tensor = decoded.unflatten(0, (len(z), -1)).transpose(1, 2)
        return clips

    def _chunk(self, num_frames: int) -> int:
        """Frames of a clip that are coded together."""
        return int(self.config.micro_frame_size or num_frames)

    def _micro_batch(self, frames: torch.Tensor) -> int:
        return int(self.config.micro_batch_size or len(frames))

    def _table(self, values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
        """(1, C, 1, 1, 1), float32 whatever the model's dtype: they are no weights."""
        return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, -1, 1, 1, 1)

    def _fix_state_dict_keys_on_load(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Published names to these; `shift` and `scale` stand in the config here."""
        for key in [key for key in state_dict if key.startswith("spatial_vae.module.")]:
            state_dict[key.replace("spatial_vae.module.", "spatial_vae.", 1)] = state_dict.pop(key)
        for name in ("shift", "scale"):
            state_dict.pop(name, None)
        return state_dict
