"""A packed growth put back onto its base: the grown folder, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import strict_json
from .apply import carries, make_files, works_of
from .checkpoint import open_checkpoint
from .content import Copy
from .disk import write_text
from .errors import CheckpointError
from .fingerprint import fingerprint_of
from .index import LIBRARY, edit_index, follow_slots
from .job import check_downloaded
from .layout import OutputFile
from .pack import CARD_NAME
from .pack_metadata import other_files, other_of, others_elsewhere
from .plan import PlannedTensor
from .slot import slot_of
from .source import PIPELINE_NAME
from .staging import staged
from .unpack_check import check_shapes, find_base
from .watch import unchanged
from .write import Writer

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .packed import Packed, PackedComponent
    from .source import Source
    from .span import Progress
    from .tensor import Tensor


_UNSEEN = "whether the base's weights are those that it was grown from is seen once they are here"


@dataclass(frozen=True, kw_only=True)
class Application:
    """A growth and the base that it fits. Components go by the base's names."""

    packed: Packed
    base: Source
    components: Mapping[str, PackedComponent]
    checkpoints: Mapping[str, Checkpoint]
    files: Mapping[str, tuple[OutputFile, ...]]
    sources: Mapping[str, Mapping[str, Tensor]]
    """Per component: where the bytes lie, by the names that the files' tensors copy."""
    notes: tuple[str, ...]

    @property
    def index(self) -> dict[str, Any] | None:
        """model_index.json, where the growth changes it."""
        edits = _index_edits(self.packed, self.base, self.components)
        return edit_index(self.base.pipeline, edits) if self.base.pipeline is not None and edits else None

    @property
    def others(self) -> list[tuple[Path, Path]]:
        """The base's other files, and their places in the output."""
        files = other_files(self.base, self.checkpoints)
        return files if self.index is None else [pair for pair in files if pair[1].as_posix() != PIPELINE_NAME]

    @property
    def num_bytes(self) -> int:
        """What the output will take, in bytes."""
        weights = sum(file.num_bytes for files in self.files.values() for file in files)
        there = sum(others_elsewhere(self.base, self.checkpoints).values())
        return weights + there + sum(path.stat().st_size for path, _ in self.others)

    @property
    def missing(self) -> Mapping[str, int]:
        """Files of the base that are still on the Hub: place in it -> bytes. `execute_apply` needs them all."""
        return self.base.elsewhere

    def to_json(self) -> dict[str, Any]:
        return {
            "growth": str(self.packed.path),
            "base": self.base.name,
            "bytes": self.num_bytes,
            "components": {
                name: {
                    "class": component.class_name,
                    "files": [file.name for file in self.files[name]],
                    "from_growth": len(component.tensors),
                    "from_base": len(component.expected) - len(component.tensors),
                }
                for name, component in self.components.items()
            },
            "notes": list(self.notes),
        }


def prepare_apply(packed: Packed, base: Source) -> Application:
    """Check that a growth and a base belong together; nothing is written.

    Of a base that was opened by its headers alone only names and shapes are compared, and nothing can be made of it.

    Raises:
        SourceError: It was grown from another model.
        CheckpointError: The growth does not fit, although its base is the right one.
    """
    components: dict[str, PackedComponent] = {}
    checkpoints: dict[str, Checkpoint] = {}
    files: dict[str, tuple[OutputFile, ...]] = {}
    sources: dict[str, Mapping[str, Tensor]] = {}
    for component in packed.components.values():
        name, checkpoint = find_base(packed, component, base)
        components[name], checkpoints[name] = component, checkpoint
        names = component.from_base(checkpoint.tensors, base=base.name)
        check_shapes(packed, component, checkpoint, names)
        files[name] = tuple(_output(file.name, file.header, file.tensors, names) for file in component.files)
        sources[name] = {f"base:{key}": tensor for key, tensor in checkpoint.tensors.items()} | {
            f"growth:{key}": tensor for key, tensor in component.tensors.items()
        }
    return Application(
        packed=packed,
        base=base,
        components=components,
        checkpoints=checkpoints,
        files=files,
        sources=sources,
        notes=(*_differences(packed, base, components, checkpoints), *([_UNSEEN] if base.elsewhere else ())),
    )


