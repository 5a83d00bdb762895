"""What `OpenSoraPipeline` can be asked for, checked, and what it takes where nothing was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError

from .sizes import dframe_to_frame, get_image_size, get_num_frames

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Of one version of Open-Sora, as its authors sampled it."""

    resolution: str | None
    size: tuple[int, int] | None
    num_frames: int
    num_inference_steps: int
    guidance_channels: int | None
    """How many of the latents' channels are guided; None is all."""


FLOW = Defaults(resolution="240p", size=None, num_frames=51, num_inference_steps=30, guidance_channels=None)
"""Open-Sora 1.2."""
DIFFUSION = Defaults(resolution=None, size=(256, 256), num_frames=16, num_inference_steps=100, guidance_channels=3)
"""Open-Sora 1.0."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a clip, in pixels and frames."""

    height: int
    width: int
    num_frames: int


def resolve_size(
    defaults: Defaults,
    pixels: tuple[int | None, int | None],
    names: tuple[str | None, str | None],
    num_frames: int | str | None,
    factor: int,
) -> Size:
    """Height and width, or a resolution and an aspect ratio, or the version's own.

    Args:
        defaults: The version's.
        pixels: Height and width, both or neither.
        names: Resolution and aspect ratio, see `sizes`.
        num_frames: A number or a name.
        factor: Pixels to a latent, along a side.

    Raises:
        GenerateError: They contradict each other, or name what is not there, or make no latent.
    """
    (height, width), (resolution, aspect_ratio) = pixels, names
    if (height is None) != (width is None):
        raise GenerateError(f"height is {height}, width is {width}; give both or neither")
    if height is not None and width is not None:
        if resolution is not None or aspect_ratio is not None:
            raise GenerateError("give height and width, or resolution and aspect_ratio, not all of them")
        size = (height, width)
    elif resolution is None and aspect_ratio is None and defaults.size is not None:
        size = defaults.size
    else:
        size = get_image_size(resolution or defaults.resolution or "240p", aspect_ratio or "9:16")
    if min(size) < factor:
        raise GenerateError(f"{size[0]} x {size[1]} pixels make no latent; the VAE makes one of {factor} x {factor}")
    frames = get_num_frames(defaults.num_frames if num_frames is None else num_frames)
    return Size(height=size[0], width=size[1], num_frames=frames)


def check_prompts(prompt: Any, prompt_embeds: Any, prompt_attention_mask: Any) -> int:
    """How many prompts there are. Raises `GenerateError` unless they came in exactly one form."""
    if (prompt is None) == (prompt_embeds is None):
        raise GenerateError("give prompt, or prompt_embeds with prompt_attention_mask, exactly one of the two")
    if prompt_embeds is not None:
        if prompt_attention_mask is None or prompt_attention_mask.shape != prompt_embeds.shape[:2]:
            raise GenerateError("prompt_embeds (B, L, D) need a prompt_attention_mask (B, L)")
        return len(prompt_embeds)
    if isinstance(prompt, str):
        return 1
    if not isinstance(prompt, list | tuple) or not prompt or not all(isinstance(text, str) for text in prompt):
        raise GenerateError(f"prompt is {prompt!r:.80}; expected a text, or a list of texts")
    return len(prompt)


def check_loops(loop: int, condition_frame_length: int, num_latents: int) -> None:
    """Raises `GenerateError` if loops can't be joined."""
    if loop < 1:
        raise GenerateError(f"loop is {loop}; it must be at least 1")
    if loop > 1:
        dframe_to_frame(condition_frame_length)
        if not 0 < condition_frame_length < num_latents:
            raise GenerateError(
                f"condition_frame_length is {condition_frame_length} latent frames, a clip has {num_latents}; "
                "each loop must make something new"
            )


def one_each(given: str | Sequence[str | None] | None, count: int, name: str) -> list[str]:
    """A text for all, or one for each of `count`. Raises `GenerateError` if there is another number of them."""
    found = [given] if given is None or isinstance(given, str) else list(given)
    found = found * count if len(found) == 1 else found
    if len(found) != count:
        raise GenerateError(f"{len(found)} {name} for {count} prompts; give one for all, or one for each")
    return [text or "" for text in found]
