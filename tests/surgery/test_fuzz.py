"""Whatever is in the files: a refusal in one line, or a checkpoint that can be grown and opened again.

Good files are damaged at random, in ways that know the formats and in ways that don't. Nothing but
a `GrowError` may come out, and memory stays within the size of the files.
"""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from growths import job_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelgrow.surgery import GrowError, execute, inspect, open_source
from modelgrow.surgery.shrink import prepare_shrink

CLASS = "LTXVideoTransformer3DModel"
MODULES = ("attn1.to_q", "attn1.to_out.0", "attn2.to_out.0", "ff.net.2")
SHARDS = ("diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors")
INDEX = "diffusion_pytorch_model.safetensors.index.json"
ROOM = 3_000_000
"""Bytes that may be used beside the files' own size: the code's own objects, plans, buffers of a MiB."""

Files = dict[str, bytes]
Draw = Callable[[st.SearchStrategy[Any]], Any]


def entries(names: list[str]) -> dict[str, Any]:
    """A header's entries for tensors of one BF16 matrix each."""
    return {
        name: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [12 * i, 12 * i + 12]} for i, name in enumerate(names)
    }


def pack(header: Any, size: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + bytes(i % 251 for i in range(size))


NAMES = [f"transformer_blocks.{i}.{module}.weight" for i in range(2) for module in MODULES]
PARTS = (["proj_in.weight", *NAMES[:5]], NAMES[5:])
STEP = {
    "operation": "expand",
    "options": {"mode": "suffix", "blocks": 1},
    "index_map": {"transformer_blocks": [0]},
    "copied_from": {"transformer_blocks": {"1": 0}},
    "new": [name for name in NAMES if ".1." in name],
    "zeroed": [name for name in NAMES if ".1." in name and "to_q" not in name],
    "zeroed_rows": {},
    "changed": [],
    "rebuilt": {},
    "config_before": {"num_layers": 1},
    "config_added": [],
    "input_fingerprint": "sha256-sampled:00",
    "made_with": "modelgrow 0",
}
GOOD: dict[str, Any] = {
    "config.json": {"_class_name": CLASS, "num_layers": 2, "attention_head_dim": 8, "scale": 1.5, "flags": [True]},
    "growth.json": {
        "format": 1,
        "base": {"class": CLASS, "name": "base", "fingerprint": "sha256-sampled:00"},
        "steps": [STEP],
        "new": STEP["new"],
        "zeroed": STEP["zeroed"],
        "changed": [],
    },
    INDEX: {
        "metadata": {"total_size": 108},
        "weight_map": {name: file for file, part in zip(SHARDS, PARTS, strict=True) for name in part},
    },
    SHARDS[0]: {"__metadata__": {"format": "pt"}, **entries(PARTS[0])},
    SHARDS[1]: entries(PARTS[1]),
}


def encode(name: str, value: Any) -> bytes:
    if name in SHARDS:
        return pack(value, 12 * len(PARTS[SHARDS.index(name)]))
    text: str = json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


TEXTS = st.sampled_from(
    [
        "",
        ".",
        "..",
        "../x.safetensors",
        "/etc/hostname",
        "a\\b.safetensors",
        "\0",
        "\x1b[31m",
        "[/red]",
        "a\nb",
        "\ud800",
        "e\u0301",
        "\u0661",
        "BF16",
        "F4",
        "I64",
        "__metadata__",
        "transformer_blocks.2.attn1.to_q.weight",
        "transformer_blocks.01.attn1.to_q.weight",
        *SHARDS,
        *NAMES[:2],
        "x" * 5000,
    ]
)
NUMBERS = st.sampled_from([0, 1, 2, 3, 12, 24, -1, 2**31, 2**62, 2**63, 2**64, 10**90, 10**200, 1.0, 1e3, -0.0, 0.5])
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)


def mutate(draw: Draw, value: Any) -> Any:
    """A copy with one place changed: another value there, a key dropped, renamed or repeated, two values swapped."""
    value = deepcopy(value)
    holder = value
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return draw(VALUES)
        key = draw(st.sampled_from(keys))
        inner = holder[key]
        if not isinstance(inner, dict | list) or draw(st.integers(0, 3)) == 0:
            break
        holder = inner
    _change(draw, holder, key, keys)
    return value


