"""Published ExVideo weights onto a base, and back: one .safetensors file in DiffSynth-Studio's names.

Such a file is known by its keys, `blocks.N.positional_embedding.embeddings` among them, and how many frames it is for
by that table's rows. It holds the new tensors of every temporal block, and all, some or none of the base's own with
other values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import strict_json
from .apply import write_tensors
from .content import Stored
from .diffsynth import NAMES, block_numbers, is_extension, our_names
from .drawn import DRAWABLE
from .errors import CheckpointError, OutputError, SourceError
from .extension import OPERATION
from .exvideo import (
    BASE_CLASS,
    CLASS,
    CONV_BIAS,
    CONV_WEIGHT,
    TABLE,
    TemporalBlock,
    check_base_class,
    extension,
    identity_conv,
    temporal_blocks,
)
from .foreign import as_bytes
from .grown import stock_name
from .header import read_header
from .job import check_downloaded, prepare
from .layout import output_file
from .plan import PlannedTensor
from .staging import check_output, staged_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .anatomy import Anatomy
    from .checkpoint import Checkpoint
    from .job import Job
    from .layout import OutputFile
    from .plan import Plan
    from .source import Source
    from .span import Progress
    from .tensor import Tensor


SETTINGS_KEY = "modelgrow.exvideo"
"""Of a file's metadata: settings of the pipeline, as JSON."""
PUBLISHED: Mapping[str, float] = {"contrast": 1.2, "video_scaling_factor": 0.13025}
"""What ExVideo's own weights want of `ExVideoPipeline`, which explains why."""


def is_exvideo(path: Path) -> bool:
    """Whether a file holds an ExVideo extension in DiffSynth's names. Raises `CheckpointError` if it is damaged."""
    return is_extension(read_header(path).tensors)


def prepare_weights(path: Path, base: Source, *, components: Sequence[str] = ()) -> Job:
    """Plan the extended model that these weights make of a base; nothing is written.

    Raises:
        SourceError: The base has no UNet of SVD's kind.
        CheckpointError: The weights do not fit the base, or are not all there.
    """
    if not components:
        components = [
            c.name for c in base.components if c.checkpoint is not None and stock_name(c.class_name) == BASE_CLASS
        ]
    if not components:
        classes = ", ".join(c.class_name for c in base.components) or "nothing"
        raise SourceError(
            f"{base.name}: holds {classes}; ExVideo's weights need Stable Video Diffusion, whose UNet is {BASE_CLASS}"
        )
    return prepare(base, lambda checkpoint, anatomy: plan_weights(checkpoint, anatomy, path), components=components)


def plan_weights(checkpoint: Checkpoint, anatomy: Anatomy, path: Path) -> Plan:
    """Plan the extension of one UNet by the weights in `path`, each in the dtype in which it is stored there.

    Raises:
        PlanError: The checkpoint is no UNet of SVD's kind.
        CheckpointError: The weights do not fit it, or are not all there.
    """
    check_base_class(anatomy)
    header = read_header(path)
    settings = _settings(header.metadata.get(SETTINGS_KEY), path)
    held = header.tensors
    names = our_names(held, checkpoint.tensors, where=str(path), base=str(checkpoint.path))
    given = {names[key]: tensor for key, tensor in held.items()}
    blocks = temporal_blocks(checkpoint)
    frames = _frames(blocks, given, path)
    tensors = [
        PlannedTensor(
            name=name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            content=Stored(tensor=tensor),
            is_new=name not in checkpoint.tensors,
            part=OPERATION,
        )
        for name, tensor in given.items()
    ]
    for block in blocks:
        _check_shapes(checkpoint, block, given, path)
        tensors += identity_conv(block) if f"{block.path}.{CONV_WEIGHT}" not in given else ()
    return extension(
        checkpoint,
        tensors,
        frames,
        options={"to": frames, "weights": path.name},
        notes=(
            f"clips of up to {frames} frames; trained, so that clips of every length differ from the base's",
            *_settings_notes(settings),
        ),
        settings=settings,
    )


def _settings(text: str | None, path: Path) -> dict[str, object]:
    """Of the pipeline around it, as the file says, which ours do and the published ones do not."""
    if text is None:
        return dict(PUBLISHED)
    where = f"{path}: {SETTINGS_KEY}"
    found = strict_json.parse_object(as_bytes(text, where), where=where)
    for name, value in found.items():
        if name not in PUBLISHED or not (value is None or type(value) in (int, float)):
            raise CheckpointError(f"{where}: {name!r:.80} is {value!r:.80}; expected numbers, {', '.join(PUBLISHED)}")
    return {name: value for name, value in found.items() if value is not None}


def _settings_notes(settings: Mapping[str, object]) -> tuple[str, ...]:
    said = " and ".join(f"{name} {value}" for name, value in settings.items())
    return (f"the pipeline gets {said}, as ExVideo's own weights want it; see docs/exvideo.md",) if said else ()


