"""The cached trunk: after suffix growth, everything before the first new block is frozen and can be computed once.

For K draws of noise and timestep per clip the trunk's output is kept in bfloat16; a step then runs the
embeddings and the new blocks only. The price: K fixed draws instead of fresh ones, and their rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from modelgrow.surgery import TrainError

from .batch import Batch, draw_sample, generator_of, join

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from modelgrow.surgery import Record

    from .cache import Cache
    from .objectives.objective import Objective
    from .settings import Settings

Streams = tuple[torch.Tensor, ...]
"""What a block gives to the next one: the video's states, and the text's where both run through the blocks."""


def trunk_depth(record: Record | None, trained: Collection[str]) -> tuple[str, int]:
    """The stack that grew by suffix, and how many blocks come before the first new one.

    Raises:
        TrainError: Something before the last blocks of one stack trains.
    """
    grown = next((step for step in reversed(record.steps) if step.copied_from), None) if record else None
    for stack, places in grown.copied_from.items() if grown else ():
        first = min(places, default=0)
        inside = [name for name in trained if name.startswith(f"{stack}.")]
        if first and len(inside) == len(trained) and all(_number(name, stack) >= first for name in inside):
            return stack, first
    raise TrainError("cache_trunk needs a model grown by suffix of which only the new blocks train")


def _number(name: str, stack: str) -> int:
    return int(name[len(stack) + 1 :].split(".", maxsplit=1)[0])


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """The trunk's outputs on disk: one file per clip."""

    stack: str
    depth: int
    folder: Path
    cache: Cache
    objective: Objective
    settings: Settings

    def draws(self, clips: tuple[int, ...], numbers: list[int]) -> Batch:
        """The fixed draws `numbers` of some clips, of which all but the trunk's output follows from the seed."""
        return join([self._draw(clip, number) for clip, number in zip(clips, numbers, strict=True)])

    def _draw(self, clip: int, number: int) -> Batch:
        return draw_sample(self.cache, self.objective, self.settings, clip, "trunk", clip, number)

    def sample(self, batch: Batch, number: int) -> tuple[Batch, Streams]:
        """For the clips of batch `number`: one of their draws each, and the trunk's output for it."""
        generator = generator_of(self.settings.seed, "which", number, *batch.clips)
        chosen = torch.randint(self.settings.cache_trunk, (len(batch.clips),), generator=generator).tolist()
        return self.draws(batch.clips, chosen), self._read(batch.clips, chosen)

    def _read(self, clips: tuple[int, ...], numbers: list[int]) -> Streams:
        rows: list[list[torch.Tensor]] = []
        for clip, number in zip(clips, numbers, strict=True):
            with safe_open(self._path(clip), framework="pt") as file:
                count = len(file.keys()) // self.settings.cache_trunk
                rows.append([file.get_tensor(f"{number}.{stream}") for stream in range(count)])
        return tuple(torch.cat(stream) for stream in zip(*rows, strict=True))

    def fill(
        self,
        model: nn.Module,
        predict: Callable[[Batch], Any],
        report: Callable[[int, int], None],
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Compute what is missing of a process's share; a clip's file appears complete or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        clips = sorted(clip for bucket in self.cache.buckets for clip in bucket.clips)[process::processes]
        for done, clip in enumerate(clips, 1):
            path = self._path(clip)
            if not path.exists():
                draws = range(self.settings.cache_trunk)
                batch = self.draws((clip,) * len(draws), list(draws))
                with recorded(model, self.stack, self.depth) as outputs, torch.no_grad():
                    predict(batch)
                partial = path.with_suffix(".partial")
                save_file(_rows(outputs, len(draws)), partial)
                partial.replace(path)
            report(done, len(clips))

    def _path(self, clip: int) -> Path:
        return self.folder / f"{clip:06d}.safetensors"


def _rows(outputs: list[Any], draws: int) -> dict[str, torch.Tensor]:
    """Of every draw, whether the model was called once for all of them, or once for each."""
    calls = [output if isinstance(output, tuple) else (output,) for output in outputs]
    streams = [torch.cat(stream) for stream in zip(*calls, strict=True)]
    return {
        f"{draw}.{number}": row.to("cpu", torch.bfloat16).contiguous()
        for number, stream in enumerate(streams)
        for draw, row in enumerate(stream.chunk(draws))
    }


class _Replay(nn.Module):
    """Stands in for a block: answers with what the trunk once said, to each call the rows that come next."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self.streams = streams
        self.told = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        states = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        rows = slice(self.told, self.told + len(states))
        self.told = rows.stop
        answer = tuple(stream[rows] for stream in self.streams)
        return answer if len(answer) > 1 else answer[0]


@contextmanager
def recorded(model: nn.Module, stack: str, depth: int) -> Iterator[list[Any]]:
    """Inside, every call of the model appends the trunk's output to the list."""
    outputs: list[Any] = []
    block = model.get_submodule(stack).get_submodule(str(depth - 1))
    handle = block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def replayed(model: nn.Module, stack: str, depth: int, streams: Streams) -> Iterator[None]:
    """Inside, the trunk is not computed: stand-ins in the places of its blocks answer `streams`.

    Each block keeps its number, by which some models choose what they do behind it (Wan VACE's hints, Wan Animate's
    faces); what they do behind a stand-in is lost in the next one's answer.
    """
    parent, _, name = stack.rpartition(".")
    owner = model.get_submodule(parent) if parent else model
    blocks = list(model.get_submodule(stack).children())
    before = getattr(owner, name)
    stand_ins = [_Replay(streams) for _ in range(depth)]
    setattr(owner, name, nn.ModuleList([*stand_ins, *blocks[depth:]]))
    try:
        yield
    finally:
        setattr(owner, name, before)
