"""A growth taken out of a grown model, as one small file with a model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .apply import write_tensors
from .card import model_card
from .content import Copy
from .disk import write_text
from .errors import PlanError, SourceError
from .fingerprint import fingerprint_of, fingerprint_of_planned
from .layout import output_file
from .pack_metadata import metadata_of
from .packed import GROWTH_NAME, KEY, key_of
from .plan import PlannedTensor
from .readback import same_bytes
from .shrink import choose_grown
from .staging import staged, staged_file
from .trace import rename
from .undo import take_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .checkpoint import Checkpoint
    from .layout import OutputFile
    from .source import Source
    from .span import Progress
    from .tensor import Tensor

CARD_NAME = "README.md"


@dataclass(frozen=True, kw_only=True)
class Packing:
    """A growth that could be written."""

    source: Source
    checkpoints: Mapping[str, Checkpoint]
    packed: Mapping[str, tuple[str, ...]]
    """Per component: the tensors that the growth holds. The others are the base's."""
    file: OutputFile
    tensors: Mapping[str, Tensor]
    """Where they lie, by their names in the growth."""
    base_model: str | None = None

    def card(self, file_name: str = GROWTH_NAME) -> str:
        """The model card, for a growth of that name."""
        return model_card(self.source, self.checkpoints, self.packed, base_model=self.base_model, file_name=file_name)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source.name,
            "bytes": self.file.num_bytes,
            "components": {
                name: {
                    "class": self.checkpoints[name].class_name,
                    "packed": list(names),
                    "from_base": len(self.checkpoints[name].tensors) - len(names),
                    "fingerprint": fingerprint_of(self.checkpoints[name]),
                }
                for name, names in self.packed.items()
            },
        }


def prepare_pack(
    source: Source, *, base: Source | None = None, components: Sequence[str] = (), base_model: str | None = None
) -> Packing:
    """Find what a grown model has and its base has not; nothing is written.

    Args:
        source: The grown model.
        base: What it was grown from. Where weights that the growth only carried over were trained since, only a
            comparison with it tells which, and those are packed too.
        components: Of a pipeline; all that have grown if empty.
        base_model: The base's Hub id, for the card; what growth.json calls it if None.

    Raises:
        SourceError: Nothing has grown, or `base` is another model.
        PlanError: Carried weights have changed, and there is no `base` to compare with.
        CheckpointError: A file is damaged, or growth.json is of other weights.
    """
    checkpoints = choose_grown(source, components)
    packed: dict[str, tuple[str, ...]] = {}
    for name, checkpoint in checkpoints.items():
        carried = _carried(checkpoint) if base is None else _same_as(checkpoint, name, base)
        packed[name] = tuple(key for key in checkpoint.tensors if key not in carried)
    tensors = {key_of(name, key): checkpoints[name].tensors[key] for name, keys in packed.items() for key in keys}
    contents = [PlannedTensor.copy_of(tensor, key) for key, tensor in tensors.items()]
    file = output_file(GROWTH_NAME, contents, {"format": "pt", KEY: metadata_of(source, checkpoints)}, tensors)
    return Packing(
        source=source, checkpoints=checkpoints, packed=packed, file=file, tensors=tensors, base_model=base_model
    )


def write_pack(
    packing: Packing, output: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write a growth, complete or not at all.

    Args:
        packing: From `prepare_pack`.
        output: A name that ends in .safetensors is the file; README.md, the card, comes beside it unless there is
            one. Any other name is a folder to make that holds both.
        overwrite: Replace `output` if it exists. A README.md beside it is never replaced.
        progress: Told the bytes written and compared, 2 x `packing.file.num_bytes` in all.

    Returns:
        The files that were written.

    Raises:
        OutputError: It exists, or the disk is full.
        CheckpointError: The grown model changed while it was read.
    """
    report = progress or (lambda _: None)
    options: dict[str, Any] = {
        "inputs": [packing.source.path],
        "num_bytes": packing.file.num_bytes,
        "overwrite": overwrite,
    }
    if output.suffix == ".safetensors":
        with staged_file(output, **options) as place:
            write_tensors(place, packing.file, packing.tensors, report)
        card = output.parent / CARD_NAME
        if card.exists() or card.is_symlink():
            return (output,)
        write_text(card, packing.card(output.name))
        return output, card
    with staged(output, **options) as work:
        write_tensors(work / GROWTH_NAME, packing.file, packing.tensors, report)
        write_text(work / CARD_NAME, packing.card())
    return output / GROWTH_NAME, output / CARD_NAME


def _carried(checkpoint: Checkpoint) -> set[str]:
    """The base's tensors in the grown model, by the record. Raises `PlanError` where they can't be the base's."""
    if checkpoint.record is None:
        return set()
    trained = (
        f"{checkpoint.path}: not only what growth.json calls new differs from {checkpoint.record.base.name}: "
        "weights that the growth only carried over have changed since. Say --base CKPT, and those are packed too"
    )
    try:
        tensors = take_back(checkpoint, checkpoint.record.steps)
    except PlanError as error:
        raise PlanError(trained) from error
    if fingerprint_of_planned(tensors, checkpoint.tensors) != checkpoint.record.base.fingerprint:
        raise PlanError(trained)
    steps = checkpoint.record.steps
    return {place for t in tensors if t.content == Copy(source=(place := rename(t.name, steps)))}


def _same_as(checkpoint: Checkpoint, name: str, base: Source) -> set[str]:
    """The grown model's tensors that are the base's, byte for byte."""
    steps = checkpoint.record.steps if checkpoint.record else ()
    other = base_of(checkpoint, name, base)
    found = set()
    for key, tensor in other.tensors.items():
        place = rename(key, steps)
        now = checkpoint.tensors.get(place)
        if now is not None and (now.dtype, now.shape) == (tensor.dtype, tensor.shape) and same_bytes(now, tensor):
            found.add(place)
    return found


def base_of(grown: Checkpoint, name: str, base: Source) -> Checkpoint:
    """The component of `base` that a component was grown from. Raises `SourceError` if it is another model."""
    record = grown.record
    candidates = {c.name: c.checkpoint for c in base.components if c.checkpoint is not None}
    chosen = candidates.get(name) or candidates.get("")
    if record is None or chosen is None:
        raise SourceError(f"{base.name}: has no {name or 'model'}; it has: {', '.join(candidates) or 'no weights'}")
    if fingerprint_of(chosen) != record.base.fingerprint:
        raise SourceError(
            f"{base.name}: not what {grown.path} was grown from; that is {record.base.name}, with the weights "
            f"{record.base.fingerprint}"
        )
    return chosen
