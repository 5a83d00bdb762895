"""What the transformer trains on: cached latents, and captions with some variety."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from .latents import read_shard

NO_CAPTION_SHARE = 0.12
SINGLE_SHARE = 0.7
"""Clips of one object among those trained on: what a caption's words mean is learned from these."""
SENTENCE_SHARE = 0.15
"""Captions given as a sentence: with a capital and a full stop."""


class LatentStore:
    """All shards of a folder, in memory as float16. `refresh()` adds those written since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clips: dict[bool, list[tuple[torch.Tensor, str]]] = {True: [], False: []}
        self.seen: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        for path in sorted(set(self.folder.glob("*.safetensors")) - self.seen):
            latents, captions = read_shard(path)
            for clip, caption in zip(latents, captions, strict=True):
                self.clips[caption.count(" moves ") + caption.count(" stays ") == 1].append((clip, caption))
            self.seen.add(path)

    def sample(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        """Latents, `(B, 16, 9, 8, 8)` float32, with their captions."""
        single = torch.rand(batch, generator=generator) < SINGLE_SHARE
        pools = [self.clips[alone] for alone in single.tolist()]
        picked = [pool[int(torch.randint(len(pool), (1,), generator=generator))] for pool in pools]
        return torch.stack([clip for clip, _ in picked]).float(), [caption for _, caption in picked]


def vary_captions(captions: Iterable[str], generator: torch.Generator) -> list[str]:
    """Some captions left out, some as a sentence."""
    varied = []
    for caption in captions:
        draw = float(torch.rand((), generator=generator))
        if draw < NO_CAPTION_SHARE:
            varied.append("")
        elif draw < NO_CAPTION_SHARE + SENTENCE_SHARE:
            varied.append(caption.capitalize() + ".")
        else:
            varied.append(caption)
    return varied
