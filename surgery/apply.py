"""Carry a plan out: move bytes from the input's files to new ones and compare them with their source.

Nothing is loaded. Bytes are moved inside the kernel, which clones them where the filesystem can;
zeros are left as holes. Memory use does not depend on the checkpoint's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from . import strict_json
from .checkpoint import CONFIG_NAME, INDEX_SUFFIX
from .disk import make_folder, write_text
from .layout import STEM, index_of
from .record import RECORD_NAME
from .watch import check_headers, unchanged
from .write import FileWork, Writer, carry

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .layout import OutputFile
    from .plan import Plan
    from .record import Record
    from .span import Progress
    from .tensor import Tensor


@dataclass(frozen=True, kw_only=True)
class ComponentFolder:
    """A component's folder that is to be written: weights, index, config.json, growth.json."""

    path: Path
    plan: Plan
    """Validated against `checkpoint`."""
    checkpoint: Checkpoint
    """The input. Its files are only read."""
    layout: tuple[OutputFile, ...]

    @cached_property
    def works(self) -> tuple[FileWork, ...]:
        """What a writer has to do for each file of the weights."""
        return works_of(self.layout, self.checkpoint.tensors, self.path)

    def write(self, record: Record | None, writer: Writer) -> None:
        """Make the folder and all that is in it. Publishing it is the caller's part, as is watching the input.

        Args:
            record: What to write to growth.json; None writes none.
            writer: Moves the bytes.

        Raises:
            OutputError: The disk is full or the folder can't be written.
            CheckpointError: The input changed since it was opened, or what was written does not read back equal.
        """
        check_headers(self.checkpoint)
        make_folder(self.path)
        writer.make(self.works)
        index = index_of(self.layout)
        if index is not None:
            write_text(self.path / (STEM + INDEX_SUFFIX), strict_json.dump(index))
        write_text(self.path / CONFIG_NAME, strict_json.dump(self.plan.new_config(self.checkpoint.config)))
        if record is not None:
            write_text(self.path / RECORD_NAME, strict_json.dump(record.to_json()))


def works_of(files: Iterable[OutputFile], sources: Mapping[str, Tensor], folder: Path) -> tuple[FileWork, ...]:
    """What a writer has to do for files of a layout, in this folder."""
    return tuple(_work_of(file, sources, folder / file.name) for file in files)


def _work_of(file: OutputFile, sources: Mapping[str, Tensor], path: Path) -> FileWork:
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
    work = _work_of(file, tensors, path)
    with unchanged(sources_of([work])):
        Writer(progress=report).make([work])


def sources_of(works: Iterable[FileWork]) -> list[Path]:
    """The files that files are made of."""
    return [segment.source for work in works for segment in work.segments if segment.source is not None]


def carries(pairs: Iterable[tuple[Path, Path]], folder: Path) -> list[FileWork]:
    """What a writer has to do for files that come along as they are: each, and its place in the folder."""
    return [carry(source, folder / place) for source, place in pairs]


def make_files(works: Sequence[FileWork], writer: Writer) -> None:
    """Make files, and the folders that they are in.

    Raises:
        OutputError: The disk is full or the folder can't be written.
        CheckpointError: A file can't be read.
    """
    for folder in dict.fromkeys(work.path.parent for work in works):
        make_folder(folder)
    writer.make(works)
