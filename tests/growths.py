"""What tests of growths share: grow, train, pack and put back, and look at every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelgrow.surgery import ExpandOptions, Job, Source, execute, open_checkpoint, open_source, plan_expand, prepare
from modelgrow.surgery.pack import Packing, prepare_pack, write_pack
from modelgrow.surgery.packed import read_packed
from modelgrow.surgery.unpack import execute_apply, prepare_apply


def job_of(
    source: Path | Source, mode: str | ExpandOptions = "insert", *, components: Sequence[str] = (), **options: Any
) -> Job:
    """Plan to expand a checkpoint: by a mode and other options, or by all of them together."""
    chosen = ExpandOptions(mode=mode, **options) if isinstance(mode, str) else mode
    opened = source if isinstance(source, Source) else open_source(str(source))
    return prepare(opened, lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, chosen), components=components)


def grow(source: Path | Source, output: Path, mode: str | ExpandOptions = "insert", **options: Any) -> Path:
    """Expand a checkpoint; see `job_of`."""
    return execute(job_of(source, mode, **options), output)


def pack(grown: Path, output: Path, **options: Any) -> Packing:
    """Take the growth out of a grown model."""
    packing = prepare_pack(open_source(str(grown)), **options)
    write_pack(packing, output)
    return packing


def unpack(growth: Path, base: Path, output: Path) -> Path:
    """Put a growth onto its base."""
    return execute_apply(prepare_apply(read_packed(growth), open_source(str(base))), output)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a digest of its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def overwrite(folder: Path, name: str, data: bytes) -> None:
    """Train a tensor: other bytes in place."""
    tensor = open_checkpoint(folder).tensors[name]
    with tensor.file.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(data)
