"""What the loop must know of a pipeline's kind: its text states, its latents, one call of its model.

Shape letters: B samples, C channels, T frames in pixels, F latent frames, H, W height and width in
pixels, h, w in latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

Text = Mapping[str, "torch.Tensor"]
"""Text states by name; the first axis of each is B."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control clip that a model reads. `size`: height and width in pixels; None is the clip's own as trained on."""

    required: bool
    size: tuple[int, int] | None = None


class Family(Protocol):
    """One file per family, each with these functions.

    A file may say besides, where it is otherwise: `CAPTIONS = False`, its model reads no text; `CAUSAL = False`,
    its VAE takes k x factor frames, not 1 + k x factor; `length_factor(pipeline)`, that factor, where it is not how
    much the VAE shortens; `PACKED`, a side of what its pipeline packs into one token, where the model's config does
    not say; `objective(pipeline, settings)`, where the scheduler does not say enough;
    `encode_conditions(pipeline, pixels, frame_rates)`, what its model reads of the clips themselves;
    `encode_captions(pipeline, captions, pixels)`, what it reads of their captions, where its text encoder looks at the
    clips too: `encode_text` then makes what is read without one, where a caption is dropped;
    `controls(pipeline)`, the control clips that it reads beside them, `Control` by name: then `encode_conditions` has a
    fourth argument, those that the data have, (B, 3, T, H, W) in [-1, 1] by name, and `preview_arguments(pipeline,
    controls)` says what its pipeline is called with for such clips, (T, H, W, 3) uint8 by name; `idle(name, config)`,
    whether a parameter of a model of that config has no part in what `predict` answers, so that it can't be
    trained; `BY_CLIP = True`, its `predict` calls its model once for each clip; `CALLED`, the names of the pipeline's
    components that `predict` calls besides the model.
    """

    def encode_text(self, pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
        """What the model reads of a prompt, as the pipeline makes it."""

    def encode_video(self, pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
        """`pixels` (B, 3, T, H, W) in [-1, 1] -> normalised latents (B, C, F, h, w), the posterior's mean."""

    def predict(
        self, pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text
    ) -> torch.Tensor:
        """One call of the model, wrapped or not: (B, C, F, h, w) in, the same out."""


def captions_beside(
    family: Family, pipeline: Any, captions: list[str], pixels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What the model reads of captions that have clips, `pixels` (B, 3, T, H, W) in [-1, 1], on the CPU.

    Only a family that has `encode_captions` looks at the clips.
    """
    own: Any = getattr(family, "encode_captions", None)
    states: dict[str, torch.Tensor] = own(pipeline, captions, pixels) if own else family.encode_text(pipeline, captions)
    return states


def trait(family: Family, name: str) -> bool:
    """What a family says of itself, `CAPTIONS` or `CAUSAL`; true where it says nothing."""
    return bool(getattr(family, name, True))


def controls_of(family: Family, pipeline: Any) -> Mapping[str, Control]:
    """The control clips that a model reads, by name; none in most families."""
    own: Any = getattr(family, "controls", None)
    found: Mapping[str, Control] = own(pipeline) if own else {}
    return found
