"""`grow attach-llm`: what is written, what is refused, and what comes along."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from growths import grow, snapshot
from hub_server import Hub
from typer.testing import CliRunner

from modelgrow.cli import app
from modelgrow.surgery import (
    AnatomyError,
    Checkpoint,
    CheckpointError,
    Copy,
    Drawn,
    GrowError,
    Plan,
    PlanError,
    SourceError,
    Zeros,
    anatomies,
    attach_llm,
    execute,
    open_checkpoint,
    open_source,
)
from modelgrow.surgery.attach_job import prepare_attach_llm
from modelgrow.surgery.attach_llm import AttachOptions, plan_attach_llm
from modelgrow.surgery.language_model import LanguageModel, open_language_model
from modelgrow.surgery.readback import read_chunks
from modelgrow.surgery.shrink import prepare_shrink

Maker = Callable[..., Path]

LLM = LanguageModel(name="somebody/llm", dim=6, class_name="LlamaForCausalLM", depth=4, revision="a" * 40)


def plan(folder: Path, **options: Any) -> Plan:
    checkpoint = open_checkpoint(folder)
    found = plan_attach_llm(checkpoint, anatomies()[str(checkpoint.class_name)], AttachOptions(llm=LLM, **options))
    found.validate(checkpoint)
    return found


def attach(folder: Path, output: Path, **options: Any) -> Path:
    return execute(prepare_attach_llm(open_source(str(folder)), AttachOptions(llm=LLM, **options)), output)


def data_of(checkpoint: Checkpoint, name: str) -> bytes:
    return b"".join(read_chunks(checkpoint.tensors[name]))


def test_tensors_and_config(make_ltx: Maker) -> None:
    found = plan(make_ltx(depth=3, width=8), every=2, heads=2, width=4)
    new = {tensor.name: tensor for tensor in found.tensors if tensor.is_new}
    slot = {
        "norm.weight": (8,),
        "norm.bias": (8,),
        "to_q.weight": (4, 8),
        "to_k.weight": (4, 4),
        "to_v.weight": (4, 4),
        "to_out.weight": (8, 4),
        "to_out.bias": (8,),
    }
    projector = {
        "norm.weight": (6,),
        "norm.bias": (6,),
        "linear_1.weight": (4, 6),
        "linear_1.bias": (4,),
        "linear_2.weight": (4, 4),
        "linear_2.bias": (4,),
        "null": (6,),
    }
    assert {name: tensor.shape for name, tensor in new.items()} == {
        **{f"llm_projector.{name}": shape for name, shape in projector.items()},
        **{f"transformer_blocks.{i}.llm_attn.{name}": shape for i in (0, 2) for name, shape in slot.items()},
    }
    assert {tensor.dtype for tensor in new.values()} == {"BF16"}, "as most of the model"
    assert set(found.zeroed_names) == {
        f"transformer_blocks.{i}.llm_attn.to_out.{k}" for i in (0, 2) for k in ("weight", "bias")
    }
    assert all(isinstance(tensor.content, Copy) for tensor in found.tensors if not tensor.is_new)
    assert found.config_edits == {
        "_class_name": "GrownLTXVideoTransformer3DModel",
        "llm_slot": {
            "blocks": {"transformer_blocks": [0, 2]},
            "widths": {"transformer_blocks": 8},
            "outputs": {},
            "llm_dim": 6,
            "heads": 2,
            "head_dim": 2,
            "model": "somebody/llm",
            "revision": "a" * 40,
            "layer": "mean",
            "template": "modelgrow",
            "max_length": 256,
        },
    }


def test_first_values(make_ltx: Maker, tmp_path: Path) -> None:
    """Inputs of variance 1 give outputs of variance 1: uniform in +-sqrt(3 / fan in), and each tensor its own."""
    base = make_ltx(depth=2, width=64)
    slot = open_checkpoint(attach(base, tmp_path / "slot"))
    found = [data_of(slot, f"transformer_blocks.{i}.llm_attn.to_{x}.weight") for i in (0, 1) for x in "qkv"]
    assert len(set(found)) == 6
    values = [struct.unpack("<f", b"\0\0" + found[0][i : i + 2])[0] for i in range(0, len(found[0]), 2)]
    assert abs(sum(value * value for value in values) / len(values) - 1 / 64) < 1e-3
    assert max(map(abs, values)) <= (3 / 64) ** 0.5 * 1.01
    assert data_of(slot, "llm_projector.norm.weight") == bytes.fromhex("803f") * 6
    assert not any(data_of(slot, "transformer_blocks.1.llm_attn.to_out.weight"))
    assert snapshot(attach(base, tmp_path / "again")) == snapshot(tmp_path / "slot"), "the same seed, the same bytes"
    assert snapshot(attach(base, tmp_path / "other", seed=1)) != snapshot(tmp_path / "slot")


def test_slot_has_shards_of_its_own(make_ltx: Maker, tmp_path: Path) -> None:
    base = make_ltx(depth=3, shards=2)
    slot = attach(base, tmp_path / "slot")
    index = json.loads((slot / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    files = {file for name, file in index.items() if "llm_" in name}
    assert len(files) == 1
    assert not any(file in files for name, file in index.items() if "llm_" not in name)
    assert open_checkpoint(slot).tensors.keys() == index.keys()


def test_large_models_are_planned_without_their_values(make_ltx: Maker) -> None:
    """Nothing is drawn before it is written."""
    found = plan(make_ltx(), width=8192, heads=64)
    assert sum(tensor.nbytes for tensor in found.tensors if tensor.is_new) > 8e8
    assert sum(isinstance(tensor.content, Drawn) for tensor in found.tensors) == 3 * 3 + 3
    assert sum(isinstance(tensor.content, Zeros) for tensor in found.tensors) == 3 * 2


def test_growth_moves_the_slot(make_ltx: Maker, tmp_path: Path) -> None:
    slot = attach(make_ltx(depth=3), tmp_path / "slot", at=(0, 2))
    deeper = open_checkpoint(grow(slot, tmp_path / "deeper", mode="insert"))  # 0 0' 1 1' 2 2'
    assert deeper.config["llm_slot"]["blocks"] == {"transformer_blocks": [0, 1, 4, 5]}
    assert deeper.record is not None
    assert {f"transformer_blocks.{i}.llm_attn.to_out.weight" for i in (0, 1, 4, 5)} <= set(deeper.record.zeroed)
    assert [step.operation for step in deeper.record.steps] == ["attach-llm", "expand"]
    assert deeper.record.base.class_name == "LTXVideoTransformer3DModel"


def test_slot_that_nobody_wrote_is_refused(make_ltx: Maker, tmp_path: Path) -> None:
    slot = attach(make_ltx(), tmp_path / "slot")
    config = json.loads((slot / "config.json").read_text())
    config["llm_slot"]["outputs"] = [1]
    (slot / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"llm_slot\.outputs = "):
        grow(slot, tmp_path / "deeper")


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"at": (0, 3)}, PlanError, "has blocks 0 to 2, --at asks for 0,3"),
        ({"at": ()}, PlanError, "--at asks for none"),
        ({"every": 0}, PlanError, "--every 0: expected 1 or more"),
        ({"heads": 3}, PlanError, "--heads 3 does not divide --width 4"),
        ({"layer": "first"}, PlanError, "--layer 'first': choose last, mean, or -2"),
        ({"layer": "3"}, PlanError, "--layer '3'"),
        ({"layer": "-5"}, PlanError, "--layer -5: somebody/llm has 4 layers; choose last, mean, or -2 to -4"),
        ({"template": "none"}, PlanError, "--template 'none': choose from modelgrow, plain"),
        ({"max_length": 0}, PlanError, "--max-length 0"),
        ({"stack": "blocks"}, AnatomyError, "has no stack 'blocks'"),
    ],
)
def test_what_does_not_fit_is_refused(
    make_ltx: Maker, options: dict[str, Any], error: type[GrowError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        plan(make_ltx(), **options)


def test_templates_are_those_that_there_are() -> None:
    from modelgrow.pipelines.text.templates import TEMPLATES

    assert set(attach_llm.TEMPLATES) == set(TEMPLATES)


def test_heads_and_width_by_themselves(make_ltx: Maker) -> None:
    folder = make_ltx(width=320)
    slot = plan(folder).config_edits["llm_slot"]
    assert (slot["heads"], slot["head_dim"]) == (4, 80), "as few heads as have at most 128 values each"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 8}))
    slot = plan(folder).config_edits["llm_slot"]
    assert (slot["heads"], slot["head_dim"]) == (8, 40), "the model's own"
    slot = plan(folder, width=100).config_edits["llm_slot"]
    assert (slot["heads"], slot["head_dim"]) == (1, 100), "which does not divide 100"


def test_weights_in_eight_bits_have_a_slot_in_bfloat16(make_ltx: Maker, tmp_path: Path) -> None:
    from modelgrow.surgery.attach_llm import _dtype
    from modelgrow.surgery.tensor import Tensor

    def of(dtype: str) -> Checkpoint:
        tensor = Tensor(dtype=dtype, shape=(2,), file=Path("x"), offset=0, nbytes=2)
        return Checkpoint(path=tmp_path, tensors={"a": tensor}, config={})

    assert [_dtype(of(dtype)) for dtype in ("F8_E4M3", "F16", "F32")] == ["BF16", "F16", "F32"]


@pytest.fixture
def llm(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-llm"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"], "hidden_size": 6}')
    (folder / "generation_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "README.md").write_text("left behind")
    return folder


def test_included_language_model(make_pipeline: Callable[[], Path], llm: Path, tmp_path: Path) -> None:
    base = make_pipeline()
    options = AttachOptions(llm=open_language_model(str(llm)))
    output = execute(prepare_attach_llm(open_source(str(base)), options, include=True), tmp_path / "slot")
    index = json.loads((output / "model_index.json").read_text())
    assert index["llm"] == ["transformers", "Qwen3ForCausalLM"]
    assert index["llm_tokenizer"] == ["transformers", "Qwen2Tokenizer"]
    assert index["_class_name"] == "GrownLTXPipeline"
    config = json.loads((output / "transformer" / "config.json").read_text())
    assert config["llm_slot"]["model"] == "tiny-llm", "no path of this machine"
    assert index["transformer"] == ["modelgrow.pipelines", "GrownLTXVideoTransformer3DModel"]
    assert sorted(path.name for path in (output / "llm").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert sorted(path.name for path in (output / "llm_tokenizer").iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    back = execute(prepare_shrink(open_source(str(output))), tmp_path / "back")
    assert not (back / "llm").exists()
    assert json.loads((back / "model_index.json").read_text()) == json.loads((base / "model_index.json").read_text())
    assert (back / "vae").exists()


@pytest.mark.parametrize(
    ("missing", "reason"), [("model.safetensors", "no .safetensors"), ("tokenizer_config.json", "its tokenizer")]
)
def test_language_model_that_can_not_be_included(
    make_pipeline: Callable[[], Path], llm: Path, missing: str, reason: str
) -> None:
    (llm / missing).unlink()
    options = AttachOptions(llm=open_language_model(str(llm)))
    with pytest.raises(SourceError, match=reason):
        prepare_attach_llm(open_source(str(make_pipeline())), options, include=True)


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ({"hidden_size": 1024}, 1024),
        ({"d_model": 512}, 512),
        ({"n_embd": 768}, 768),
        ({"hidden_size": 1, "text_config": {"hidden_size": 2560}}, 2560),
        ({"thinker_config": {"text_config": {"hidden_size": 3584}}}, 3584),
    ],
)
def test_width_of_a_language_model(config: dict[str, Any], width: int, llm: Path) -> None:
    (llm / "config.json").write_text(json.dumps(config))
    found = open_language_model(str(llm))
    assert (found.dim, found.name, found.revision) == (width, str(llm), None)


def test_language_model_of_unknown_width(llm: Path) -> None:
    (llm / "config.json").write_text('{"architectures": ["X"]}')
    with pytest.raises(SourceError, match=r"does not say how wide.*--llm-dim"):
        open_language_model(str(llm))
    assert open_language_model(str(llm), dim=12).dim == 12
    (llm / "config.json").unlink()
    with pytest.raises(SourceError, match=r"no config\.json in it"):
        open_language_model(str(llm))
    with pytest.raises(SourceError, match="no such folder, and not a Hub id"):
        open_language_model(str(llm / "nowhere"))


def test_of_a_hub_id_weights_are_left_there(hub: Hub, llm: Path) -> None:
    commit = hub.publish("Qwen/Qwen3-0.6B", llm)
    found = open_language_model("Qwen/Qwen3-0.6B", revision="main")
    assert (found.name, found.revision, found.dim, found.folder) == ("Qwen/Qwen3-0.6B", commit, 6, None)
    assert {request.name for request in hub.requests if request.sent} >= {"config.json", "README.md"}
    assert not hub.asked("model.safetensors") + hub.asked("tokenizer.json")
    (llm / "config.json").unlink()
    hub.publish("Qwen/Qwen3-0.6B", llm)
    with pytest.raises(SourceError, match=r"0.6B: there is no config.json in it; it holds README.md, chat_t"):
        open_language_model("Qwen/Qwen3-0.6B")


def test_command(make_pipeline: Callable[[], Path], llm: Path, tmp_path: Path) -> None:
    base, output, run = make_pipeline(), tmp_path / "slot", CliRunner()
    arguments = ["attach-llm", str(base), "--llm", str(llm), "-o", str(output)]
    dry = run.invoke(app, [*arguments, "--at", "0,2", "--dry-run", "--json"])
    assert dry.exit_code == 0, dry.output
    assert not output.exists()
    plans = json.loads(dry.output)["plans"]
    assert plans["transformer"]["config_edits"]["llm_slot"]["blocks"] == {"transformer_blocks": [0, 2]}
    assert {"content": "drawn", "new": True}.items() <= next(
        tensor for tensor in plans["transformer"]["tensors"] if tensor["name"].endswith("0.llm_attn.to_q.weight")
    ).items()
    wrong = run.invoke(app, [*arguments, "--at", "0,x"])
    assert wrong.exit_code == 2
    done = run.invoke(app, [*arguments, "--at", "1-2"])
    assert done.exit_code == 0, done.output
    assert open_checkpoint(output / "transformer").config["llm_slot"]["blocks"] == {"transformer_blocks": [1, 2]}
    shown = run.invoke(app, ["inspect", str(output)])
    assert "llm slot" in shown.output
    assert "behind 2 blocks" in shown.output


def test_single_model_takes_no_language_model_along(make_ltx: Maker, llm: Path) -> None:
    options = AttachOptions(llm=open_language_model(str(llm)))
    with pytest.raises(PlanError, match="no pipeline, so there is no place for the language model"):
        prepare_attach_llm(open_source(str(make_ltx())), options, include=True)


@pytest.mark.parametrize("seed", range(12))
def test_operations_compose_in_any_order_and_come_back(make_ltx: Maker, tmp_path: Path, seed: int) -> None:
    """Every state on the way comes back byte for byte, but for how its tensors are spread over files."""
    rng = random.Random(seed)
    folder = make_ltx(shards=rng.choice((1, 2)), width=8)
    states = [folder]
    for number in range(4):
        config = json.loads((folder / "config.json").read_text())
        output = tmp_path / f"{number}"
        if "llm_slot" not in config and (number == 3 or rng.random() < 0.4):
            folder = attach(folder, output, every=rng.choice((1, 2)), width=4)
        else:
            folder = grow(folder, output, mode=rng.choice(("insert", "prefix", "suffix")), blocks=config["num_layers"])
        states.append(folder)
    slot = open_checkpoint(folder).config["llm_slot"]
    names = open_checkpoint(folder).tensors
    for i in range(open_checkpoint(folder).config["num_layers"]):
        assert (i in slot["blocks"]["transformer_blocks"]) == (f"transformer_blocks.{i}.llm_attn.to_q.weight" in names)
    for number, state in enumerate(reversed(states[:-1])):
        folder = execute(prepare_shrink(open_source(str(folder))), tmp_path / f"back-{number}")
        found, expected = open_checkpoint(folder), open_checkpoint(state)
        assert {name: data_of(found, name) for name in found.tensors} == {
            name: data_of(expected, name) for name in expected.tensors
        }
        assert found.config == expected.config
