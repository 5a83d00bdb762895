"""A run from end to end, on a tiny grown pipeline and the small world."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import bytes_of, differing, floats, launch, record_of, settings

from modelgrow.pipelines.verify import verify
from modelgrow.surgery import GrowError, PlanError, TrainError, execute, open_checkpoint, open_source
from modelgrow.surgery.pack import prepare_pack, write_pack
from modelgrow.surgery.packed import read_packed
from modelgrow.surgery.shrink import prepare_shrink
from modelgrow.surgery.unpack import execute_apply, prepare_apply
from modelgrow.train import checkpoints
from modelgrow.train.loop import Loop
from modelgrow.train.run import make_trunk, train
from modelgrow.train.setup import set_up


def test_only_what_is_new_changes_and_the_loss_falls(grown: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    result = train(
        settings(grown, tmp_path / "run", steps=30, data="shapes:2-3:4", batch_size=4, caption_dropout=0.0),
        report=lambda progress: losses.append(progress.loss),
    )
    assert losses[-1] < 0.9 * losses[0]
    record, changed = record_of(result.model), differing(grown, result.model)
    assert changed
    assert changed <= set(record.new)
    assert set(record.zeroed) <= changed
    assert [step.operation for step in record.steps] == ["expand", "train"]
    assert record.steps[-1].options["steps"] == 30
    assert result.changed is not None
    assert result.changed.noise == 0.0


def test_step_0_is_the_base_to_the_bit(grown: Path, tmp_path: Path) -> None:
    one = Loop(run=set_up(settings(grown, tmp_path / "grown"), lambda _: None), report=lambda _: None)
    other = set_up(settings(grown.parent / "base", tmp_path / "base", train="all"), lambda _: None)
    two = Loop(run=other, report=lambda _: None)
    batch = one.batch(0)
    with torch.no_grad():
        assert torch.equal(one.predict(batch), two.predict(batch))
        noise = torch.zeros_like(batch.noise)
        assert not torch.equal(one.predict(batch), one.predict(type(batch)(**{**vars(batch), "noise": noise})))


def test_the_result_is_a_pipeline_that_is_no_longer_the_base(grown: Path, tmp_path: Path) -> None:
    from modelgrow.pipelines.generate import GenerateOptions, generate
    from modelgrow.pipelines.load import load_pipeline

    result = train(settings(grown, tmp_path / "run", ema_decay=0.5, train="all"))
    options = GenerateOptions(
        prompt="a red circle", num_frames=5, height=32, width=32, num_inference_steps=2, guidance_scale=1.0
    )
    clips = [generate(load_pipeline(folder, device="cpu"), options) for folder in (grown, result.model)]
    assert clips[0].settings["frames_sha256"] != clips[1].settings["frames_sha256"]
    assert not verify(result.model, grown, draws=1).is_identical


def test_lora_leaves_the_model_alone(grown: Path, tmp_path: Path, grow: Callable[..., tuple[int, str, str]]) -> None:
    from diffusers import WanPipeline

    chosen = settings(grown, tmp_path / "run", train="lora", lora_rank=2)
    result = train(chosen)
    (tmp_path / "run.toml").write_text(chosen.to_toml())
    said = grow("train", "--config", "run.toml")[1]
    assert f"LoRA, as diffusers loads it: {result.model / 'pytorch_lora_weights.safetensors'}\n" in said
    assert "none was left to do" in said
    assert "model: " not in said
    pipeline: Any = WanPipeline.from_pretrained(grown, dtype=torch.float32)
    pipeline.load_lora_weights(result.model)
    assert pipeline.get_active_adapters()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-30}, "still answers as before"),
        ({"learning_rate": 1e30, "max_grad_norm": 1e30}, "lower the learning rate"),
        ({"component": "unet"}, "has no component 'unet'"),
    ],
)
def test_runs_that_are_none(grown: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GrowError, match=message):
        train(settings(grown, tmp_path / "run", **changes))


def test_a_model_that_has_not_grown(grown: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing in it has grown"):
        train(settings(grown.parent / "base", tmp_path / "run"))


def test_other_settings_do_not_go_on_with_a_run(grown: Path, tmp_path: Path) -> None:
    train(settings(grown, tmp_path / "run", steps=2))
    with pytest.raises(TrainError, match=r"learning_rate was 0.01, is 0.1\)"):
        train(settings(grown, tmp_path / "run", steps=2, learning_rate=0.1))


def test_a_finished_run_goes_on_for_longer(grown: Path, tmp_path: Path) -> None:
    """Bit for bit as if it had been longer from the start; unless the learning rate depends on the end."""
    said: list[str] = []
    train(settings(grown, tmp_path / "run", steps=2))
    longer = train(settings(grown, tmp_path / "run", steps=4, keep=3), announce=said.append)
    whole = train(settings(grown, tmp_path / "whole", steps=4))
    assert bytes_of(longer.model) == bytes_of(whole.model)
    assert said[0].startswith("shapes:2-3:8: 8 clips (8 of 5 x 32 x 32), 100% of their frames")
    assert said[-1] == "going on from step 2 of 4"
    again = train(settings(grown, tmp_path / "run", steps=4, keep=3))
    assert (again.first_loss, again.last_loss) == (None, None)
    assert bytes_of(again.model) == bytes_of(longer.model)
    assert "unknown" not in (again.model / "README.md").read_text()
    train(settings(grown, tmp_path / "linear", steps=2, schedule="linear"))
    with pytest.raises(TrainError, match=r"steps was 2, is 4"):
        train(settings(grown, tmp_path / "linear", steps=4, schedule="linear"))


def test_the_cached_trunk_is_the_trunk(grown: Path, tmp_path: Path) -> None:
    """The same draws with and without it: as near as bfloat16 is, and the trunk's blocks are not run."""
    loop = Loop(run=set_up(settings(grown, tmp_path / "run", cache_trunk=2), lambda _: None), report=lambda _: None)
    trunk = make_trunk(loop, lambda _: None)
    batch, streams = trunk.sample(loop.batch(0), 0)
    loop.trunk = trunk
    calls: list[int] = []
    handle = loop.run.model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        fast = loop.loss(loop.batch(0), 0)
        assert calls == []
        loop.trunk = None
        exact = loop.error(batch)
    handle.remove()
    assert calls == [1]
    assert streams[0].dtype == torch.bfloat16
    torch.testing.assert_close(fast, exact, rtol=2e-2, atol=0)
    assert len(loop.run.model.blocks) == 3


