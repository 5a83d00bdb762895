"""What a language model's states of a prompt are: the prompt's own tokens, of the layer asked for, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from hub_server import Hub
from tiny_llms import WIDTH, byte_tokenizer, save_llm, tiny_llama, tiny_t5

from modelgrow.pipelines.text.llm import load_llm
from modelgrow.pipelines.text.reader import PromptReader
from modelgrow.pipelines.text.states import LLMStates
from modelgrow.pipelines.text.templates import SYSTEM, TEMPLATES
from modelgrow.surgery import GenerateError, attach_llm

PROMPT = "a crimson disc drifts west"
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] | trim }}</{{ message['role'] }}>"
    "{% endfor %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llama()


def chatting(template: str = CHAT) -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("prompt", [PROMPT, "Größe: ½ 猫, <b>", "x"])
def test_only_the_prompts_tokens_are_kept(llama: Any, template: str, prompt: str) -> None:
    tokenizer = chatting()
    reader = PromptReader(llama, tokenizer, template=template, max_length=4096)
    ids, kept = reader.tokens(f"  {prompt}\n")
    assert tokenizer.decode(ids[kept]) == prompt
    assert len(ids[kept]) == len(prompt.encode())
    states = reader.read([prompt])
    assert states.states.shape == (1, len(prompt.encode()), WIDTH)
    assert states.mask.all()


def test_a_slot_can_be_told_to_use_each_template() -> None:
    assert set(attach_llm.TEMPLATES) == set(TEMPLATES)


def test_what_stands_around_a_prompt(llama: Any) -> None:
    def around(tokenizer: Any, template: str) -> tuple[str, str]:
        ids, kept = PromptReader(llama, tokenizer, template=template).tokens(PROMPT)
        return tokenizer.decode(ids[: kept.start]), tokenizer.decode(ids[kept.stop :])

    assert around(byte_tokenizer(), "plain") == ("<s>", "")
    assert around(byte_tokenizer(), "modelgrow") == (f"<s>{SYSTEM} </s> </s> ", " </s>")
    assert around(chatting(), "chat") == (f"<system>{SYSTEM}</system><user>", "</user>")
    assert around(chatting(NO_SYSTEM), "chat") == (f"<user>{SYSTEM}\n\n", "</user>")
    before, after = around(byte_tokenizer(), "hunyuan-video")
    assert before.startswith("<s><|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing")
    assert after == "<|eot_id|>"


def test_the_model_reads_the_template_too(llama: Any) -> None:
    plain, modelgrow = (
        PromptReader(llama, byte_tokenizer(), template=name).read([PROMPT]).states for name in ("plain", "modelgrow")
    )
    assert plain.shape == modelgrow.shape
    assert not torch.allclose(plain, modelgrow, atol=1e-2)


def test_layers(llama: Any) -> None:
    ids = torch.tensor([[1, *byte_tokenizer()(PROMPT, add_special_tokens=False).input_ids]])
    with torch.no_grad():
        hidden = llama(ids, output_hidden_states=True).hidden_states
    assert len(hidden) == 5
    normal = []
    for layer in hidden[1:]:
        centred = layer - layer.mean(-1, keepdim=True)
        normal.append(centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    expected = {"last": hidden[4], "-1": hidden[4], "-3": hidden[2], "-4": hidden[1], "mean": sum(normal) / 4}
    for layer, states in expected.items():
        read = PromptReader(llama, byte_tokenizer(), layer=layer, template="plain").read([PROMPT]).states
        assert torch.allclose(read, states[:, 1:], atol=1e-6), layer
    assert not torch.allclose(hidden[4], hidden[2], atol=0.1)


def test_a_batch_is_its_prompts(llama: Any) -> None:
    prompts = [PROMPT, "", "a red circle", PROMPT, "a long prompt " * 9]
    left, right = (PromptReader(llama, byte_tokenizer(padding_side=side)) for side in ("left", "right"))
    together = right.read(prompts)
    assert torch.equal(left.read(prompts).states, together.states)
    assert together.mask.sum(dim=1).tolist() == [26, 0, 12, 26, 125]
    for prompt, states, mask in zip(prompts, together.states, together.mask, strict=True):
        alone = right.read([prompt])
        length = int(mask.sum())
        assert not mask[length:].any()
        assert not states[length:].any()
        assert torch.equal(states[:length], alone.states[0, :length])
    assert torch.equal(together.states[0], together.states[3])


def test_a_long_prompt_is_cut_and_says_so(llama: Any, caplog: pytest.LogCaptureFixture) -> None:
    reader = PromptReader(llama, byte_tokenizer(), max_length=9)
    with caplog.at_level(logging.WARNING):
        states = reader.read([PROMPT]).states
    assert "reads 9 tokens of a prompt; cut off: ' disc drifts west'" in caplog.text
    assert torch.equal(states, PromptReader(llama, byte_tokenizer()).read([PROMPT[:9]]).states)
    short = tiny_llama()
    short.config.max_position_embeddings = 21
    assert PromptReader(short, byte_tokenizer(), template="plain").read([PROMPT]).states.shape[1] == 20


def test_t5_reads_with_its_encoder(tmp_path: Path) -> None:
    whole = tiny_t5()
    llm, tokenizer = load_llm(str(save_llm(tmp_path, whole, byte_tokenizer())))
    assert type(llm).__name__ == "T5EncoderModel"
    ids = torch.tensor([[1, *byte_tokenizer()(PROMPT, add_special_tokens=False).input_ids]])
    with torch.no_grad():
        expected = whole.encoder(ids).last_hidden_state[:, 1:]
    read = PromptReader(llm, tokenizer, layer="last").read([PROMPT]).states
    assert torch.allclose(read, expected, atol=1e-5)
    assert torch.equal(PromptReader(whole, tokenizer, layer="last").read([PROMPT]).states, read)


def other_models() -> dict[str, Any]:
    from transformers import (
        BertConfig,
        BertModel,
        CLIPVisionConfig,
        Gemma2Config,
        Gemma2ForCausalLM,
        LlavaConfig,
        LlavaForConditionalGeneration,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 260, **sizes}
    eyes = CLIPVisionConfig(image_size=8, patch_size=4, projection_dim=8, **sizes)
    return {
        "gemma2": Gemma2ForCausalLM(Gemma2Config(num_key_value_heads=1, head_dim=8, sliding_window=4, **text)),
        "qwen2": Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=1, **text)),
        "bert": BertModel(BertConfig(**text)),
        "llava": LlavaForConditionalGeneration(
            LlavaConfig(vision_config=eyes, text_config=tiny_llama().config, image_token_id=3)
        ),
    }


def test_other_models_read(tmp_path: Path) -> None:
    for name, model in other_models().items():
        llm, tokenizer = load_llm(str(save_llm(tmp_path / name, model.eval(), byte_tokenizer())))
        assert type(llm) is type(model), name
        reader = PromptReader(llm, tokenizer)
        states = reader.read([PROMPT, "a red circle"])
        assert states.states.shape == (2, len(PROMPT), WIDTH), name
        assert states.states.isfinite().all(), name
        assert states.states.std() > 0.1, name
        assert torch.equal(states.states[1, :12], reader.read(["a red circle"]).states[0]), name


def test_what_can_not_be_read_with(llama: Any, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"layer": "-5"}, "layer '-5' is none of the language model's; choose last, mean, or -1 to -4"),
        ({"layer": "first"}, "choose last, mean"),
        ({"template": "t"}, "unknown template 't'; choose from plain, modelgrow, hunyuan-video, chat"),
        ({"template": "chat"}, "has no chat template"),
    ]
    for options, message in wrong:
        with pytest.raises(GenerateError, match=message):
            PromptReader(llama, tokenizer, **options)
    tokenizer.chat_template = "hello"
    with pytest.raises(GenerateError, match="does not repeat what the user says"):
        PromptReader(llama, tokenizer, template="chat")
    from transformers import ByT5Tokenizer

    with pytest.raises(GenerateError, match="load the fast tokenizer"):
        PromptReader(llama, ByT5Tokenizer())
    with pytest.raises(GenerateError, match="can't be loaded"):
        load_llm(str(tmp_path / "nowhere"))


def test_a_model_that_the_hub_does_not_give(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text("{}")
    hub.publish("a/gated", tmp_path / "llm")
    hub.gated.add("a/gated")
    with pytest.raises(GenerateError, match=r"^a/gated: the language model .*: it is gated\. Accept its terms on"):
        load_llm("a/gated")
    with pytest.raises(GenerateError, match=r"^a/missing: the language model .*: there is no such model, or it is pri"):
        load_llm("a/missing")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(GenerateError, match=r"^a/missing: .*: the cache lacks it, .* --llm"):
        load_llm("a/missing")


def test_states_in_a_file(llama: Any, tmp_path: Path) -> None:
    states = PromptReader(llama, byte_tokenizer(), layer="-2").read([PROMPT, "x"])
    read = LLMStates.load(states.save(tmp_path / "states.safetensors"))
    assert torch.equal(read.states, states.states)
    assert torch.equal(read.mask, states.mask)
    assert read.about["layer"] == "-2"
    (tmp_path / "other").write_text("{}")
    with pytest.raises(GenerateError, match="no states of a language model"):
        LLMStates.load(tmp_path / "other")
