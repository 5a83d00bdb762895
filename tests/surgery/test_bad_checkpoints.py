"""Damaged, malicious and odd checkpoints: refused with a sentence that names the file, or read right.

`cases.json` says of each what is wrong and what a careful editor does. Where either can be
defended ("policy"), POLICY below is this project's decision.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from growths import grow

from modelgrow.surgery import (
    CheckpointError,
    GrowError,
    SourceError,
    inspect,
    open_source,
)

HERE = Path(__file__).parent / "bad_checkpoints"
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in json.loads((HERE / "cases.json").read_text())}

POLICY = {
    "hdr_tab_newline_padding": "accept",  # white space to JSON, and the official library agrees
    "dup_tensor_same": "reject",  # readers differ about duplicates; the format forbids them
    "meta_null": "accept",  # as the official library
    "name_empty": "reject",  # no model has such a parameter
    "name_nfc_nfd": "accept",  # different names are different, byte by byte
    "ix_bom": "reject",  # not JSON; the message says so
    "ix_extra_shard": "accept",  # a stale file that the index does not mention is left alone
    "ix_total_size_negative": "accept",  # only informative, and computed anew in the output
    "ix_and_single_file": "reject",  # loaders disagree about which counts
    "mdl_config_dup_key": "reject",
    "mdl_block_shapes_differ": "accept",  # listed; growth copies a block as it is
    "mdl_nested_block_name": "accept",
}


class _Payload:
    """Unpickled, it would make a folder in the working directory."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("PICKLE_WAS_EXECUTED",)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "cases"
    shutil.copytree(HERE / "cases", folder)
    for name, kind in json.loads((HERE / "pickles.json").read_text()).items():
        data = pickle.dumps({"blocks.0.w": _Payload()})
        if kind == "zip":
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("archive/data.pkl", data)
                archive.writestr("archive/version", "3\n")
            data = buffer.getvalue()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name, target in json.loads((HERE / "links.json").read_text()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    return folder


def _folder(laid_out: Path, name: str) -> Path:
    folder = laid_out / name
    return folder / "snapshots" / "rev1" if name == "ln_hf_cache_layout" else folder


def _open(folder: Path) -> None:
    inspect(open_source(str(folder)))


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, laid_out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    want = POLICY[name] if CASES[name]["want"] == "policy" else CASES[name]["want"]
    folder = _folder(laid_out, name)
    if want == "accept":
        _open(folder)
    else:
        with pytest.raises(GrowError) as caught:
            _open(folder)
        assert isinstance(caught.value, CheckpointError | SourceError)
        assert str(folder) in str(caught.value)
        assert str(caught.value).isprintable()
    with pytest.raises(GrowError):  # no case is of a known architecture
        grow(folder, tmp_path / "grown")
    assert list(tmp_path.iterdir()) == []


def test_every_policy_is_about_a_case() -> None:
    assert set(POLICY) == {name for name, case in CASES.items() if case["want"] == "policy"}