def test_processes_share_the_trunks_clips(grown: Path, tmp_path: Path) -> None:
    loop = Loop(run=set_up(settings(grown, tmp_path / "run", cache_trunk=1), lambda _: None), report=lambda _: None)
    whole = make_trunk(loop, lambda _: None)
    shared = replace(whole, folder=tmp_path / "shared")
    counts: list[int] = []
    for process in (0, 1):
        shared.fill(loop.run.model, loop.predict, lambda _, total: counts.append(total), process=process, processes=2)
    assert counts == [4] * 8
    files = sorted(path.name for path in shared.folder.iterdir())
    assert files == sorted(path.name for path in whole.folder.iterdir())
    assert all((shared.folder / name).read_bytes() == (whole.folder / name).read_bytes() for name in files)


def test_training_with_the_cached_trunk(grown: Path, tmp_path: Path) -> None:
    result = train(settings(grown, tmp_path / "run", cache_trunk=2))
    assert result.changed is not None
    assert result.changed.moved > 0
    with pytest.raises(TrainError, match="cache_trunk needs a model grown by suffix"):
        train(settings(grown, tmp_path / "all", cache_trunk=2, train="all"))


SCRIPT = """
import sys, time
from modelgrow.train.run import train
from modelgrow.train.settings import read_settings
from pathlib import Path
pause = float(sys.argv[2])
train(read_settings(Path(sys.argv[1]), {}), report=lambda progress: time.sleep(pause))
"""