def _frames(blocks: Sequence[TemporalBlock], given: Mapping[str, Tensor], path: Path) -> int:
    """How many frames the tables are for."""
    for block in blocks:
        if f"{block.path}.{TABLE}" not in given:
            raise CheckpointError(f"{path}: has no position table for {block.path}; the file is not complete")
    rows = {given[f"{block.path}.{TABLE}"].shape[:1] for block in blocks}
    if len(rows) != 1 or rows == {()}:
        raise CheckpointError(f"{path}: its position tables have different numbers of rows; they must be alike")
    (frames,) = rows.pop()
    if frames < 2:
        raise CheckpointError(f"{path}: its position tables are for {frames} frames; its clips have two at least")
    return frames


def _check_shapes(checkpoint: Checkpoint, block: TemporalBlock, given: Mapping[str, Tensor], path: Path) -> None:
    width = block.width
    if (f"{block.path}.{CONV_WEIGHT}" in given) != (f"{block.path}.{CONV_BIAS}" in given):
        raise CheckpointError(f"{path}: {block.path} has one of its convolution's weight and bias only")
    expected = {
        TABLE: (given[f"{block.path}.{TABLE}"].shape[0], width),
        CONV_WEIGHT: (width, width, 3, 3, 3),
        CONV_BIAS: (width,),
    }
    for name in NAMES.values():
        full = f"{block.path}.{name}"
        shape = expected.get(name) or checkpoint.tensors[full].shape
        if full in given and given[full].shape != shape:
            raise CheckpointError(
                f"{path}: its tensor for {full!r} is {list(given[full].shape)}, {checkpoint.path} needs {list(shape)}"
            )
        if full in given and given[full].dtype not in DRAWABLE:
            raise CheckpointError(f"{path}: its tensor for {full!r} is {given[full].dtype}, not of weights")


@dataclass(frozen=True, kw_only=True)
class Export:
    """An extension in DiffSynth's names, not yet written."""

    source: Source
    file: OutputFile
    tensors: Mapping[str, Tensor]
    num_frames: int

    @property
    def missing(self) -> dict[str, int]:
        """Files that `write_export` reads and that are still on the Hub: place in the source -> bytes."""
        return self.source.holding(self.tensors.values())

    def check_output(self, output: Path, *, overwrite: bool) -> None:
        """Refuse an output that is no .safetensors file or would lose something. Raises `OutputError`."""
        if output.suffix != ".safetensors":
            raise OutputError(f"{output}: DiffSynth's format is one file; name it NAME.safetensors")
        check_output(output, inputs=[self.source.path], overwrite=overwrite)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source.name,
            "format": "diffsynth",
            "bytes": self.file.num_bytes,
            "tensors": len(self.tensors),
            "frames": self.num_frames,
        }


def prepare_export(source: Source, *, components: Sequence[str] = ()) -> Export:
    """Find the tensors of every temporal block, new ones and the base's own; nothing is written.

    Raises:
        SourceError: There is no extended UNet.
        CheckpointError: Tensors of a temporal block are missing.
    """
    found = [c for c in source.components if stock_name(c.class_name) == CLASS and c.name in (components or (c.name,))]
    if not found or found[0].checkpoint is None:
        classes = ", ".join(c.class_name for c in source.components) or "nothing"
        raise SourceError(f"{source.name}: holds {classes}; DiffSynth's names are for {CLASS} only")
    checkpoint = found[0].checkpoint
    tensors: dict[str, Tensor] = {}
    for number, path in block_numbers(checkpoint.tensors, where=str(checkpoint.path)).items():
        for theirs, ours in NAMES.items():
            if f"{path}.{ours}" not in checkpoint.tensors:
                raise CheckpointError(f"{checkpoint.path}: {path}.{ours} is missing; it is no whole extended UNet")
            tensors[f"blocks.{number}.{theirs}"] = checkpoint.tensors[f"{path}.{ours}"]
    contents = [PlannedTensor.copy_of(tensor, key) for key, tensor in tensors.items()]
    tables = [tensor for key, tensor in tensors.items() if key.endswith(".positional_embedding.embeddings")]
    metadata = {"format": "pt", SETTINGS_KEY: json.dumps(_settings_of(source, checkpoint))}
    file = output_file("exvideo.safetensors", contents, metadata, tensors)
    return Export(source=source, file=file, tensors=tensors, num_frames=tables[0].shape[0])


def _settings_of(source: Source, checkpoint: Checkpoint) -> dict[str, object]:
    """Of the pipeline; for a UNet by itself those of the published weights, if they were applied to it."""
    if source.pipeline is not None:
        return {name: source.pipeline[name] for name in PUBLISHED if source.pipeline.get(name) is not None}
    steps = checkpoint.record.steps if checkpoint.record else ()
    return dict(PUBLISHED) if any("weights" in step.options for step in steps) else {}


def write_export(export: Export, output: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
    """Write the file, complete or not at all. Raises `OutputError`, and `SourceError` for what is still on the Hub."""
    check_downloaded(export.source.name, export.missing)
    export.check_output(output, overwrite=overwrite)
    size = export.file.num_bytes
    with staged_file(output, inputs=[export.source.path], num_bytes=size, overwrite=overwrite) as place:
        write_tensors(place, export.file, export.tensors, progress or (lambda _: None))
    return output
