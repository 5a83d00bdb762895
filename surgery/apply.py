"""Carry a plan out: move bytes from the input's files to new ones and compare them with their source.

Nothing is loaded. Bytes are moved inside the kernel, which clones them where the filesystem can;
zeros are left as holes. Memory use does not depend on the checkpoint's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import strict_json
from .checkpoint import CONFIG_NAME, INDEX_SUFFIX
from .disk import make_folder, write_text
from .layout import STEM, index_of, lay_out
from .record import RECORD_NAME
from .watch import check_headers, unchanged
from .write import FileWork, Writer, carry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .layout import OutputFile
    from .plan import Plan
    from .record import Record
    from .span import Progress
    from .tensor import Tensor


def apply(
    plan: Plan, checkpoint: Checkpoint, record: Record | None, folder: Path, progress: Progress | None = None
) -> None:
    """Write a component folder: weights, index, config.json, growth.json.

    Args:
        plan: Validated against `checkpoint`.
        checkpoint: The input. Its files are only read.
        record: What to write to growth.json; None writes none.
        folder: An existing folder that nobody reads yet; publishing it is the caller's part.
        progress: See `Progress`.

    Raises:
        OutputError: The disk is full or the folder can't be written.
        CheckpointError: The input changed while it was read, or what was written does not read back equal.
    """
    with unchanged(checkpoint.files):
        write_component(plan, checkpoint, record, folder, lay_out(plan, checkpoint), Writer(progress=progress))


def write_component(
    plan: Plan,
    checkpoint: Checkpoint,
    record: Record | None,
    folder: Path,
    layout: tuple[OutputFile, ...],
    writer: Writer,
) -> None:
    """`apply` with a layout and a writer of the caller's, who also watches the input with `unchanged`."""
    check_headers(checkpoint)
    writer.make([work_of(file, checkpoint.tensors, folder / file.name) for file in layout])
    index = index_of(layout)
    if index is not None:
        write_text(folder / (STEM + INDEX_SUFFIX), strict_json.dump(index))
    write_text(folder / CONFIG_NAME, strict_json.dump(plan.new_config(checkpoint.config)))
    if record is not None:
        write_text(folder / RECORD_NAME, strict_json.dump(record.to_json()))


def work_of(file: OutputFile, sources: Mapping[str, Tensor], path: Path) -> FileWork:
    """What a writer has to do for one file of a layout."""
    return FileWork(path=path, segments=tuple(file.segments(sources)), may_link=file.whole is not None)


def write_tensors(path: Path, file: OutputFile, tensors: Mapping[str, Tensor], report: Progress) -> None:
    """Write one .safetensors file durably, read it back and compare every byte.

    Args:
        path: The file to make; it must not exist. `file.name` does not matter here.
        file: Its header and its tensors, from `layout.output_file`.
        tensors: Where the sources that the tensors name lie. These files are only read.
        report: See `Progress`; 2 x `file.num_bytes` in all.

    Raises:
        OutputError: The disk is full or the file can't be written.
        CheckpointError: A source changed while it was read, or what was written does not read back equal.
    """
    work = work_of(file, tensors, path)
    with unchanged(segment.source for segment in work.segments if segment.source is not None):
        Writer(progress=report).make([work])


def copy_files(pairs: Sequence[tuple[Path, Path]], writer: Writer) -> None:
    """Carry files over as they are, each to its new path; folders are made.

    Raises:
        OutputError: The disk is full or the folder can't be written.
        CheckpointError: A file can't be read.
    """
    for _, target in pairs:
        make_folder(target.parent)
    writer.make([carry(source, target) for source, target in pairs])
