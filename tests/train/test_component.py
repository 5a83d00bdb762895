"""One component by itself trains inside a pipeline, and comes out as it went in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from attached import attach
from growths import grow
from hub_server import Hub
from tiny_adapter import save_adapter
from tiny_llms import byte_tokenizer, save_llm, tiny_llama
from tiny_runs import bytes_of, settings, tensors

from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.models import load_model
from modelgrow.surgery import GrowError, open_checkpoint
from modelgrow.train.component import choose
from modelgrow.train.loading import fetched, load
from modelgrow.train.run import train


class TestTransformer:
    def test_it_is_trained_as_in_its_pipeline(self, grown: Path, tmp_path: Path) -> None:
        inside = train(settings(grown, tmp_path / "inside", steps=3))
        shutil.copytree(grown / "transformer", tmp_path / "alone")
        base, previews = grown.parent / "base", {"preview_every": 3, "previews": ("a red circle",)}
        alone = train(settings(tmp_path / "alone", tmp_path / "run", steps=3, pipeline=str(base), **previews))
        assert tensors(alone.model) == bytes_of(inside.model) != bytes_of(grown)
        assert (tmp_path / "run" / "previews" / "step-00000003-0.mp4").is_file()
        model = load_model(open_checkpoint(alone.model), dtype=torch.float32)
        pipeline: Any = load_pipeline(base, components={"transformer": model})
        assert pipeline.transformer is model
        card = (alone.model / "README.md").read_text()
        assert 'transformer = WanTransformer3DModel.from_pretrained("this folder")' in card
        assert 'pipeline = WanPipeline.from_pretrained("base", transformer=transformer)' in card

    def test_the_pipelines_own_is_not_downloaded(self, hub: Hub, grown: Path, tmp_path: Path) -> None:
        base = grown.parent / "base"
        hub.publish("somebody/wan", base)
        chosen = fetched(choose(settings(grown / "transformer", tmp_path / "run", pipeline="somebody/wan")))
        assert (chosen.place, chosen.around.name) == ("transformer", "somebody/wan")
        assert load(chosen, device="cpu").transformer.config.num_layers == 3
        name, wanted = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("transformer", "vae"))
        assert (chosen.around.path / wanted).stat().st_size == (base / wanted).stat().st_size
        assert not (chosen.around.path / name).exists()
        assert all(request.range for request in hub.asked(name)), "its header is read, and no more"

    def test_with_a_slot_it_reads_its_language_model(self, grown: Path, tmp_path: Path) -> None:
        llm = save_llm(tmp_path / "llm", tiny_llama(), byte_tokenizer())
        base = grown.parent / "base"
        slot = attach(base / "transformer", tmp_path / "slot", llm, template="plain", max_length=80)
        result = train(settings(slot, tmp_path / "run", steps=3, pipeline=str(base)))
        record = open_checkpoint(result.model).record
        before, after = tensors(slot), tensors(result.model)
        assert record is not None
        assert {name for name in before if before[name] != after[name]} == set(record.new)
        card = (result.model / "README.md").read_text()
        assert "from modelgrow.pipelines import GrownWanPipeline, GrownWanTransformer3DModel\n" in card


class TestRefusals:
    @pytest.fixture
    def odd(self, adapters: Path, tmp_path: Path) -> Path:
        """What does not fit, one folder each."""
        for name, file, changes in (
            ("wide", "sd/unet/config.json", {"block_out_channels": [16, 32, 32]}),
            ("inpaint", "sd/unet/config.json", {"in_channels": 9}),
        ):
            shutil.copytree(adapters / "sd", tmp_path / name)
            config = json.loads((adapters / file).read_text())
            (tmp_path / name / "unet" / "config.json").write_text(json.dumps({**config, **changes}))
        grow(save_adapter(tmp_path / "pia-base", conv_in_channels=9), tmp_path / "pia", blocks=1)
        return tmp_path

    @pytest.mark.parametrize(
        ("model", "pipeline", "words"),
        [
            (
                "{adapters}/adapter-grown",
                None,
                "a MotionAdapter by itself, .* --pipeline, the Stable Diffusion pip",
            ),
            ("{wan}/grown/transformer", None, "one component of a pipeline. Name the pipeline: .*/grown"),
            ("{adapters}/adapter-grown", "{odd}/wide", r"block_out_channels is \[16, 32\], and the unet of wide has"),
            ("{adapters}/adapter-grown", "{odd}/inpaint", "inpaint: its unet reads 9 channels and answers with 4"),
            ("{odd}/pia", "{adapters}/sd", "conv_in_channels is 9: an adapter of PIA"),
            (
                "{adapters}/adapter-grown",
                "{wan}/base",
                "base has no unet; it has text_encoder .UMT5EncoderModel.",
            ),
            ("{adapters}/adapter-grown", "{wan}/base/vae", "no pipeline: there is no model_index.json in it"),
            ("{adapters}/adapter-grown", "{adapters}/nothing", "no such folder or file, and not a Hub id"),
            ("{adapters}/adapter", "{adapters}/sd", "adapter has not grown .no growth.json."),
            ("{wan}/grown", "{wan}/base", "grown: a whole pipeline; --pipeline is for a component by itself"),
            ("{wan}/grown/transformer", "{adapters}/sd", "sd: has no WanTransformer3DModel, which .*/transformer is"),
        ],
    )
    def test_says_what_to_give(
        self, adapters: Path, grown: Path, odd: Path, model: str, pipeline: str | None, words: str
    ) -> None:
        places = {"adapters": adapters, "wan": grown.parent, "odd": odd}
        chosen = settings(Path(model.format(**places)), odd / "run", pipeline=pipeline and pipeline.format(**places))
        with pytest.raises(GrowError, match=words):
            choose(chosen)

    def test_a_transformer_by_itself_is_told_of_its_base(self, grown: Path, tmp_path: Path) -> None:
        shutil.copytree(grown / "transformer", tmp_path / "alone")
        with pytest.raises(GrowError, match="Give --pipeline, the pipeline that it belongs to; it was grown from base"):
            choose(settings(tmp_path / "alone", tmp_path / "run"))

    def test_another_model_of_the_same_class(self, grown: Path, tmp_path: Path) -> None:
        shutil.copytree(grown.parent / "base", tmp_path / "other")
        file = tmp_path / "other" / "transformer" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "ffn_dim": 64}))
        chosen = settings(grown / "transformer", tmp_path / "run", pipeline=str(tmp_path / "other"))
        with pytest.raises(GrowError, match="ffn_dim is 32, and 64 in other's transformer, so it is of another model"):
            choose(chosen)

    def test_which_of_two_transformers(self, grown: Path, tmp_path: Path) -> None:
        shutil.copytree(grown.parent / "base", tmp_path / "two")
        shutil.copytree(tmp_path / "two" / "transformer", tmp_path / "two" / "transformer_2")
        file = tmp_path / "two" / "model_index.json"
        index = json.loads(file.read_text())
        file.write_text(json.dumps({**index, "transformer_2": index["transformer"]}))
        chosen: dict[str, Any] = {
            "model": grown / "transformer",
            "output": tmp_path / "run",
            "pipeline": str(tmp_path / "two"),
        }
        with pytest.raises(
            GrowError, match="two: transformer and transformer_2 are WanTransformer3DModel; say with --c"
        ):
            choose(settings(**chosen))
        assert choose(settings(**chosen, component="transformer_2")).place == "transformer_2"
        with pytest.raises(GrowError, match="two: has no WanTransformer3DModel called vae, which"):
            choose(settings(**chosen, component="vae"))
