"""Which tensor goes to which file, and where in it: worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelgrow.surgery import Checkpoint, Copy, Plan, PlannedTensor, Tensor, Values, Zeros
from modelgrow.surgery import layout as layout_module
from modelgrow.surgery.content import Content, Piece, Pieces
from modelgrow.surgery.header import write_header
from modelgrow.surgery.layout import OutputFile, index_of, lay_out, output_file
from modelgrow.surgery.segments import Segment, segments_of, split

ONE, TWO = Path("one"), Path("two")


def tensor(file: Path, offset: int, nbytes: int) -> Tensor:
    return Tensor(dtype="U8", shape=(nbytes,), file=file, offset=offset, nbytes=nbytes)


def checkpoint(**tensors: Tensor) -> Checkpoint:
    return Checkpoint(path=Path("ckpt"), tensors=tensors, config={}, metadata={"made": "by hand"})


def planned(name: str, nbytes: int, content: Content | None = None, part: str | None = None) -> PlannedTensor:
    """A tensor of the input as it is, or, with a content, a new one."""
    return PlannedTensor(
        name=name,
        dtype="U8",
        shape=(nbytes,),
        content=content or Copy(source=name),
        is_new=content is not None,
        part=part,
    )


def plan(*tensors: PlannedTensor) -> Plan:
    return Plan(operation="test", options={}, class_name="Test", tensors=tensors)


def names(layout: tuple[OutputFile, ...]) -> list[list[str]]:
    return [[tensor.name for tensor in file.tensors] for file in layout]


def places(file: OutputFile, sources: Checkpoint) -> dict[str, tuple[int, int]]:
    """Tensor -> where it lies within a block of 4096, in the output and in its source."""
    found, position = {}, len(file.header)
    for item in file.tensors:
        if isinstance(item.content, Copy):
            found[item.name] = (position % 4096, sources.tensors[item.content.source].offset % 4096)
        position += item.nbytes
    return found


class TestHeader:
    def test_data_begin_where_they_are_asked_to(self) -> None:
        """{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}} has 53 bytes: with the length, 61."""
        text = b'{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'
        assert len(text) == 53
        entry = {"w": ("U8", (3,), 3)}
        assert write_header(entry, {}) == (56).to_bytes(8, "little") + text + b" " * 3
        for shift, length in ((64, 64), (72, 72), (0, 4096), (8, 4096 + 8), (56, 4096 + 56)):
            header = write_header(entry, {}, shift=shift)
            assert len(header) == length
            assert header[:61] == (length - 8).to_bytes(8, "little") + text
            assert header[61:] == b" " * (length - 61)

    def test_a_file_shifts_to_its_source(self) -> None:
        """Source at 5000 = 4096 + 904: the data must begin at 904 within a block."""
        base = checkpoint(w=tensor(ONE, 5000, 9000))
        file = output_file("f", [planned("copy", 9000, Copy(source="w"))], {}, base.tensors)
        assert len(file.header) == 904
        assert file.header.rstrip(b" ").endswith(b"}")
        assert json.loads(file.header[8:]) == {"copy": {"dtype": "U8", "shape": [9000], "data_offsets": [0, 9000]}}

    def test_most_bytes_win(self) -> None:
        """a wants 904. b stands 100 on: from 808 it wants 708, which is no multiple of 8; from 812 it wants 712."""
        base = checkpoint(a=tensor(ONE, 5000, 100), b=tensor(TWO, 808, 50000))
        both = [planned("a", 100), planned("b", 50000)]
        assert len(output_file("f", both, {}, base.tensors).header) == 904
        base = checkpoint(a=tensor(ONE, 5000, 100), b=tensor(TWO, 812, 50000))
        assert len(output_file("f", both, {}, base.tensors).header) == 712

    def test_nothing_to_clone_takes_no_padding(self) -> None:
        file = output_file("f", [planned("new", 5, Zeros()), planned("more", 2, Values(data=b"ab"))], {}, {})
        assert len(file.header) % 8 == 0
        assert len(file.header) - len(file.header.rstrip(b" ")) < 8


class TestOrder:
    def test_wider_dtypes_first_only_where_alignment_asks_for_it(self) -> None:
        def typed(name: str, dtype: str, count: int) -> PlannedTensor:
            return PlannedTensor(name=name, dtype=dtype, shape=(count,), content=Zeros(), is_new=True)

        aligned = [typed("a", "BF16", 2), typed("b", "F32", 1), typed("c", "BF16", 1)]
        assert names((output_file("f", aligned, {}, {}),)) == [["a", "b", "c"]]
        crooked = [typed("a", "BF16", 3), typed("b", "F32", 1), typed("c", "BF16", 1)]
        assert names((output_file("f", crooked, {}, {}),)) == [["b", "a", "c"]]

    def test_a_single_files_new_blocks_come_where_they_can_be_cloned(self) -> None:
        """Two blocks of 1 MiB + 1024, each copied: behind its source a copy would stand 1024 bytes off."""
        size, step = (1 << 20) + 1024, (1 << 20) + 1024
        base = checkpoint(a=tensor(ONE, 4096, size), b=tensor(ONE, 4096 + step, size))
        tensors = [planned("a", size), planned("a2", size, Copy(source="a"))]
        tensors += [planned("b", size), planned("b2", size, Copy(source="b"))]
        spacers = [planned(f"z{i}", 1024, Zeros()) for i in range(2)]
        (file,) = lay_out(plan(*tensors, *spacers), base)
        found = places(file, base)
        assert found.keys() == {"a", "a2", "b", "b2"}
        assert all(place == source for place, source in found.values())
        assert sorted(names((file,))[0]) == ["a", "a2", "b", "b2", "z0", "z1"]

    def test_the_plans_order_stays_where_it_can_be_cloned_as_it_is(self) -> None:
        size = 1 << 21
        base = checkpoint(a=tensor(ONE, 904, size), b=tensor(ONE, 904 + size, size))
        tensors = [planned("a", size), planned("a2", size, Copy(source="a")), planned("b", size)]
        (file,) = lay_out(plan(*tensors), base)
        assert names((file,)) == [["a", "a2", "b"]]
        assert set(places(file, base).values()) == {(904, 904)}


class TestFiles:
    base = checkpoint(a=tensor(ONE, 104, 40), b=tensor(ONE, 144, 8), c=tensor(TWO, 96, 16))

    def test_an_untouched_shard_is_carried_whole(self) -> None:
        new = planned("d", 40, Copy(source="a"), part="block")
        layout = lay_out(plan(planned("a", 40), planned("b", 8), planned("c", 16), new), self.base)
        assert names(layout) == [["a", "b"], ["c"], ["d"]]
        assert [file.name for file in layout] == [
            f"diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)
        ]
        assert [file.whole for file in layout] == [ONE, TWO, None]
        assert [file.num_bytes for file in layout[:2]] == [152, 112]
        whole = Segment(position=0, nbytes=152, source=ONE, name=layout[0].name)
        assert layout[0].segments(self.base.tensors) == [whole]
        assert b'"made":"by hand"' in layout[2].header
        assert index_of(layout) == {
            "metadata": {"total_size": 40 + 8 + 16 + 40},
            "weight_map": {"a": layout[0].name, "b": layout[0].name, "c": layout[1].name, "d": layout[2].name},
        }

    @pytest.mark.parametrize("case", ["renamed", "one less", "one more", "made new"])
    def test_a_shard_that_changes_is_not(self, case: str) -> None:
        renamed = PlannedTensor(name="A", dtype="U8", shape=(40,), content=Copy(source="a"))
        extra = PlannedTensor(name="x", dtype="U8", shape=(40,), content=Copy(source="a"))
        first = {
            "renamed": [renamed, planned("b", 8)],
            "one less": [planned("a", 40)],
            "one more": [planned("a", 40), planned("b", 8), extra],
            "made new": [planned("a", 40), PlannedTensor(name="b", dtype="U8", shape=(8,), content=Zeros())],
        }[case]
        layout = lay_out(plan(*first, planned("c", 16)), self.base)
        assert names(layout) == [[item.name for item in first], ["c"]]
        assert [file.whole for file in layout] == [None, TWO]

    def test_changed_tensors_stay_in_the_shard_they_were_in(self) -> None:
        rows = Pieces(parts=(Piece(source="b", start=0, stop=8), Piece(source=None, start=0, stop=2)))
        contents: dict[str, Content] = {"a": Zeros(), "b": rows, "c": Values(data=bytes(16))}
        sizes = {"a": 40, "b": 10, "c": 16}
        changed = [
            PlannedTensor(name=name, dtype="U8", shape=(sizes[name],), content=content)
            for name, content in contents.items()
        ]
        layout = lay_out(plan(*changed), self.base)
        assert names(layout) == [["a", "b"], ["c"]]
        assert [file.whole for file in layout] == [None, None]

    def test_a_single_file_stays_one_up_to_diffusers_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        base = checkpoint(a=tensor(ONE, 104, 40), b=tensor(ONE, 144, 8), c=tensor(ONE, 152, 16))
        grown = plan(
            planned("a", 40), planned("b", 8), planned("c", 16), planned("d", 40, Copy(source="a"), part="new")
        )
        monkeypatch.setattr(layout_module, "MAX_SHARD", 104)
        (single,) = lay_out(grown, base)
        assert single.name == "diffusion_pytorch_model.safetensors"
        assert index_of((single,)) is None
        monkeypatch.setattr(layout_module, "MAX_SHARD", 48)
        assert names(lay_out(grown, base)) == [["a", "b"], ["c"], ["d"]]
        monkeypatch.setattr(layout_module, "MAX_SHARD", 39)  # a tensor above it has a file for itself
        assert names(lay_out(grown, base)) == [["a"], ["b", "c"], ["d"]]

    def test_the_limit_is_diffusers_own(self) -> None:
        assert layout_module.MAX_SHARD == 10_000_000_000

    def test_shards_of_the_input_are_never_split(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layout_module, "MAX_SHARD", 1)
        assert names(lay_out(plan(planned("a", 40), planned("b", 8), planned("c", 16)), self.base)) == [
            ["a", "b"],
            ["c"],
        ]


class TestSegments:
    def test_what_adjoins_in_both_files_is_one(self) -> None:
        base = checkpoint(a=tensor(ONE, 100, 40), b=tensor(ONE, 140, 8), c=tensor(ONE, 150, 16))
        found = segments_of([planned("a", 40), planned("b", 8), planned("c", 16)], base.tensors, 8)
        assert [(s.position, s.nbytes, s.offset) for s in found] == [(8, 48, 100), (56, 16, 150)]

    def test_rows(self) -> None:
        """Rows of 4 bytes (2 x BF16): 1 to 3 of w, two of zeros, 0 to 1 of w."""
        source = Tensor(dtype="BF16", shape=(3, 2), file=ONE, offset=100, nbytes=12)
        rows = Pieces(
            parts=(
                Piece(source="w", start=1, stop=3),
                Piece(source=None, start=0, stop=2),
                Piece(source="w", start=0, stop=1),
            )
        )
        item = PlannedTensor(name="x", dtype="BF16", shape=(5, 2), content=rows, is_new=True)
        found = segments_of([item], {"w": source}, 64)
        assert [(s.position, s.nbytes, s.source, s.offset) for s in found] == [
            (64, 8, ONE, 104),
            (72, 8, None, 0),
            (80, 4, ONE, 100),
        ]
        assert [s.is_zeros for s in found] == [False, True, False]

    def test_split_cuts_at_blocks_and_loses_nothing(self) -> None:
        segments = [
            Segment(position=0, nbytes=100, data=bytes(range(100))),
            Segment(position=100, nbytes=20000, source=ONE, offset=7),
            Segment(position=20100, nbytes=300),
        ]
        lists = split(segments, 8192)
        flat = [segment for part in lists for segment in part]
        assert [(s.position, s.end) for s in flat] == [
            (0, 100),
            (100, 8192),
            (8192, 16384),
            (16384, 20100),
            (20100, 20400),
        ]
        assert [s.offset for s in flat] == [0, 7, 8099, 16291, 0]
        assert len(lists) == 3

    def test_steps_are_cut_where_the_output_says(self) -> None:
        segment = Segment(position=10, nbytes=25, data=bytes(range(25)))
        assert [(s.position, s.data) for s in segment.in_steps(16)] == [
            (10, bytes(range(6))),
            (16, bytes(range(6, 22))),
            (32, bytes(range(22, 25))),
        ]
