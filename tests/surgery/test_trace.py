"""Where tensors stand after some steps, and whether a grown checkpoint keeps its record's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from growths import grow

from modelgrow.surgery import (
    Checkpoint,
    CheckpointError,
    open_checkpoint,
)
from modelgrow.surgery.compare import broken_promises
from modelgrow.surgery.content import Piece
from modelgrow.surgery.header import write_header
from modelgrow.surgery.record import Base, Record
from modelgrow.surgery.step import Rows, Step
from modelgrow.surgery.trace import names_after, pieces_after, rename
from modelgrow.surgery.undo import rename_back

Maker = Callable[..., Path]
TO_Q = "transformer_blocks.{}.attn1.to_q.weight"


def step(index_map: Mapping[str, tuple[int, ...]] | None = None, **more: Any) -> Step:
    values: dict[str, Any] = {
        "operation": "expand",
        "options": {},
        "copied_from": {},
        "new": (),
        "zeroed": (),
        "input_fingerprint": "",
        "made_with": "",
    }
    return Step(index_map=index_map or {}, **(values | more))


DOUBLE, SHIFT = step({"a.b": (0, 2, 4)}), step({"a.b": (1, 2, 3, 4, 5, 6)})


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("a.b.2.x.weight", "a.b.5.x.weight"),
        ("a.b.0.x.1.y", "a.b.1.x.1.y"),
        ("a.bb.2.x", "a.bb.2.x"),
        ("c.a.b.2.x", "c.a.b.2.x"),
        ("a.b.x.2", "a.b.x.2"),
        ("a.b.2", "a.b.2"),
        ("a.b.02.x", "a.b.02.x"),
        ("a.b.\u0662.x", "a.b.\u0662.x"),
        ("a.b.-1.x", "a.b.-1.x"),
        (f"a.b.{'9' * 5000}.x",) * 2,
    ],
)
def test_rename(name: str, after: str) -> None:
    assert rename(name, [DOUBLE, SHIFT]) == after
    back = (
        rename_back(rename_back(after, SHIFT.index_map, where=""), DOUBLE.index_map, where="")
        if after != name
        else name
    )
    assert back == name


def test_a_number_beyond_the_end_stays() -> None:
    assert rename("a.b.3.x", [DOUBLE]) == "a.b.3.x"
    with pytest.raises(CheckpointError, match=r"neither carried over nor made 'a\.b\.3\.x'"):
        rename_back("a.b.3.x", DOUBLE.index_map, where="here")


def test_rows_through_steps() -> None:
    """Two halves swapped with zeros between them, and then the block moves."""
    swapped = step(rebuilt={"t": (Piece(source="a.b.1.u", start=4, stop=6), Piece(source="a.b.1.v", start=0, stop=2))})
    assert names_after("t", [swapped, SHIFT]) == ("a.b.2.u", "a.b.2.v")
    assert pieces_after("t", 4, [swapped, SHIFT]) == (
        Piece(source="a.b.2.u", start=4, stop=6),
        Piece(source="a.b.2.v", start=0, stop=2),
    )
    again = step(rebuilt={"a.b.1.u": (Piece(source="w", start=10, stop=15), Piece(source="z", start=7, stop=8))})
    assert pieces_after("t", 4, [swapped, again]) == (
        Piece(source="w", start=14, stop=15),
        Piece(source="z", start=7, stop=8),
        Piece(source="a.b.1.v", start=0, stop=2),
    )


class TestPromises:
    @pytest.fixture
    def base(self, make_ltx: Maker) -> Path:
        return make_ltx()

    @pytest.fixture
    def grown(self, base: Path, tmp_path: Path) -> Path:
        """Twice as deep, and one block more before it."""
        return grow(grow(base, tmp_path / "deeper"), tmp_path / "grown", "prefix", blocks=1)

    def overwrite(self, folder: Path, name: str) -> None:
        tensor = open_checkpoint(folder).tensors[name]
        with tensor.file.open("r+b") as file:
            file.seek(tensor.offset + tensor.nbytes - 1)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))

    def check(self, grown: Path, base: Path) -> tuple[str, ...]:
        return broken_promises(open_checkpoint(grown), open_checkpoint(base))

    def test_kept(self, grown: Path, base: Path, tmp_path: Path) -> None:
        assert self.check(grown, base) == ()
        assert self.check(grown, tmp_path / "deeper") == ()
        self.overwrite(grown, TO_Q.format(0))  # a new block's: free
        assert self.check(grown, base) == ()

    def test_carried(self, grown: Path, base: Path) -> None:
        self.overwrite(grown, TO_Q.format(3))
        assert self.check(grown, base) == (f"{TO_Q.format(3)} differs from {TO_Q.format(1)} of the base",)

    def test_zeroed(self, grown: Path, base: Path) -> None:
        name = "transformer_blocks.2.ff.net.2.bias"
        self.overwrite(grown, name)
        assert self.check(grown, base) == (f"{name} should be zero, and is not",)

    def test_no_record(self, base: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no growth\.json"):
            self.check(base, base)


class TestRows:
    """A base tensor whose rows stand in another one, between zeros."""

    def checkpoint(self, path: Path, tensors: dict[str, bytes], steps: tuple[Step, ...] = ()) -> Checkpoint:
        path.mkdir()
        header = write_header({name: ("U8", (len(data) // 2, 2), len(data)) for name, data in tensors.items()}, {})
        (path / "model.safetensors").write_bytes(header + b"".join(tensors.values()))
        (path / "config.json").write_text("{}")
        record = Record(base=Base(class_name="", name="", fingerprint=""), steps=steps) if steps else None
        return replace(open_checkpoint(path), record=record)

    def check(
        self, tmp_path: Path, now: dict[str, bytes], rebuilt: tuple[Piece, ...], rows: dict[str, Rows]
    ) -> tuple[str, ...]:
        taken = step(changed=("now",), new=("new",), rebuilt={"old": rebuilt}, zeroed_rows=rows)
        base = self.checkpoint(tmp_path / "base", {"old": b"aabbcc"})
        return broken_promises(self.checkpoint(tmp_path / "grown", now, (taken,)), base)

    @pytest.mark.parametrize(
        ("now", "new", "faults"),
        [
            (b"bbcc--aa", b"xx\0\0", ()),
            (b"bbcd--aa", b"xx\0\0", ("rows 0 to 2 of now differ from old of the base",)),
            (b"bbcc--ab", b"xx\0\0", ("rows 3 to 4 of now differ from old of the base",)),
            (b"bbcc--", b"xx\0\0", ("rows 3 to 4 of now differ from old of the base",)),
            (b"bbcc--aa", b"xx\0\1", ("rows 1 to 2 of new should be zero, and are not",)),
            (b"bbcc--aa", b"xx", ("new should have zeros in rows 1 to 2, and has not as many rows",)),
        ],
    )
    def test_pieces_and_zero_rows(self, tmp_path: Path, now: bytes, new: bytes, faults: tuple[str, ...]) -> None:
        pieces = (Piece(source="now", start=3, stop=4), Piece(source="now", start=0, stop=2))
        assert self.check(tmp_path, {"now": now, "new": new}, pieces, {"new": ((1, 2),)}) == faults

    def test_rows_that_are_nowhere(self, tmp_path: Path) -> None:
        pieces = (Piece(source="now", start=3, stop=4),)
        assert self.check(tmp_path, {"now": b"bbcc--aa"}, pieces, {}) == (
            "old of the base is not all in the grown model",
        )
        pieces = (Piece(source="gone", start=3, stop=4),)
        (tmp_path / "again").mkdir()
        found = self.check(tmp_path / "again", {"now": b"bbcc--aa"}, pieces, {})
        assert found == ("gone is missing; it holds rows of old of the base",)