def _change(draw: Draw, holder: Any, key: Any, keys: list[Any]) -> None:
    kind = draw(st.sampled_from(["value", "nudge", "drop", "swap", "add"]))
    if kind == "value":
        holder[key] = draw(VALUES)
    elif kind == "nudge" and type(holder[key]) is int:
        holder[key] += draw(st.sampled_from([-12, -1, 1, 12]))
    elif kind == "drop":
        del holder[key]
    elif kind == "swap":
        other = draw(st.sampled_from(keys))
        holder[key], holder[other] = holder[other], holder[key]
    elif isinstance(holder, dict):
        holder[draw(TEXTS)] = deepcopy(holder[key])
    else:
        holder.append(deepcopy(holder[key]))


def damage(draw: Draw, data: bytes) -> bytes:
    """Some bytes overwritten, cut, put in or repeated, without a thought of what they mean."""
    at = draw(st.integers(0, len(data)))
    end = min(len(data), at + draw(st.integers(0, 40)))
    new: bytes = draw(
        st.sampled_from([b"", b"\0", b"\xff", b"{", b"}", b"[" * 2000, b'"', b"\\", b",", b" " * 5000, b"9" * 5000])
        | st.binary(max_size=8)
    )
    rest: int = draw(st.sampled_from([at, end, len(data)]))
    return data[:at] + new + data[rest:]


@st.composite
def folders(draw: Draw) -> Files:
    values = {name: value for name, value in GOOD.items() if name != "growth.json" or draw(st.booleans())}
    victim = draw(st.sampled_from(sorted(values)))
    for _ in range(draw(st.integers(1, 3))):
        if isinstance(values[victim], dict | list):
            values[victim] = mutate(draw, values[victim])
    files = {name: encode(name, value) for name, value in values.items()}
    if draw(st.integers(0, 2)) == 0:
        files[victim] = damage(draw, files[victim])
    return files


def lay_out(folder: Path, files: Files) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def grow(folder: Path, output: Path) -> None:
    source = open_source(str(folder))
    inspect(source)
    grown = open_source(str(execute(job_of(source), output)))
    before, after = (report.components[0] for report in (inspect(source), inspect(grown)))
    assert after.stacks[0].depth == 2 * before.stacks[0].depth
    back = execute(prepare_shrink(grown), output.with_name("back"))
    for one, other in zip(source.components, open_source(str(back)).components, strict=True):
        assert one.checkpoint is not None
        assert other.checkpoint is not None
        assert dict(one.checkpoint.config) == dict(other.checkpoint.config)


def check(files: Files) -> str:
    """Grow the files' checkpoint. "" if that went well, and the refusal otherwise."""
    refusal, peak = measured(files)
    room = sum(map(len, files.values())) + ROOM
    if peak >= room:
        # The interpreter's table of names doubles once in a long run, by 2 MB; what a file does, it does again.
        refusal, peak = measured(files)
    assert peak < room
    return refusal


def measured(files: Files) -> tuple[str, int]:
    """What `check` gives, and the bytes that were in use at most."""
    with tempfile.TemporaryDirectory(prefix="modelgrow-fuzz-") as place:
        folder = lay_out(Path(place) / "base", files)
        tracemalloc.start()
        try:
            grow(folder, Path(place) / "grown")
            refusal = ""
        except GrowError as error:
            refusal = str(error)
            assert refusal
            assert refusal.isprintable()
            assert not (Path(place) / "grown").exists()
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
        return refusal, peak


def test_what_is_damaged_below_is_good() -> None:
    assert check({name: encode(name, value) for name, value in GOOD.items()}) == ""


COMMON = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@settings(COMMON, max_examples=250)
@given(folders())
def test_folders(files: Files) -> None:
    check(files)


@pytest.mark.long
@settings(COMMON, max_examples=20_000)
@given(folders())
def test_folders_for_minutes(files: Files) -> None:
    check(files)


@settings(COMMON, max_examples=150)
@given(st.sampled_from(sorted(GOOD)), st.binary(max_size=64), st.booleans())
def test_bytes_of_no_meaning(name: str, data: bytes, is_header: bool) -> None:
    files = {name: encode(name, value) for name, value in GOOD.items()}
    files[name] = pack(data, 60) if is_header else data
    assert check(files)


def test_refusals_are_not_all() -> None:
    """A control for the two above: some damage does no harm, and most is refused."""
    refusals: list[str] = []

    @settings(COMMON, max_examples=60)
    @given(folders())
    def collect(files: Files) -> None:
        refusals.append(check(files))

    collect()
    assert 0 < refusals.count("") < len(refusals) / 2
