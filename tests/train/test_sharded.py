"""FSDP2 on two processes: what is split comes back whole, in checkpoints, averages and the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import launch, same_checkpoint, same_model, settings

from modelgrow.train.run import train

STOPPED = """
import sys
from pathlib import Path
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from modelgrow.train import run, setup
from modelgrow.train.run import train
from modelgrow.train.sharded import is_split
from modelgrow.train.settings import read_settings

make = setup.make_accelerator
chosen = read_settings(Path(sys.argv[1]), {})

def make_split(settings):
    # accelerate takes FSDP up on accelerators alone and lets it be on a CPU; its FSDP2 code runs on both.
    accelerator = make(settings)
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["WanTransformerBlock"],
        cpu_ram_efficient_loading=False,
    )
    return accelerator

setup.make_accelerator = make_split

class SplitLoop(run.Loop):
    def train(self):
        assert all(map(is_split, self.parameters))
        super().train()

run.Loop = SplitLoop

class Stop(Exception):
    pass

def stop(progress):
    if progress.step == 4:
        raise Stop

try:
    train(chosen, report=stop)
except Stop:
    train(chosen)
"""


@pytest.mark.slow
def test_fsdp2_on_two_processes_is_one_with_twice_the_batch(grown: Path, tmp_path: Path) -> None:
    """Even if it stops after step 4 and goes on from the checkpoint of step 3, moments and averages split again."""
    chosen = {"ema_decay": 0.5, "held_out": 0.25, "validate_every": 3, "save_every": 3, "keep": 9}
    one = train(settings(grown, tmp_path / "one", batch_size=4, **chosen))
    launch(settings(grown, tmp_path / "two", batch_size=2, **chosen), processes=2, script=STOPPED)
    same_checkpoint(tmp_path / "one", tmp_path / "two", 3)
    same_model(one.model, tmp_path / "two" / "model", unlike=grown)
    assert "on 2 x cpu, FSDP2" in (tmp_path / "two" / "model" / "README.md").read_text(encoding="utf-8")
