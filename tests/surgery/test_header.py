"""Headers: what the corpus of bad checkpoints leaves out, sizes that hurt, and files that are something else."""

from __future__ import annotations

import gzip
import json
import math
import os
import socket
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from modelgrow.surgery import CheckpointError
from modelgrow.surgery.header import MAX_HEADER, MAX_METADATA, Header, read_header, write_header
from modelgrow.surgery.tensor import DTYPE_BITS

ENTRY = '{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def read(path: Path, text: str | bytes, data: bytes = b"ab") -> Header:
    header = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return read_header(path)


def refusal(path: Path, text: str | bytes, data: bytes = b"ab") -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path, text, data)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def test_what_is_read(path: Path) -> None:
    text = '{"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[2,6]}, "a" : ' + ENTRY + ',"__metadata__":{"k":"v"}}  '
    header = read(path, text, b"abcdef")
    assert [(t.dtype, t.shape, t.offset, t.nbytes) for t in header.tensors.values()] == [
        ("U8", (2,), 8 + len(text), 2),
        ("BF16", (1, 2), 10 + len(text), 4),
    ]
    assert list(header.tensors) == ["a", "b"]
    assert header.metadata == {"k": "v"}


def test_fields_that_the_format_does_not_have_are_read_over(path: Path) -> None:
    """As by the official library."""
    plain = read(path, f'{{"a":{ENTRY}}}').tensors["a"]
    for more in ('"more":1', '"more":{"data_offsets":[0,99]}', '"more":[[]]'):
        tensor = read(path, f'{{"a":{ENTRY[:-1]},{more}}}}}').tensors["a"]
        assert (tensor.dtype, tensor.shape, tensor.nbytes) == (plain.dtype, plain.shape, plain.nbytes)


def test_read_what_was_written(path: Path) -> None:
    tensors = {
        "plain": ("F32", (2, 3), 24),
        'quo"te\\ \n\x1b[31m \u00e9 \U0001f600': ("F4", (2,), 1),
        "scalar": ("I64", (), 8),
        "empty": ("F16", (0, 7), 0),
    }
    path.write_bytes(write_header(tensors, {"a\n": "\u00e9"}) + bytes(33))
    header = read_header(path)
    assert {name: (t.dtype, t.shape, t.nbytes) for name, t in header.tensors.items()} == tensors
    assert header.metadata == {"a\n": "\u00e9"}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("[2]", "[2.0]", "shape is"),
        ("[2]", "[2e0]", "shape is"),
        ("[2]", "[true,2]", "shape is"),
        ("[2]", "[-0,2]", "shape is"),
        ("[2]", '["2"]', "shape is"),
        ("[2]", "[[2]]", "shape is"),
        ("[2]", "null", "shape is"),
        ("[2]", "[02]", "not valid JSON"),
        ("[2]", "[+2]", "not valid JSON"),
        ("[2]", "[1e999]", "more than a number can be"),
        ("[2]", "[NaN]", "NaN"),
        ("[2]", "[9223372036854775808]", "shape is"),
        ("[2]", "[4294967296,4294967296,0]", "more elements than 64 bits"),
        ("[2]", "[" + "9" * 200 + "]", "a number of 200 digits"),
        ("[2]", "[" + "1," * 40_000 + "2]", "a value of more than 65536 bytes"),
        ("[2]", "[" * 5000, "nested too deeply"),
        ("[0,2]", "[0,-2]", "data_offsets"),
        ("[0,2]", "[2,0]", "data_offsets"),
        ("[0,2]", "[0,2.0]", "data_offsets"),
        ("[0,2]", "[0]", "data_offsets"),
        ("[0,2]", "[0,99]", "cut short"),
        ('"U8"', '"u8"', "unknown dtype"),
        ('"U8"', "8", "dtype is 8"),
        ('"U8"', '"F4"', "takes 1 bytes"),
        ('"shape"', '"Shape"', "expected an object with"),
        ('"shape":[2],', "", "expected an object with"),
        ('{"dtype"', '{"more":"\\ud800","dtype"', "half a surrogate pair"),
        ('{"dtype"', '{"more":' + "[" * 1000 + "]" * 1000 + ',"dtype"', "nested too deeply"),
        ('{"dtype"', '{"dtype":"U8","dtype"', "given twice"),
        (ENTRY, f"[{ENTRY}]", "expected an object with"),
        (ENTRY, "", "not valid JSON"),
        (ENTRY, ENTRY + ENTRY, "expected '}'"),
        (ENTRY, ENTRY + ",", "expected a string"),
        (ENTRY, f'{ENTRY},"a":{ENTRY}', "given twice"),
        (ENTRY, f'{ENTRY},"\\u0061":{ENTRY}', "given twice"),
        ('"a"', '"\\ud800"', "half a surrogate pair"),
        ('"a"', '"\x01"', "not valid JSON"),
        ('"a"', '"\\x"', "not valid JSON"),
        ('"a"', '"a', "expected ':'"),
        ('"data_offsets":[0,2]}', '"data_offsets":[0,2]},"b', "a string without an end"),
        ('"a"', "a", "expected a string"),
        ('"a"', f'"{"a" * 70_000}"', "a string of more than 65536 bytes"),
        ('{"a"', '\ufeff{"a"', "begins with"),
        ('{"a"', ' {"a"', "begins with"),
        ('{"a"', '{"__metadata__":[],"a"', "must map strings to strings"),
        ('{"a"', '{"__metadata__":"x","a"', "must map strings to strings"),
        ('{"a"', '{"__metadata__":{"k":{}},"a"', "must map strings to strings"),
        ('{"a"', '{"__metadata__":{"k":1},"a"', "must map strings to strings"),
        ('{"a"', '{"__metadata__":{"k":"\\udfff"},"a"', "half a surrogate pair"),
        ('{"a"', '{"__metadata__":{"k":"","k":""},"a"', "given twice"),
        ('{"a"', '{"__metadata__":{},"__metadata__":{},"a"', "given twice"),
        ('{"a"', '{"__metadata__":null,"__metadata__":null,"a"', "given twice"),
    ],
)
def test_one_fault(path: Path, old: str, new: str, fault: str) -> None:
    good = '{"a":' + ENTRY + "}"
    assert list(read(path, good).tensors) == ["a"]
    assert good.count(old) == 1
    assert fault in refusal(path, good.replace(old, new))


