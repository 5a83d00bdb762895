"""What text encoders give, where families' pipelines hand it on alike.

Shape letters: B samples, L tokens, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def states_and_mask(pipeline: Any, captions: list[str], **options: Any) -> dict[str, torch.Tensor]:
    """`states` (B, L, D) and `mask` (B, L), of a pipeline that gives both; `options` are its own `encode_prompt`'s."""
    states, mask, _, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, **options)
    return {"states": states, "mask": mask}
