"""Models on the Hub, from a server in miniature: what is asked of it, and that weights stay there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from growths import job_of
from hub_server import Hub
from huggingface_hub import is_offline_mode, snapshot_download

from modelgrow.surgery import (
    Checkpoint,
    CheckpointError,
    Source,
    SourceError,
    execute,
    inspect,
    open_source,
)
from modelgrow.surgery.carried import carried_files
from modelgrow.surgery.fingerprint import fingerprint_of
from modelgrow.surgery.header import Header, read_header, write_header
from modelgrow.surgery.hub import CHUNK, Repo, fetch_header
from modelgrow.surgery.selection import needed

Maker = Callable[..., Path]


def only(source: Source) -> Checkpoint:
    (component,) = source.components
    assert component.checkpoint is not None
    return component.checkpoint


def cached(tmp_path: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (tmp_path / "hub").rglob("blobs/*")}


def header_of(read: Callable[[], Header]) -> Header | str:
    """A header, or why there is none."""
    try:
        return read()
    except CheckpointError as error:
        return str(error)


class TestHeadersOnly:
    def test_weights_stay_there(self, hub: Hub, wide: Path, tmp_path: Path) -> None:
        hub.publish("a/b", wide)
        report, there = inspect(open_source("a/b", headers_only=True)), inspect(open_source(str(wide)))
        assert report.components == there.components
        assert report.components[0].num_bytes > 6_000_000  # type: ignore[operator]
        assert hub.sent(".safetensors") < 300_000
        assert all(request.range for request in hub.asked(".safetensors"))
        assert sum(map(len, cached(tmp_path).values())) < 10_000

    def test_the_token_is_for_the_hub(self, hub: Hub, wide: Path) -> None:
        hub.publish("a/b", wide)
        open_source("a/b", headers_only=True)
        tokens = {(request.is_stored, request.token) for request in hub.asked(".safetensors")}
        assert tokens == {(False, "Bearer hf_test"), (True, None)}

    def test_a_plan_is_the_one_of_the_files(self, hub: Hub, wide: Path) -> None:
        (wide / "assets").mkdir()
        (wide / "assets" / "clip.mp4").write_bytes(b"x" * 5000)
        hub.publish("a/b", wide)
        job, other = job_of(open_source("a/b", headers_only=True)), job_of(open_source(str(wide)))
        assert {**job.to_json(), "source": "pipeline"} == other.to_json()
        assert sum(job.missing.values()) == sum(
            path.stat().st_size
            for path in wide.rglob("*")
            if path.suffix in (".safetensors", ".mp4", ".md") or path.name == "scheduler_config.json"
        )
        assert sum(other.missing.values()) == 0

    def test_what_is_cached_is_not_asked_for(self, hub: Hub, wide: Path, tmp_path: Path) -> None:
        hub.publish("a/b", wide)
        whole = open_source("a/b")
        assert not whole.elsewhere
        hub.requests.clear()
        source = open_source("a/b", headers_only=True)
        assert not hub.asked(".safetensors") + hub.asked(".json")
        assert source == whole
        vae = source.components[1].checkpoint
        assert vae is not None
        (file,) = vae.files
        file.unlink()
        assert list(open_source("a/b", headers_only=True).elsewhere) == ["vae/diffusion_pytorch_model.safetensors"]
        assert {request.name for request in hub.asked(".safetensors")} == {"vae/diffusion_pytorch_model.safetensors"}

    def test_a_long_header(self, hub: Hub, make_ltx: Maker) -> None:
        folder = make_ltx(depth=200)
        hub.publish("a/b", folder)
        remote, here = only(open_source("a/b", headers_only=True)), only(open_source(str(folder)))
        (file,) = here.files
        length = int.from_bytes(file.read_bytes()[:8], "little")
        assert length > CHUNK
        ranges = [request.range for request in hub.asked(".safetensors") if request.is_stored]
        assert ranges == [f"bytes=0-{CHUNK - 1}", f"bytes={CHUNK}-{length + 7}"]
        assert [(t.dtype, t.shape, t.offset, t.nbytes) for t in remote.tensors.values()] == [
            (t.dtype, t.shape, t.offset, t.nbytes) for t in here.tensors.values()
        ]
        assert list(remote.tensors) == list(here.tensors)
        assert remote.metadata == here.metadata

    def test_nothing_is_made_of_headers(self, hub: Hub, make_ltx: Maker, tmp_path: Path) -> None:
        hub.publish("a/b", make_ltx())
        source = open_source("a/b", headers_only=True)
        with pytest.raises(SourceError, match=r"model\.safetensors is still on the Hub"):
            execute(job_of(source), tmp_path / "grown")
        with pytest.raises(SourceError, match="only its header was fetched"):
            fingerprint_of(only(source))
        assert not (tmp_path / "grown").exists()
        assert not any(file.exists() for file in only(source).files)

    def test_a_small_tensor_is_fetched_by_itself(
        self, hub: Hub, make_ltx: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_ltx(width=512, depth=1)
        hub.publish("a/b", folder)
        there, here = only(open_source("a/b", headers_only=True)), only(open_source(str(folder)))
        name = "transformer_blocks.0.ff.net.2.bias"
        assert there.tensors[name].read() == here.tensors[name].read()
        assert hub.requests[-1].sent == here.tensors[name].nbytes
        monkeypatch.setattr("modelgrow.surgery.hub._MAX_FETCH", here.tensors[name].nbytes - 1)
        with pytest.raises(SourceError, match="more than is fetched without the file"):
            there.tensors[name].read()

    def test_every_check_of_a_header_holds(self, hub: Hub) -> None:
        """The same sentence about every damaged file, wherever it is."""
        folder = Path(__file__).parent / "bad_checkpoints" / "cases"
        paths = [path for path in sorted(folder.rglob("*.safetensors")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
        repo = Repo(repo_id="a/b", commit=hub.publish("a/b", folder), folder=folder, sizes=files)
        refused = 0
        for name in files:
            local = header_of(partial(read_header, folder / name))
            assert header_of(partial(fetch_header, repo, name)) == local
            refused += isinstance(local, str)
        assert 30 < refused < len(files) - 30


class TestSelection:
    def test_what_a_pipeline_does_not_load_stays_there(self, hub: Hub, pipeline: Path, tmp_path: Path) -> None:
        """As in the repositories of SVD and LTX-Video: every model a second time, and others beside."""
        for name in ("vae/diffusion_pytorch_model.fp16", "everything", "original/model"):
            (pipeline / name).parent.mkdir(exist_ok=True)
            (pipeline / f"{name}.safetensors").write_bytes(b"not read")
        (pipeline / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"not read")
        (pipeline / "README.md").write_text("kept")
        hub.publish("a/b", pipeline)
        source = open_source("a/b")
        job = job_of(source)
        assert job.num_bytes == job_of(open_source("a/b", headers_only=True)).num_bytes
        grown = execute(job, tmp_path / "grown")
        stored = {request.name for request in hub.requests if request.is_stored}
        assert stored == {
            "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
            "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        }
        assert (grown / "README.md").read_text() == "kept"
        snapshot_download("a/b")  # as another program may; what it fetched beside is not carried along
        assert (source.path / "everything.safetensors").is_file()
        assert carried_files(job_of(open_source("a/b"))) == carried_files(job)
        assert sorted(path.name for path in (grown / "vae").iterdir()) == [
            "config.json",
            "diffusion_pytorch_model.safetensors",
        ]

    def test_a_variant(self, hub: Hub, pipeline: Path) -> None:
        plain = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
        half = {"w": ("F16", (1,), 2)}
        plain.with_name("diffusion_pytorch_model.fp16.safetensors").write_bytes(write_header(half, {}) + b"ab")
        hub.publish("a/b", pipeline)
        source = open_source("a/b", variant="fp16", headers_only=True)
        dtypes = [next(iter(part.checkpoint.dtypes)) for part in source.components if part.checkpoint is not None]
        assert dtypes == ["BF16", "F16"]
        assert plain.relative_to(pipeline).as_posix() not in source.elsewhere

    @pytest.mark.parametrize(
        ("name", "variant"),
        [
            ("diffusion_pytorch_model.safetensors", None),
            ("diffusion_pytorch_model.fp16.safetensors", "fp16"),
            ("model-00001-of-00003.safetensors", None),
            ("model.fp16-00001-of-00003.safetensors", "fp16"),
            ("model.non_ema.v2.safetensors", "non_ema.v2"),
            ("model.safetensors.index.json", None),
            ("model.safetensors.index.fp16.json", "fp16"),
            ("wan_t2v.safetensors", ""),
        ],
    )
    def test_variants_by_name(self, name: str, variant: str | None) -> None:
        sizes = dict.fromkeys(["t/model.safetensors", "t/model.fp16.safetensors", f"t/{name}"], 1)
        for asked in (None, "fp16"):
            kept = needed(sizes, ["t"], asked)
            assert (f"t/{name}" in kept) == (variant in (asked, ""))

    def test_a_revision(self, hub: Hub, make_ltx: Maker) -> None:
        first = hub.publish("a/b", make_ltx("one", depth=2), "v1")
        second = hub.publish("a/b", make_ltx("two", depth=4))
        depths = {}
        for revision in (None, "main", "v1", first, second):
            source = open_source("a/b", revision=revision, headers_only=True)
            depths[revision] = inspect(source).components[0].stacks[0].depth
            assert source.commit == (first if revision in ("v1", first) else second)
        assert depths == {None: 4, "main": 4, "v1": 2, first: 2, second: 4}


@pytest.mark.hub
@pytest.mark.skipif(is_offline_mode(), reason="HF_HUB_OFFLINE is set")
def test_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.4 billion parameters of Wan 2.1, and a text encoder four times as large: configs and headers are fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = open_source("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", headers_only=True)
    transformer = next(part for part in inspect(source).components if part.name == "transformer")
    assert (transformer.class_name, transformer.stacks[0].depth) == ("WanTransformer3DModel", 30)
    assert transformer.parameters == 1_418_996_800
    assert sum(source.elsewhere.values()) > 5 * 10**9
    assert sum(path.stat().st_size for path in tmp_path.rglob("blobs/*")) < 10**6