def _output(
    name: str, header: bytes, tensors: Mapping[str, tuple[str, tuple[int, ...]]], names: Mapping[str, str]
) -> OutputFile:
    planned = tuple(
        PlannedTensor(
            name=key,
            dtype=dtype,
            shape=shape,
            content=Copy(source=f"base:{names[key]}" if key in names else f"growth:{key}"),
        )
        for key, (dtype, shape) in tensors.items()
    )
    return OutputFile(name=name, header=header, tensors=planned)


def execute_apply(
    application: Application, output: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Write the grown folder, complete or not at all.

    Args:
        application: From `prepare_apply`.
        output: The folder to make.
        overwrite: Replace it if it exists.
        progress: Told the bytes written and compared, 2 x `application.num_bytes` in all.

    Raises:
        OutputError: It exists, or the disk is full.
        CheckpointError: The growth is damaged: what came out is not what went in.
        SourceError: Some of the base is still on the Hub.
    """
    check_downloaded(application.base.name, application.missing)
    inputs = [application.base.path, application.packed.path]
    with staged(output, inputs=inputs, num_bytes=application.num_bytes, overwrite=overwrite) as work:
        others = application.others
        writer = Writer(progress=progress)
        weights = [tensor.file for tensors in application.sources.values() for tensor in tensors.values()]
        with unchanged([*weights, *(path for path, _ in others)]):
            make_files(carries(others, work), writer)
            for name, component in application.components.items():
                _write(application, name, component, work / name, writer)
            if application.index is not None:
                write_text(work / PIPELINE_NAME, strict_json.dump(application.index))
    return output


def _write(application: Application, name: str, component: PackedComponent, folder: Path, writer: Writer) -> None:
    make_files(works_of(application.files[name], application.sources[name], folder), writer)
    for file_name, text in component.texts.items():
        write_text(folder / file_name, text)
    if fingerprint_of(_open(folder, component)) != component.fingerprint:
        raise CheckpointError(
            f"{application.packed.path}: what comes out differs from the model that was packed; the file is damaged. "
            "Download it again"
        )


def _open(folder: Path, component: PackedComponent) -> Checkpoint:
    """What was written, read as any checkpoint is: files, index and config must agree."""
    path = folder if len(component.files) > 1 else folder / component.files[0].name
    return open_checkpoint(path)


def _index_edits(packed: Packed, base: Source, components: Mapping[str, PackedComponent]) -> dict[str, Any]:
    """What changes in the base's model_index.json: what the growth says, and its classes at the base's names."""
    if base.pipeline is None:
        return {}
    edits = {
        name: [LIBRARY, component.class_name]
        for name, component in components.items()
        if component.class_name != component.record.base.class_name
    } | dict(packed.pipeline)
    slotted = any(slot_of(component.config) for component in components.values())
    return follow_slots(base.pipeline, edits, slotted=slotted)


def _differences(
    packed: Packed, base: Source, components: Mapping[str, PackedComponent], checkpoints: Mapping[str, Checkpoint]
) -> tuple[str, ...]:
    """Other files that the grown folder had and the base has not, or has in another form. Cards do not count."""
    if set(checkpoints) != set(packed.components):
        return ()
    here = {place.as_posix(): other_of(path) for path, place in other_files(base, checkpoints)}
    there = others_elsewhere(base, checkpoints)
    rewritten = (PIPELINE_NAME,) if _index_edits(packed, base, components) else ()
    notes = []
    for place, other in packed.others.items():
        if place in rewritten or Path(place).name == CARD_NAME:
            continue
        if place not in here and place not in there:
            notes.append(f"{place}: lay in the grown folder; neither the growth nor the base has it")
        elif other != here.get(place, other) or other.num_bytes != there.get(place, other.num_bytes):
            notes.append(f"{place}: is the base's, which is not as it was in the grown folder")
    added = (place for place in (*here, *there) if place not in packed.others and Path(place).name != CARD_NAME)
    return (*notes, *(f"{place}: is the base's; the grown folder had none" for place in added))
