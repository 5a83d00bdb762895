"""What the loop must know of a pipeline's kind: its text states, its latents, one call of its model.

Shape letters: B samples, C channels, T frames in pixels, F latent frames, H, W height and width in pixels, h, w in
latents. A family's own are at the top of its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modelgrow.pipelines.controls import control_arguments
from modelgrow.pipelines.inputs import as_pictures

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..objectives.objective import Objective
    from ..settings import Settings

Text = Mapping[str, "torch.Tensor"]
"""Text states by name; the first axis of each is B."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control clip that a model reads. `size`: height and width in pixels; None is the clip's own as trained on."""

    required: bool
    size: tuple[int, int] | None = None


class Family(Protocol):
    """One file per family, each with these functions. It may have more, see `Extras`."""

    def encode_text(self, pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
        """What the model reads of a prompt, as the pipeline makes it, by name; the first axis of each is B."""

    def encode_video(self, pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
        """`pixels` (B, 3, T, H, W) in [-1, 1] -> normalised latents (B, C, F, h, w), float32, the posterior's mean."""

    def predict(
        self, pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text
    ) -> torch.Tensor:
        """One call of the model, wrapped or not: (B, C, F, h, w) in, the same out.

        `timesteps` are the objective's, (B,) in most families. `text` has what `encode_text`, `encode_captions` and
        `encode_conditions` made, in the dtype of `noisy` where it was floating point.
        """


class Extras(Protocol):
    """What a family's file may have besides, where it is otherwise than in most; asked for by name."""

    CAPTIONS: bool
    """False: its model reads no text."""
    CAUSAL: bool
    """False: its VAE takes k x factor frames, and not 1 + k x factor."""
    PACKED: int
    """A side of what its pipeline packs into one token, where the model's config does not say."""
    BY_CLIP: bool
    """True: `predict` calls its model once for each clip."""
    CALLED: tuple[str, ...]
    """The components of the pipeline that `predict` calls besides the model."""

    def length_factor(self, pipeline: Any) -> int:
        """The VAE's factor above, where that is not how much it shortens."""

    def objective(self, pipeline: Any, settings: Settings) -> Objective:
        """Where the scheduler does not say enough. Raises `TrainError` for what can't be trained."""

    def idle(self, name: str, config: Any) -> bool:
        """Whether a parameter of a model of that config has no part in what `predict` answers, so that it can't be
        trained."""

    def controls(self, pipeline: Any) -> Mapping[str, Control]:
        """The control clips that its model reads, by name."""

    def encode_conditions(
        self,
        pipeline: Any,
        pixels: torch.Tensor,
        frame_rates: list[float | None],
        controls: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """What its model reads of the clips themselves, by name; the first axis of each is B.

        Names that begin with "kept_" stay where a caption is dropped; the others become zeros.

        Args:
            pipeline: Of the model.
            pixels: (B, 3, T, H, W) in [-1, 1].
            frame_rates: Frames per second of each clip, None where it does not say.
            controls: Those of `controls` that the data have, like `pixels`, each of its own size. A family without
                control clips has no such argument.
        """

    def encode_captions(self, pipeline: Any, captions: list[str], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Captions, where its text encoder looks at their clips too, (B, 3, T, H, W) in [-1, 1]. `encode_text` then
        makes what is read without one, where a caption is dropped."""

    def preview_arguments(self, pipeline: Any, controls: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What its pipeline is called with for control clips, (T, H, W, 3) uint8, by name, where that is not what
        `control_arguments` makes of them."""


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


def preview_arguments(family: Family, pipeline: Any, controls: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a pipeline is called with to make a preview of control clips, (T, H, W, 3) uint8, by name."""
    own: Any = getattr(family, "preview_arguments", None)
    if own is not None:
        found: dict[str, Any] = own(pipeline, controls)
        return found
    return control_arguments(pipeline, {name: as_pictures(frames) for name, frames in controls.items()})
