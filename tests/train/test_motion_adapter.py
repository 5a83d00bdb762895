"""A motion adapter trains inside a Stable Diffusion pipeline, and comes out as it went in. So do AnimateDiff's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AnimateDiffPipeline, AnimateDiffSDXLPipeline, DDIMScheduler, MotionAdapter, UNetMotionModel
from growths import grow, unpack
from hub_server import Hub
from tiny_runs import data, settings, tensors

from modelgrow.pipelines import load_growth
from modelgrow.pipelines.motion_adapter import is_motion, plug_in
from modelgrow.pipelines.probes import random_inputs, run_model
from modelgrow.surgery import (
    ExtendOptions,
    GrowError,
    execute,
    open_checkpoint,
    open_source,
    plan_extend_frames,
    prepare,
)
from modelgrow.surgery.selection import GENERATION_NAME
from modelgrow.train.component import choose
from modelgrow.train.loading import fetched, load
from modelgrow.train.loop import Loop
from modelgrow.train.result import Result
from modelgrow.train.run import train
from modelgrow.train.setup import set_up

CLIPS: dict[str, Any] = {
    "data": "shapes:1:2",
    "num_frames": 4,
    "height": 16,
    "width": 16,
    "steps": 3,
    "batch_size": 1,
    "long_captions": 0.0,
}
PREVIEWS: dict[str, Any] = {"previews": ("a red circle",), "preview_every": 3}


@pytest.fixture(scope="module")
def trained(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(run_of(adapters, "adapter-grown", "sd", tmp_path_factory.mktemp("trained") / "run", **PREVIEWS))


def run_of(adapters: Path, model: str, pipeline: str, output: Path, **changes: Any) -> Any:
    return settings(adapters / model, output, pipeline=str(adapters / pipeline), **{**CLIPS, **changes})


def answer(unet: Any) -> torch.Tensor:
    inputs = random_inputs("UNetMotionModel", unet.config, seed=1, device=torch.device("cpu"), dtype=torch.float32)
    return run_model(unet.eval(), inputs)[0]


class TestPluggedIn:
    @pytest.mark.parametrize(("model", "pipeline"), [("adapter-grown", "sd"), ("adapterxl-grown", "sdxl")])
    def test_names_are_the_adapters_own_both_ways(self, adapters: Path, model: str, pipeline: str) -> None:
        unet = plug_in(open_checkpoint(adapters / model), open_source(str(adapters / pipeline)), device="cpu").unet
        found = {name: tensor for name, tensor in unet.state_dict().items() if is_motion(name)}
        adapter: Any = MotionAdapter.from_pretrained(adapters / model)
        assert found.keys() == adapter.state_dict().keys() == open_checkpoint(adapters / model).tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in adapter.state_dict().items())
        assert {name for name, _ in unet.named_modules() if is_motion(name)} == {
            name for name, _ in adapter.named_modules() if is_motion(name)
        }

    def test_it_is_what_diffusers_makes_of_them(self, adapters: Path) -> None:
        adapter: Any = MotionAdapter.from_pretrained(adapters / "adapter")
        stock: Any = AnimateDiffPipeline.from_pretrained(adapters / "sd", motion_adapter=adapter)
        ours = plug_in(open_checkpoint(adapters / "adapter"), open_source(str(adapters / "sd")), device="cpu")
        assert type(ours) is AnimateDiffPipeline
        assert torch.equal(answer(ours.unet), answer(stock.unet))
        grown = plug_in(open_checkpoint(adapters / "adapter-grown"), open_source(str(adapters / "sd")), device="cpu")
        assert torch.equal(answer(grown.unet), answer(stock.unet))
        assert isinstance(ours.scheduler, DDIMScheduler)
        assert ours.scheduler.config.beta_schedule == "linear"
        assert ours.scheduler.config.beta_end == stock.scheduler.config.beta_end

    def test_sdxl_keeps_what_reads_sizes_and_pooled_prompts(self, adapters: Path) -> None:
        """diffusers' own `from_unet2d` leaves those layers as random numbers made them."""
        ours = plug_in(open_checkpoint(adapters / "adapterxl"), open_source(str(adapters / "sdxl")), device="cpu")
        assert type(ours) is AnimateDiffSDXLPipeline
        stored = open_checkpoint(adapters / "sdxl" / "unet")
        found = ours.unet.state_dict()
        names = [name for name in stored.tensors if name.startswith("add_embedding.")]
        assert len(names) == 4
        for name in stored.tensors:
            assert found[name].numpy().tobytes() == data(stored, name)

    @pytest.mark.parametrize(("model", "pipeline"), [("adapter-grown", "sd"), ("adapterxl-grown", "sdxl")])
    def test_both_may_come_from_the_hub(
        self, hub: Hub, adapters: Path, tmp_path: Path, model: str, pipeline: str
    ) -> None:
        for name in (model, pipeline):
            hub.publish(f"somebody/{name}", adapters / name)
        chosen = fetched(choose(settings(Path("somebody", model), tmp_path / "run", pipeline=f"somebody/{pipeline}")))
        assert (chosen.source.name, chosen.around.name) == (f"somebody/{model}", f"somebody/{pipeline}")
        here = plug_in(open_checkpoint(adapters / model), open_source(str(adapters / pipeline)), device="cpu")
        assert torch.equal(answer(load(chosen, device="cpu").unet), answer(here.unet))


