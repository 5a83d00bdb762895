"""DeepSpeed on two processes: what ZeRO splits comes back whole, in checkpoints, averages and the model."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from tiny_runs import launch, same_checkpoint, same_model, settings

from modelgrow.surgery import TrainError
from modelgrow.train import checkpoints, zero
from modelgrow.train.run import train

deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed (pip)")

STOPPED = """
import sys
from pathlib import Path
from accelerate import PartialState
from modelgrow.train import run
from modelgrow.train.settings import read_settings
from modelgrow.train.zero import is_zero

# accelerate takes DeepSpeed up on accelerators alone; told of the CPU beforehand it does so there too.
PartialState(cpu=True)

class ZeroLoop(run.Loop):
    def train(self):
        assert is_zero(self.run.accelerator)
        assert type(self.optimizer.optimizer).__name__ == "DeepSpeedZeroOptimizer"
        assert self.model.gradient_clipping() == self.run.settings.max_grad_norm
        super().train()

run.Loop = ZeroLoop

class Stop(Exception):
    pass

def stop(progress):
    if progress.step == 4:
        raise Stop

chosen = read_settings(Path(sys.argv[1]), {})
try:
    run.train(chosen, report=stop)
except Stop:
    run.train(chosen)
"""


def on_zero(folder: Path, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that `accelerate launch` sets from its own config; "auto" is what its questions write."""
    config = {"zero_optimization": {"stage": stage, "reduce_bucket_size": "auto"}, "gradient_clipping": "auto"}
    (folder / "deepspeed.json").write_text(json.dumps(config))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(folder / "deepspeed.json"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


@deepspeed
@pytest.mark.slow
@pytest.mark.parametrize(("stage", "more"), [(1, {}), (2, {"accumulate": 2, "max_grad_norm": 0.1})])
def test_zero_on_two_processes_is_one_with_twice_the_batch(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int, more: dict[str, Any]
) -> None:
    """Even if it stops after step 4 and goes on from the checkpoint of step 3."""
    chosen = {"ema_decay": 0.5, "held_out": 0.25, "validate_every": 3, "save_every": 3, "keep": 9, **more}
    one = train(settings(grown, tmp_path / "one", batch_size=4, **chosen))
    on_zero(tmp_path, stage, monkeypatch)
    launch(settings(grown, tmp_path / "two", batch_size=2, **chosen), processes=2, script=STOPPED, cpu=False)
    same_checkpoint(tmp_path / "one", tmp_path / "two", 3)
    states = [checkpoints.load(tmp_path / run / "checkpoints" / "step-00000003") for run in ("one", "two")]
    assert states[0].optimizer["state"].keys() == states[1].optimizer["state"].keys()
    for number, row in states[0].optimizer["state"].items():
        for key, value in row.items():
            torch.testing.assert_close(states[1].optimizer["state"][number][key], value, rtol=1e-3, atol=1e-5)
    same_model(one.model, tmp_path / "two" / "model", unlike=grown)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    assert train(settings(grown, tmp_path / "two", batch_size=2, **{**chosen, "steps": 7})).steps == 7


def told(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What `configure` makes of DeepSpeed's config."""
    chosen = settings(Path("grown"), Path("run"), **changes)
    plugin = SimpleNamespace(deepspeed_config=config)
    accelerator: Any = SimpleNamespace(
        distributed_type=DistributedType.DEEPSPEED, state=SimpleNamespace(deepspeed_plugin=plugin)
    )
    zero.configure(accelerator, chosen)
    return config


def test_the_runs_settings_come_before_deepspeeds() -> None:
    found = told(
        {
            "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": True},
            "train_batch_size": 64,
            "gradient_accumulation_steps": 8,
            "bf16": {"enabled": True},
        },
        batch_size=3,
        accumulate=2,
        max_grad_norm=0.5,
    )
    assert found == {
        "zero_optimization": {"stage": 2, "overlap_comm": True},
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
    }


@deepspeed
def test_what_accelerates_own_questions_write() -> None:
    """Without a file of DeepSpeed's, accelerate writes its config."""
    from accelerate import DeepSpeedPlugin

    found = told(dict(DeepSpeedPlugin(zero_stage=2).deepspeed_config), batch_size=3)
    assert found["zero_optimization"]["stage"] == 2
    assert found["train_micro_batch_size_per_gpu"] == 3
    assert "train_batch_size" not in found


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({"zero_optimization": {"stage": 3}}, {}, "ZeRO stage 3: stages 1 and 2 are supported"),
        ({}, {}, "ZeRO stage 0"),
        ({"zero_optimization": {"stage": 1}, "optimizer": {"type": "Adam"}}, {}, "an optimizer in its config"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}, {}, "offload_optimizer"),
        ({"zero_optimization": {"stage": 2}}, {"optimizer": "adamw8bit"}, "optimizer adamw8bit"),
        ({"zero_optimization": {"stage": 2}}, {"precision": "fp16"}, "precision fp16"),
    ],
)
def test_what_deepspeed_is_not_used_for(config: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError, match=f"DeepSpeed with {message}"):
        told(config, **changes)


def test_without_deepspeed(grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(zero, "find_spec", lambda _: None)
    with pytest.raises(TrainError, match="not installed: pip install deepspeed"):
        train(settings(grown, tmp_path / "run"))
    monkeypatch.setattr(zero, "find_spec", lambda _: object())
    accelerator: Any = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU)
    with pytest.raises(TrainError, match="on GPUs alone"):
        zero.configure(accelerator, settings(grown, tmp_path / "run"))


def test_a_model_of_which_only_what_trains_is_seen() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1).bfloat16().requires_grad_(False))
    model = zero.OnlyTrained(inner, inner[0].parameters(), lambda: torch.autocast("cpu", torch.bfloat16))
    assert [id(p) for p in model.parameters()] == [id(p) for p in inner[0].parameters()]
    model(torch.ones(1, 2)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
