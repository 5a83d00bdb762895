"""Latents and text states, computed once: safetensors shards in a folder, and cache.json when all are there.

A shard appears complete or not at all and says what it was made from, so an interrupted build goes on with
those that are missing, on any number of processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from modelgrow.surgery import DataError, TrainError, strict_json
from modelgrow.surgery.disk import make_folder, write_text
from modelgrow.surgery.staging import staged_file

from .data import order, stored
from .data.buckets import Bucket
from .data.clip import Refused
from .data.encode import SIZED, Encoder, encode_clips, encode_text

if TYPE_CHECKING:
    import torch

    from .data.buckets import Buckets
    from .data.clip import ClipSource
    from .data.encode import Encoded

__all__ = ["Cache", "Encoder", "batches", "build_cache", "steps_per_cycle"]

FORMAT = 1
SHARD_CLIPS = 32
INDEX = "cache.json"
EMPTY = "empty.safetensors"
_OPEN_SHARDS = 64
_CHANGED = {
    "source": "the clips or their captions have changed",
    "encoder": "the VAE or a text encoder is another",
    "settings": "the clips' sizes are others",
}


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """A file to make. `clips`: places in the source."""

    file: str
    bucket: int
    clips: tuple[int, ...]


class Cache:
    """A finished cache. Clips are numbered from 0, in the order of their shards.

    Raises:
        DataError: There is none in the folder, or it is of another version.
    """

    def __init__(self, folder: Path) -> None:
        index = _read_index(folder)
        if index is None:
            raise DataError(f"{folder}: no finished cache; build it first")
        self.folder = folder
        self.identity: dict[str, str] = index["identity"]
        self.keys: tuple[str, ...] = tuple(key for shard in index["shards"] for key in shard["keys"])
        self.refused = tuple(Refused(**refused) for refused in index["refused"])
        self._places = [(shard["file"], row) for shard in index["shards"] for row in range(len(shard["keys"]))]
        members: list[list[int]] = [[] for _ in index["buckets"]]
        for shard in index["shards"]:
            first = sum(map(len, members))
            members[shard["bucket"]] += range(first, first + len(shard["keys"]))
        self.buckets = tuple(
            Bucket(**size, clips=tuple(clips)) for size, clips in zip(index["buckets"], members, strict=True) if clips
        )
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(lambda file: stored.Stored(folder / file))

    def __len__(self) -> int:
        return len(self._places)

    def example(self, index: int) -> dict[str, torch.Tensor]:
        """ "latents", and "text.NAME" and, where there is a long caption, "long.NAME". None has a batch axis."""
        file, row = self._places[index]
        shard = self._shard(file)
        long = {key: number for number, key in enumerate(shard.about["long_keys"])}.get(self.keys[index])
        rows = {name: long if name.startswith("long.") else row for name in shard.names}
        return {name: shard.row(name, row) for name, row in rows.items() if row is not None}

    def empty_text(self) -> dict[str, torch.Tensor]:
        """The text states of "", by plain names, without batch axis."""
        shard = self._shard(EMPTY)
        return {name.removeprefix("text."): shard.row(name, 0) for name in shard.names}


def batches(cache: Cache, *, batch_size: int, seed: int, step: int, rank: int = 0, num_processes: int = 1) -> list[int]:
    """The clips that process `rank` takes in step `step`: `batch_size` numbers, all of one bucket. See `data.order`."""
    return order.choose(
        cache.buckets, batch_size=batch_size, seed=seed, step=step, rank=rank, num_processes=num_processes
    )


def steps_per_cycle(cache: Cache, *, batch_size: int, num_processes: int = 1) -> int:
    """Steps in which every clip is seen about once."""
    return sum(order.cycle_of(cache.buckets, batch_size * num_processes))


def build_cache(
    source: ClipSource,
    buckets: Buckets,
    encoder: Encoder,
    folder: Path,
    *,
    batch_size: int,
    process_index: int = 0,
    num_processes: int = 1,
    wait: Callable[[], None] = lambda: None,
    report: Callable[[int, int], None] = lambda done, total: None,
    overwrite: bool = False,
) -> Cache:
    """Encode every clip that is not encoded yet, and open the result.

    Shard n is made by process n mod `num_processes`; process 0 then makes cache.json. A finished cache of the
    same clips, encoder and sizes is only opened.

    Args:
        source, buckets: The clips and their sizes.
        encoder: Used on this process's device.
        folder: Where the shards go; it is made. All processes share it.
        batch_size: Clips encoded at once.
        process_index, num_processes: Which part is this process's.
        wait: Returns when every process has called it; each calls it twice, or none does.
        report: Called with how many of this process's clips are done, and how many it has.
        overwrite: Replace a cache made from something else.

    Raises:
        DataError: The folder has a cache made from something else, or no clip can be decoded.
        OutputError: The folder can't be written.
    """
    shards = _plan(buckets)
    sizes = [{"num_frames": b.num_frames, "height": b.height, "width": b.width} for b in buckets.buckets]
    identity = {"source": source.fingerprint, "encoder": encoder.fingerprint, "settings": _digest(sizes, shards)}
    make_folder(folder)
    present = _present(folder, identity, overwrite)
    index = _read_index(folder)
    if index is not None and index["identity"] == identity and present >= {EMPTY, *(shard.file for shard in shards)}:
        return Cache(folder)
    if process_index == 0:
        (folder / INDEX).unlink(missing_ok=True)
    mine = shards[process_index::num_processes]
    done, total = 0, sum(len(shard.clips) for shard in mine)
    for shard in mine:
        if shard.file not in present:
            clips = [source.clips[place] for place in shard.clips]
            encoded = encode_clips(source, clips, buckets.buckets[shard.bucket], encoder, batch_size=batch_size)
            _write(folder / shard.file, encoded, identity)
        done += len(shard.clips)
        report(done, total)
    wait()
    if process_index == 0:
        stored.write(folder / EMPTY, encode_text(encoder, [""], "text."), {"identity": identity})
        _finish(folder, identity, sizes, shards)
    wait()
    return Cache(folder)


def _write(path: Path, encoded: Encoded, identity: dict[str, str]) -> None:
    about = {
        "identity": identity,
        "keys": encoded.keys,
        "long_keys": encoded.long_keys,
        "refused": [asdict(refused) for refused in encoded.refused],
    }
    stored.write(path, encoded.tensors, about)


def _plan(buckets: Buckets) -> list[_Shard]:
    return [
        _Shard(file=f"bucket{number}-{start // SHARD_CLIPS:05d}.safetensors", bucket=number, clips=clips)
        for number, bucket in enumerate(buckets.buckets)
        for start in range(0, len(bucket.clips), SHARD_CLIPS)
        if (clips := bucket.clips[start : start + SHARD_CLIPS])
    ]


def _digest(sizes: list[dict[str, int]], shards: list[_Shard]) -> str:
    value = [FORMAT, sizes, [[shard.file, shard.bucket, shard.clips] for shard in shards]]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _present(folder: Path, identity: dict[str, str], overwrite: bool) -> set[str]:
    """The files of this cache that are there. Another's are refused, or, with `overwrite`, left out to be replaced."""
    present = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            found = stored.Stored(path).about.get("identity")
        except (SafetensorError, ValueError, OSError):
            continue  # damaged: made again
        if found == identity:
            present.add(path.name)
        elif not overwrite:
            reasons = [text for name, text in _CHANGED.items() if (found or {}).get(name) != identity[name]]
            raise DataError(
                f"{folder}: holds a cache made from something else: {' and '.join(reasons)}. "
                "Remove it, or choose another -o"
            )
    return present