@pytest.mark.parametrize(
    "text", [b'{"a\xff":1}', b'{"\xc0\x80":1}', b'{"\xed\xa0\x80":1}', '{"a":1}'.encode("utf-16"), b'{"a":"\xff"}']
)
def test_not_utf8(path: Path, text: bytes) -> None:
    refusal(path, text)


def test_names_are_carried_whatever_they_are_and_shown_escaped(path: Path) -> None:
    name = "a\x00\x1b[31m\n../\u202e\U0001f600" + "x" * 5000
    assert list(read(path, json.dumps({name: json.loads(ENTRY)})).tensors) == [name]
    message = refusal(path, json.dumps({name: json.loads(ENTRY)}), b"a")
    assert "\\x1b[31m\\n../\\u202e" in message
    assert len(message) < 600


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype(path: Path, dtype: str) -> None:
    count = 8 // math.gcd(8, DTYPE_BITS[dtype])  # the fewest that fill whole bytes
    size = count * DTYPE_BITS[dtype] // 8

    def entry(elements: int) -> str:
        return json.dumps({"t": {"dtype": dtype, "shape": [elements], "data_offsets": [0, size]}})

    assert read(path, entry(count), bytes(size)).tensors["t"].nbytes == size
    refusal(path, entry(count + 1), bytes(size))


def test_places_of_empty_tensors(path: Path) -> None:
    def text(place: int) -> str:
        empty = {"dtype": "U8", "shape": [0], "data_offsets": [place, place]}
        return json.dumps({"z": empty, "a": json.loads(ENTRY), "y": empty})

    for place in (0, 2):
        assert len(read(path, text(place)).tensors) == 3
    assert "overlaps" in refusal(path, text(1))


def big(path: Path, begin: bytes, length: int) -> None:
    """A header of `length` bytes that begins with `begin` and goes on with a hole, which takes no room on disk."""
    path.write_bytes(length.to_bytes(8, "little") + begin)
    os.truncate(path, 8 + length)