class TestAdapter:
    def test_nothing_else_changes(self, trained: Result, adapters: Path) -> None:
        before, after = tensors(adapters / "adapter-grown"), tensors(trained.model)
        record = open_checkpoint(trained.model).record
        assert record is not None
        assert [step.operation for step in record.steps] == ["expand", "train"]
        assert record.steps[-1].options["pipeline"] == "sd"
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {name for name in record.new if not name.endswith(".pe")}
        assert trained.trained_parameters == sum(len(before[name]) // 4 for name in changed)
        assert sorted(path.name for path in trained.model.iterdir()) == [
            "README.md",
            "config.json",
            "diffusion_pytorch_model.safetensors",
            "growth.json",
        ]

    def test_diffusers_loads_it_and_its_growth(self, trained: Result, adapters: Path, tmp_path: Path) -> None:
        run = set_up(run_of(adapters, "adapter-grown", "sd", trained.model.parent, **PREVIEWS), lambda _: None)
        Loop(run=run, report=lambda _: None)  # at its end, from its checkpoint
        expected = answer(run.model)
        adapter: Any = MotionAdapter.from_pretrained(trained.model)
        pipeline: Any = AnimateDiffPipeline.from_pretrained(adapters / "sd", motion_adapter=adapter)
        assert torch.equal(answer(pipeline.unet), expected)
        base: Any = MotionAdapter.from_pretrained(adapters / "adapter")
        assert trained.growth is not None
        grown = load_growth(base, trained.growth)
        assert all(torch.equal(grown.state_dict()[name], tensor) for name, tensor in adapter.state_dict().items())
        plugged: Any = AnimateDiffPipeline.from_pretrained(adapters / "sd", motion_adapter=base)
        assert torch.equal(answer(load_growth(plugged, trained.growth).unet), expected)
        again = unpack(trained.growth / "growth.safetensors", adapters / "adapter", tmp_path / "again")
        assert tensors(again) == tensors(trained.model)
        untrained: Any = MotionAdapter.from_pretrained(adapters / "adapter-grown")
        plain: Any = AnimateDiffPipeline.from_pretrained(adapters / "sd", motion_adapter=untrained)
        assert not torch.equal(answer(plain.unet), expected)

    def test_previews_and_the_card(self, trained: Result) -> None:
        run = trained.model.parent
        assert {path.name for path in (run / "previews").iterdir()} >= {"step-00000003-0.mp4", "step-00000003.png"}
        card = (trained.model / "README.md").read_text()
        assert "| trained in | `sd` |" in card
        assert "`adapter`, a MotionAdapter, has grown and was trained on." in card
        assert "from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter\n" in card
        assert 'pipeline = AnimateDiffPipeline.from_pretrained("sd", motion_adapter=motion_adapter)' in card
        assert '\ngrow generate --model "this folder" --pipeline sd --prompt "..."\n' in card

    def test_for_sdxl(self, adapters: Path, tmp_path: Path) -> None:
        result = train(run_of(adapters, "adapterxl-grown", "sdxl", tmp_path / "run"))
        adapter: Any = MotionAdapter.from_pretrained(result.model)
        pipeline: Any = AnimateDiffSDXLPipeline.from_pretrained(adapters / "sdxl", motion_adapter=adapter)
        assert isinstance(pipeline.unet, UNetMotionModel)
        assert result.growth is not None
        card = (result.model / "README.md").read_text()
        assert "pipeline.unet.add_embedding.load_state_dict(unet.add_embedding.state_dict())" in card

    def test_longer_clips_train_the_blocks_with_longer_tables(self, adapters: Path, tmp_path: Path) -> None:
        options = ExtendOptions(to=12, method="interpolate")
        job = prepare(
            open_source(str(adapters / "adapter")),
            lambda checkpoint, anatomy: plan_extend_frames(checkpoint, anatomy, options),
        )
        longer = execute(job, tmp_path / "longer")
        chosen: dict[str, Any] = {**CLIPS, "pipeline": str(adapters / "sd"), "num_frames": 12}
        with pytest.raises(GrowError, match=r"growth.json names no parameter that is new .* --train grown-blocks"):
            train(settings(longer, tmp_path / "new", **chosen))
        result = train(settings(longer, tmp_path / "run", train="grown-blocks", **chosen))
        before, after = tensors(longer), tensors(result.model)
        assert {name for name in before if before[name] == after[name]} == {n for n in before if n.endswith(".pe")}
        adapter: Any = MotionAdapter.from_pretrained(result.model)
        assert adapter.config.motion_max_seq_length == 12

    def test_lora_is_on_motion_modules_alone(self, adapters: Path, tmp_path: Path) -> None:
        result = train(run_of(adapters, "adapter-grown", "sd", tmp_path / "run", train="lora", lora_rank=2))
        adapter: Any = MotionAdapter.from_pretrained(adapters / "adapter-grown")
        pipeline: Any = AnimateDiffPipeline.from_pretrained(adapters / "sd", motion_adapter=adapter)
        before = answer(pipeline.unet)
        pipeline.load_lora_weights(result.model)
        assert not torch.equal(answer(pipeline.unet), before)
        layers = [name for name, _ in pipeline.unet.named_modules() if name.endswith(".lora_A")]
        assert layers
        assert all(map(is_motion, layers))


@pytest.fixture(scope="module")
def whole(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, as `save_pretrained` writes AnimateDiff: a UNet that runs, and a copy of its adapter."""
    folder = tmp_path_factory.mktemp("whole")
    adapter: Any = MotionAdapter.from_pretrained(adapters / "adapter")
    pipeline: Any = AnimateDiffPipeline.from_pretrained(adapters / "sd", motion_adapter=adapter)
    pipeline.scheduler = plug_in(
        open_checkpoint(adapters / "adapter"), open_source(str(adapters / "sd")), device="cpu"
    ).scheduler
    pipeline.save_pretrained(folder / "base")
    shutil.copy(adapters / "sd" / GENERATION_NAME, folder / "base")
    return folder


class TestAnimateDiffPipeline:
    def test_both_are_trained_as_the_adapter_is_by_itself(
        self, whole: Path, adapters: Path, trained: Result, tmp_path: Path
    ) -> None:
        grown = grow(whole / "base", tmp_path / "grown", blocks=1)
        assert open_checkpoint(grown / "unet").record
        result = train(settings(grown, tmp_path / "run", **CLIPS, **PREVIEWS))
        unet, adapter = tensors(result.model / "unet"), tensors(result.model / "motion_adapter")
        assert adapter == {name: value for name, value in unet.items() if is_motion(name)}
        assert adapter == tensors(trained.model)
        assert {path.name for path in (tmp_path / "run" / "previews").glob("*.png")} == {"step-00000003.png"}
        assert result.growth is not None
        again = unpack(result.growth / "growth.safetensors", whole / "base", tmp_path / "again")
        assert {name: tensors(again / name) for name in ("unet", "motion_adapter")} == {
            "unet": unet,
            "motion_adapter": adapter,
        }

    def test_the_copy_stays_where_it_has_not_grown(self, whole: Path, tmp_path: Path) -> None:
        grown = grow(whole / "base", tmp_path / "grown", blocks=1, components=("unet",))
        result = train(settings(grown, tmp_path / "run", **CLIPS))
        assert tensors(result.model / "motion_adapter") == tensors(whole / "base" / "motion_adapter")
        assert tensors(result.model / "unet") != tensors(grown / "unet")

    def test_the_copy_alone_would_train_for_nothing(self, whole: Path, tmp_path: Path) -> None:
        grown = grow(whole / "base", tmp_path / "grown", blocks=1, components=("motion_adapter",))
        with pytest.raises(GrowError, match="motion_adapter is a copy of what the pipeline's unet holds"):
            choose(settings(grown, tmp_path / "run"))