def test_a_killed_run_goes_on_bit_for_bit(grown: Path, tmp_path: Path) -> None:
    chosen = {"steps": 9, "save_every": 2, "ema_decay": 0.9, "schedule": "cosine"}
    whole = train(settings(grown, tmp_path / "whole", **chosen))
    again = settings(grown, tmp_path / "killed", **chosen)
    (tmp_path / "run.toml").write_text(again.to_toml())
    process = subprocess.Popen([sys.executable, "-P", "-c", SCRIPT, str(tmp_path / "run.toml"), "0.3"])
    folder = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while len(checkpoints.all_of(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model").exists()
    stopped = checkpoints.all_of(folder)[-1].name
    assert "step-00000002" <= stopped < "step-00000009"
    resumed = train(again)
    assert bytes_of(resumed.model) == bytes_of(whole.model)
    assert bytes_of(resumed.model) != bytes_of(grown)


def test_previews(grown: Path, tmp_path: Path) -> None:
    train(settings(grown, tmp_path / "run", steps=2, preview_every=2, previews=("a red circle",)))
    assert {path.name for path in (tmp_path / "run" / "previews").iterdir()} >= {
        "step-00000002-0.mp4",
        "step-00000002.png",
    }


def test_two_processes_are_one_with_twice_the_batch(grown: Path, tmp_path: Path) -> None:
    one = train(settings(grown, tmp_path / "one", batch_size=4, held_out=0.25, validate_every=2))
    launch(settings(grown, tmp_path / "two", batch_size=2, held_out=0.25, validate_every=2), processes=2)
    found, expected = bytes_of(tmp_path / "two" / "model"), bytes_of(one.model)
    record = open_checkpoint(one.model / "transformer").record
    assert record is not None
    for name in record.new:
        torch.testing.assert_close(floats(found[name]), floats(expected[name]), rtol=1e-3, atol=1e-5)
    assert found != bytes_of(grown)
    losses = [checkpoints.load(checkpoints.all_of(tmp_path / run / "checkpoints")[-1]) for run in ("one", "two")]
    assert losses[0].best_loss == pytest.approx(losses[1].best_loss, rel=1e-4)


def put_on(packed: Path, base: Path, output: Path) -> Path:
    return execute_apply(prepare_apply(read_packed(packed), open_source(str(base))), output)


def test_a_trained_growth_packs_applies_and_goes_back(grown: Path, tmp_path: Path) -> None:
    """What trained was new, so the growth alone holds it, and taking the growth back takes it along."""
    base = grown.parent / "base"
    model = train(settings(grown, tmp_path / "run")).model
    packed = write_pack(prepare_pack(open_source(str(model))), tmp_path / "growth.safetensors")[0]
    again = put_on(packed, base, tmp_path / "again")
    assert bytes_of(again) == bytes_of(model)
    shrunk = execute(prepare_shrink(open_source(str(model))), tmp_path / "shrunk")
    assert bytes_of(shrunk) == bytes_of(base)
    assert not (shrunk / "transformer" / "growth.json").exists()
    verdict = verify(model, base, draws=1).components[0]
    assert verdict.max_difference
    assert verdict.promises == ()


def test_trained_base_weights_stay_trained(grown: Path, tmp_path: Path) -> None:
    """A base weight that trained can't be had back from the grown folder, and nothing pretends that it can."""
    model = train(settings(grown, tmp_path / "run", train="all")).model
    with pytest.raises(PlanError, match=r"train changed .* can't be taken back"):
        prepare_shrink(open_source(str(model)))
    with pytest.raises(PlanError, match="Say --base"):
        prepare_pack(open_source(str(model)))
    packing = prepare_pack(open_source(str(model)), base=open_source(str(grown.parent / "base")))
    packed = write_pack(packing, tmp_path / "growth.safetensors")[0]
    assert bytes_of(put_on(packed, grown.parent / "base", tmp_path / "again")) == bytes_of(model)


def test_a_run_that_is_stopped_says_where_it_goes_on(
    grown: Path, tmp_path: Path, grow: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, before and after the first checkpoint."""
    chosen = settings(grown, tmp_path / "run", steps=2, save_every=1)
    (tmp_path / "run.toml").write_text(chosen.to_toml())
    words = ("train", "--config", str(tmp_path / "run.toml"))

    note = Loop._note

    def stop_at(last: int) -> Callable[..., None]:
        def stop(loop: Loop, *told: Any) -> None:
            if loop.step == last:
                raise KeyboardInterrupt
            note(loop, *told)

        return stop

    for last, told in ((1, "from the beginning, for its first checkpoint comes at step 1"), (2, "from step 1")):
        with monkeypatch.context() as patched:
            patched.setattr(Loop, "_note", stop_at(last))
            code, _, err = grow(*words)
        assert code == 130
        assert f"stopped; the same command goes on {told}\n" in err
    assert grow(*words)[0] == 0
