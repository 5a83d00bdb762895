"""A growth taken out of a grown model, as one small file with a model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .apply import write_tensors
from .card import model_card
from .content import Copy
from .disk import write_text
from .errors import PlanError, SourceError
from .fingerprint import fingerprint_of, fingerprint_of_planned
from .job import check_downloaded
from .layout import output_file
from .pack_metadata import is_small, metadata_of, others_elsewhere
from .packed import GROWTH_NAME, KEY, key_of
from .plan import PlannedTensor
from .readback import same_bytes
from .shrink import choose_grown
from .staging import staged, staged_file
from .tensor import is_here
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
    base: Source | None = None
    bases: Mapping[str, Checkpoint] = field(default_factory=dict)
    """Per component: what of `base` it was compared with."""
    base_model: str | None = None

    @property
    def missing(self) -> dict[str, int]:
        """Files of the grown model that `write_pack` needs and that are still on the Hub: place in it -> bytes."""
        others = others_elsewhere(self.source, self.checkpoints)
        weights = self.source.holding(
            t for checkpoint in self.checkpoints.values() for t in checkpoint.tensors.values()
        )
        return {**weights, **{place: size for place, size in others.items() if is_small(size)}}

    @property
    def base_missing(self) -> dict[str, int]:
        """Likewise of the base, where there is one to compare with."""
        compared = (tensor for checkpoint in self.bases.values() for tensor in checkpoint.tensors.values())
        return self.base.holding(compared) if self.base is not None else {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not known as long as files are missing."""
        if not self.missing and not self.base_missing:
            return ()
        return ("which of the base's tensors were trained since is seen once the weights are here",)

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
                    "fingerprint": None if self.missing else fingerprint_of(self.checkpoints[name]),
                }
                for name, names in self.packed.items()
            },
            "notes": list(self.notes),
        }


def prepare_pack(
    source: Source, *, base: Source | None = None, components: Sequence[str] = (), base_model: str | None = None
) -> Packing:
    """Find what a grown model has and its base has not; nothing is written.

    Of models that were opened by their headers alone it is found by the record alone, and can be shown and not written.

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
    bases = {name: base_of(checkpoint, name, base) for name, checkpoint in checkpoints.items() if base is not None}
    packed: dict[str, tuple[str, ...]] = {}
    for name, checkpoint in checkpoints.items():
        carried = _same_as(checkpoint, bases[name]) if name in bases else _carried(checkpoint)
        packed[name] = tuple(key for key in checkpoint.tensors if key not in carried)
    tensors = {key_of(name, key): checkpoints[name].tensors[key] for name, keys in packed.items() for key in keys}
    contents = [PlannedTensor.copy_of(tensor, key) for key, tensor in tensors.items()]
    found = Packing(
        source=source,
        checkpoints=checkpoints,
        packed=packed,
        file=output_file(GROWTH_NAME, contents, {}, tensors),
        tensors=tensors,
        base=base,
        bases=bases,
        base_model=base_model,
    )
    if found.missing or found.base_missing:
        return found
    described = {"format": "pt", KEY: metadata_of(source, checkpoints)}
    return replace(found, file=output_file(GROWTH_NAME, contents, described, tensors))


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
        SourceError: Some of it is still on the Hub.
    """
    check_downloaded(packing.source.name, packing.missing)
    check_downloaded(packing.base.name if packing.base else "", packing.base_missing)
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
    here = is_here(checkpoint.tensors.values())
    if here and fingerprint_of_planned(tensors, checkpoint.tensors) != checkpoint.record.base.fingerprint:
        raise PlanError(trained)
    steps = checkpoint.record.steps
    return {place for t in tensors if t.content == Copy(source=(place := rename(t.name, steps)))}


def _same_as(checkpoint: Checkpoint, base: Checkpoint) -> set[str]:
    """The grown model's tensors that are the base's, byte for byte as far as they are here."""
    steps = checkpoint.record.steps if checkpoint.record else ()
    found = set()
    for key, tensor in base.tensors.items():
        place = rename(key, steps)
        now = checkpoint.tensors.get(place)
        if now is None or (now.dtype, now.shape) != (tensor.dtype, tensor.shape):
            continue
        if not is_here([now, tensor]) or same_bytes(now, tensor):
            found.add(place)
    return found


def base_of(grown: Checkpoint, name: str, base: Source) -> Checkpoint:
    """The component of `base` that a component was grown from. Raises `SourceError` if it is another model.

    Of a base that was opened by its headers alone, what its tensors are called and are has to do.
    """
    record = grown.record
    candidates = {c.name: c.checkpoint for c in base.components if c.checkpoint is not None}
    chosen = candidates.get(name) or candidates.get("")
    if record is None or chosen is None:
        raise SourceError(f"{base.name}: has no {name or 'model'}; it has: {', '.join(candidates) or 'no weights'}")
    here = is_here(chosen.tensors.values())
    if fingerprint_of(chosen) != record.base.fingerprint if here else not _looks_like_base(grown, chosen):
        raise SourceError(
            f"{base.name}: not what {grown.path} was grown from; that is {record.base.name}, with the weights "
            f"{record.base.fingerprint}"
        )
    return chosen


def _looks_like_base(grown: Checkpoint, base: Checkpoint) -> bool:
    """Whether a model has the tensors that the grown one's steps began with, as far as they can be taken back."""
    try:
        tensors = take_back(grown, grown.record.steps if grown.record else ())
    except PlanError:
        return True
    return {(t.name, t.dtype, t.shape) for t in tensors} == {(k, t.dtype, t.shape) for k, t in base.tensors.items()}
