"""What the cache computes with: a pipeline's VAE and text encoders, by its family's rules."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery.fingerprint import fingerprint_of

from .families.family import captions_beside, controls_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgrow.surgery import Source

    from .families.family import Family

_READ_AS = ("model", "revision", "layer", "template", "max_length")
"""What of a slot decides what a language model's states are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PipelineEncoder:
    """Latents and text states, float32 on the CPU."""

    pipeline: Any
    family: Family
    fingerprint: str
    device: torch.device

    @torch.no_grad()
    def encode_video(self, pixels: torch.Tensor) -> torch.Tensor:
        """`pixels` (B, 3, T, H, W) in [-1, 1] -> (B, C, F, h, w)."""
        return self.family.encode_video(self.pipeline, pixels.to(self.device)).float().cpu()

    @property
    def control_sizes(self) -> dict[str, tuple[int, int] | None]:
        """Of the control clips that the model reads, by name: height and width in pixels, None for the clips' own."""
        return {name: control.size for name, control in controls_of(self.family, self.pipeline).items()}

    @torch.no_grad()
    def encode_conditions(
        self, pixels: torch.Tensor, frame_rates: list[float | None], controls: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What the model reads of the clips themselves and of control clips, by name; nothing in most families."""
        own: Any = getattr(self.family, "encode_conditions", None)
        if own is None:
            return {}
        given = {name: control.to(self.device) for name, control in controls.items()}
        # Families that read no control clips take no such argument.
        extra = [given] if hasattr(self.family, "controls") else []
        found = own(self.pipeline, pixels.to(self.device), frame_rates, *extra)
        return {name: value.cpu() for name, value in found.items()}

    @torch.no_grad()
    def encode_captions(self, captions: list[str], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Text states of clips' captions, by name. `pixels` (B, 3, T, H, W) in [-1, 1]: most families do not look."""
        states = captions_beside(self.family, self.pipeline, captions, pixels)
        return {name: state.cpu() for name, state in states.items()}

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> dict[str, torch.Tensor]:
        """Text states by name; the first axis of each is B."""
        states = self.family.encode_text(self.pipeline, captions)
        return {name: state.cpu() for name, state in states.items()}


def fingerprint(source: Source, component: str) -> str:
    """Of everything in a pipeline but the component that trains: what latents and text states depend on."""
    digest = hashlib.sha256()
    slots = [part.checkpoint.config.get("llm_slot") for part in source.components if part.checkpoint is not None]
    for slot in (slot for slot in slots if isinstance(slot, dict)):
        digest.update(json.dumps([slot.get(name) for name in _READ_AS]).encode())
    for part in source.components:
        if part.name != component and part.checkpoint is not None:
            digest.update(f"{part.name} {fingerprint_of(part.checkpoint)}\n".encode())
    return digest.hexdigest()
