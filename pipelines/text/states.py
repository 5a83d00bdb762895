"""A language model's states of prompts, in memory and in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modelgrow.surgery import GenerateError
from modelgrow.surgery.disk import as_output_error
from modelgrow.surgery.staging import staged_file

_ABOUT = "modelgrow.llm_states"


@dataclass(frozen=True, kw_only=True, eq=False)
class LLMStates:
    """What a slot reads of B prompts. A prompt without tokens, such as "", reads the slot's null embedding."""

    states: torch.Tensor
    """(B, L, D), zero where `mask` is False."""
    mask: torch.Tensor
    """(B, L) bool: a prompt's tokens from the left, padding on the right."""
    about: dict[str, Any] = field(default_factory=dict)
    """Which model, layer and template read them: the keys of `llm_slot` that decide what they are."""

    def __len__(self) -> int:
        return len(self.states)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LLMStates:
        return LLMStates(states=self.states.to(device, dtype), mask=self.mask.to(device), about=self.about)

    def repeated(self, times: int) -> LLMStates:
        """Each prompt `times` times in a row, as pipelines do for `num_videos_per_prompt`."""
        return LLMStates(
            states=self.states.repeat_interleave(times, dim=0),
            mask=self.mask.repeat_interleave(times, dim=0),
            about=self.about,
        )

    def padded(self, length: int) -> LLMStates:
        """Padded to L tokens. They are `length` or fewer."""
        more = length - self.states.shape[1]
        return LLMStates(
            states=torch.nn.functional.pad(self.states, (0, 0, 0, more)),
            mask=torch.nn.functional.pad(self.mask, (0, more)),
            about=self.about,
        )

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, over one that is there. Raises `OutputError`."""
        from safetensors.torch import save

        target = Path(path)
        tensors = {"states": self.states.contiguous().cpu(), "mask": self.mask.contiguous().cpu()}
        data = save(tensors, metadata={_ABOUT: json.dumps(self.about)})
        with staged_file(target, inputs=[], num_bytes=len(data), overwrite=True) as place:
            try:
                place.write_bytes(data)
            except OSError as error:
                raise as_output_error(error, target) from error
        return target

    @classmethod
    def load(cls, path: str | Path) -> LLMStates:
        """Read what `save` wrote. Raises `GenerateError` if it is something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                about = json.loads((file.metadata() or {})[_ABOUT])
                # In memory of their own: CPU kernels take another path for tensors that lie unaligned in a file.
                states, mask = file.get_tensor("states").clone(), file.get_tensor("mask").clone()
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise GenerateError(f"{path}: no states of a language model, as LLMStates.save writes them") from error
        if states.ndim != 3 or mask.dtype != torch.bool or mask.shape != states.shape[:2]:
            raise GenerateError(
                f"{path}: states have the shape {list(states.shape)} and the mask {list(mask.shape)} in {mask.dtype}; "
                "expected (B, L, D), and (B, L) in bool"
            )
        return cls(states=states, mask=mask, about=about)


def none_of(states: LLMStates, count: int) -> LLMStates:
    """`count` prompts that say nothing, beside others."""
    shape = (count, 1, states.states.shape[2])
    return LLMStates(states=states.states.new_zeros(shape), mask=states.mask.new_zeros(shape[:2]), about=states.about)


def joined(parts: list[LLMStates]) -> LLMStates:
    """Prompts one after another, padded to the longest."""
    length = max(part.states.shape[1] for part in parts)
    padded = [part.padded(length) for part in parts]
    return LLMStates(
        states=torch.cat([part.states for part in padded]),
        mask=torch.cat([part.mask for part in padded]),
        about=parts[0].about,
    )
