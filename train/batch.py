"""A batch as a pure function of the run's seed and the batch's number.

Order of clips, noise, levels and dropped captions all follow from the seed, the batch's number and a
sample's place in it, so a run that is stopped goes on bit for bit with nothing saved but the step, and two
processes see what one with twice the batch sees.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .cache import batches
from .objectives.objective import draw_levels
from .slot import without

if TYPE_CHECKING:
    from .cache import Cache
    from .objectives.objective import Objective
    from .settings import Settings

KEPT = "kept_"
"""How the names of text states begin that stay when a caption is dropped: Open-Sora's null caption has its length."""


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
    samples = [
        draw_sample(cache, objective, settings, clip, "batch", number, process * settings.batch_size + place)
        for place, clip in enumerate(chosen)
    ]
    return join(samples)


def draw_sample(cache: Cache, objective: Objective, settings: Settings, clip: int, *draw: int | str) -> Batch:
    """One clip with one draw of noise, level and caption: a batch of 1. `draw` names the draw."""
    generator = generator_of(settings.seed, *draw)
    example = cache.example(clip)
    text = text_of(example, cache.empty_text(), settings, generator)
    latents = example["latents"].float()[None]
    return Batch(
        clips=(clip,),
        latents=latents,
        noise=torch.randn(latents.shape, generator=generator),
        levels=draw_levels(objective, latents, generator),
        text={name: value[None] for name, value in text.items()},
    )


def join(samples: list[Batch]) -> Batch:
    """Batches one after another."""
    return Batch(
        clips=tuple(clip for sample in samples for clip in sample.clips),
        latents=torch.cat([sample.latents for sample in samples]),
        noise=torch.cat([sample.noise for sample in samples]),
        levels=torch.cat([sample.levels for sample in samples]),
        text={name: torch.cat([sample.text[name] for sample in samples]) for name in samples[0].text},
    )


def text_of(
    example: dict[str, torch.Tensor],
    empty: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Which text a clip is trained with this time: its caption, its long one, or none, for guidance."""
    drop, long = torch.rand(2, generator=generator).tolist()
    dropped = drop < settings.caption_dropout
    apart = settings.dropout == "independently"
    # What was read of the clip itself stands beside its caption alone, and goes with the long one too.
    text = _named(example, "text.")
    if long < settings.long_captions:
        text |= _named(example, "long.")
    # What was read of the clip itself has no empty form of its own: it is zeros, as pipelines have it without guidance.
    empty = {name: torch.zeros_like(value) for name, value in text.items()} | empty
    empty |= {name: value for name, value in text.items() if name.startswith(KEPT)}
    if dropped and not apart:
        return empty
    if apart:
        text = without(text, empty, llm=False) if dropped else text
        if torch.rand(1, generator=generator).item() < settings.caption_dropout:
            text = without(text, empty, llm=True)
    return text


def _named(example: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(kind): value for name, value in example.items() if name.startswith(kind)}