def _read_index(folder: Path) -> dict[str, Any] | None:
    path = folder / INDEX
    if not path.exists():
        return None
    index = strict_json.read_object(path)
    if index.get("format") != FORMAT:
        raise DataError(f"{path}: of format {index.get('format')}, this version reads {FORMAT}; remove {folder}")
    return index


def _finish(folder: Path, identity: dict[str, str], sizes: list[dict[str, int]], shards: list[_Shard]) -> None:
    """Gather what the shards say of themselves, and make cache.json."""
    entries: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in shards:
        path = folder / shard.file
        if not path.exists():
            raise TrainError(f"{path}: is missing; every process has to build its part before they meet")
        file = stored.Stored(path)
        for name in file.names:
            kind = f"{name} of bucket {shard.bucket}" if name.endswith(SIZED) else name.partition(".")[2]
            if shapes.setdefault(kind, file.shape(name)) != file.shape(name):
                raise DataError(f"{path}: {name} has shape {file.shape(name)}, other shards {shapes[kind]}")
        entries.append({"file": shard.file, "bucket": shard.bucket, "keys": file.about["keys"]})
        refused += file.about["refused"]
    if not any(entry["keys"] for entry in entries):
        raise DataError(f"no clip can be decoded; the first: {refused[0]['name']}: {refused[0]['reason']}")
    for path in folder.glob("bucket*.safetensors"):
        if path.name not in {shard.file for shard in shards}:
            path.unlink()
    index = {"format": FORMAT, "identity": identity, "buckets": sizes, "shards": entries, "refused": refused}
    with staged_file(folder / INDEX, inputs=[], overwrite=True) as place:
        write_text(place, strict_json.dump(index))