@pytest.mark.parametrize(
    ("begin", "fault"),
    [
        (b"{", "expected a string"),
        (b'{"a":' + b"[],[" * 20_000, "expected an object with"),
        (b'{"a":[' + b"[]," * 30_000, "a value of more than 65536 bytes"),
        (b'{"a":' + b'{"a":' * 20_000, "nested too deeply"),
        (b'{"' + b'\\"' * 40_000, "a string of more than 65536 bytes"),
        (b'{"__metadata__":{"a":"' + b"x" * (MAX_METADATA + 1), f"a string of more than {MAX_METADATA} bytes"),
    ],
)
def test_a_huge_header_takes_no_more_memory_than_it_has_bytes(path: Path, begin: bytes, fault: str) -> None:
    length = MAX_HEADER - 1_000_000
    big(path, begin, length)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=fault):
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < length + 15_000_000


def test_a_header_of_spaces(path: Path) -> None:
    spaces = b"{" + b" " * 20_000_000 + b"}"
    tracemalloc.start()
    read(path, spaces, b"")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(spaces)  # ours and, to write the file, two of this test's
    big(path, b" ", MAX_HEADER)
    with pytest.raises(CheckpointError, match="begins with"):
        read_header(path)
    big(path, b"{", MAX_HEADER + 1)
    with pytest.raises(CheckpointError, match="ask for a header of 100000001 bytes"):
        read_header(path)


def test_time_grows_with_the_number_of_tensors_and_not_faster(path: Path) -> None:
    def seconds(count: int) -> float:
        entries = {f"blocks.{i}.weight": {"dtype": "U8", "shape": [], "data_offsets": [i, i + 1]} for i in range(count)}
        text = json.dumps(entries, separators=(",", ":"))
        start = time.process_time()
        assert len(read(path, text, bytes(count)).tensors) == count
        return time.process_time() - start

    seconds(1000)
    assert seconds(40_000) < 40 * seconds(4_000)  # 10 if linear, 100 if quadratic


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run git lfs pull"),
        (b"<!DOCTYPE html>\n<html></html>", "HTML page"),
        (b"\n  <html><body>Login</body></html>", "HTML page"),
        (b'{"error":"Repository not found"}', "JSON text"),
        (b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0", "GGUF"),
        (gzip.compress(b"x" * 100, mtime=0), "compressed archive"),
        (b"\x80\x02}q\x00X\x01\0\0\0aq\x01K\x01s.", "pickle"),
        (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.", "weights_only=True"),
        (bytes(1000), "nothing but zeros"),
        (b"", "0 bytes long"),
        (b"abcdefgh", "8 bytes long"),
        (b"random words that mean nothing at all", "cut short, or not a safetensors file"),
    ],
)
def test_something_else_under_the_name(path: Path, data: bytes, what: str) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=what) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_zip_of_torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match="which is what torch"):
        read_header(path)


def test_magic_counts_only_where_the_format_fails(path: Path) -> None:
    """A header of 640 bytes: the file begins as pickles of protocol 2 do."""
    text = ('{"a":' + ENTRY + "}").ljust(640)
    read(path, text)
    assert path.read_bytes()[:2] == b"\x80\x02"


def test_special_files(tmp_path: Path) -> None:
    folder, pipe, loop = tmp_path / "folder", tmp_path / "pipe", tmp_path / "loop"
    folder.mkdir()
    os.mkfifo(pipe)
    loop.symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        cases = {
            folder: "a folder",
            pipe: "a pipe",
            tmp_path / "socket": "a socket",
            Path("/dev/zero"): "a device",
            loop: "can't be read: Too many levels",
            tmp_path / "nothing": "can't be read: No such file",
            tmp_path / ("n" * 300): "can't be read: File name too long",
            tmp_path / "a\0b": "can't be read: embedded null",
        }
        for path, what in cases.items():
            with pytest.raises(CheckpointError, match=what):
                read_header(path)


def test_a_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions stop nobody who is root, so the refusal is the kernel's words from here."""
    read(path, '{"a":' + ENTRY + "}")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match="can't be read: Permission denied"):
        read_header(path)


def test_a_file_of_more_tensors_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor takes more memory than its entry takes of the file, so their number is bounded."""
    monkeypatch.setattr("modelgrow.surgery.header.MAX_TENSORS", 3)
    path = tmp_path / "many.safetensors"
    for count in (3, 4):
        tensors: dict[str, tuple[str, tuple[int, ...], int]] = {f"t{i}": ("U8", (0,), 0) for i in range(count)}
        path.write_bytes(write_header(tensors, {}))
        if count == 3:
            assert len(read_header(path).tensors) == 3
    with pytest.raises(CheckpointError, match="holds more than 3 tensors"):
        read_header(path)
