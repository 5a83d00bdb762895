"""A batch as a pure function of the run's seed and the batch's number.

Order of clips, noise, levels and dropped captions all follow from (seed, number, process), so a run that
is stopped goes on bit for bit with nothing saved but the step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .cache import batches

if TYPE_CHECKING:
    from .cache import Cache
    from .objectives.objective import Objective
    from .settings import Settings


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Float32 on the CPU. B samples."""

    clips: tuple[int, ...]
    """Their numbers in the cache."""
    latents: torch.Tensor
    noise: torch.Tensor
    levels: torch.Tensor
    text: dict[str, torch.Tensor]


def generator_of(seed: int, *parts: int | str) -> torch.Generator:
    """A generator of its own for everything that is drawn, on the CPU and so alike on every device."""
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def draw_batch(
    cache: Cache, objective: Objective, settings: Settings, number: int, *, process: int = 0, processes: int = 1
) -> Batch:
    """Batch `number` of a process's share."""
    chosen = batches(
        cache,
        batch_size=settings.batch_size,
        seed=settings.seed,
        step=number,
        rank=process,
        num_processes=processes,
    )
    generator = generator_of(settings.seed, "batch", number, process)
    examples = [cache.example(index) for index in chosen]
    empty = cache.empty_text()
    texts = [text_of(example, empty, settings, generator) for example in examples]
    latents = torch.stack([example["latents"].float() for example in examples])
    return Batch(
        clips=tuple(chosen),
        latents=latents,
        noise=torch.randn(latents.shape, generator=generator),
        levels=objective.draw(len(chosen), generator),
        text={name: torch.stack([text[name] for text in texts]) for name in texts[0]},
    )


def text_of(
    example: dict[str, torch.Tensor],
    empty: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Which text a clip is trained with this time: its caption, its long one, or none, for guidance."""
    drop, long = torch.rand(2, generator=generator).tolist()
    if drop < settings.caption_dropout:
        return empty
    has_long = any(name.startswith("long.") for name in example)
    kind = "long." if has_long and long < settings.long_captions else "text."
    return {name.removeprefix(kind): value for name, value in example.items() if name.startswith(kind)}
