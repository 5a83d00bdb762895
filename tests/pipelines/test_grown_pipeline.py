"""A grown pipeline reads every prompt with both encoders, whatever way its stock class guides."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from models import build
from slots import OPTIONS, cosmos_pipeline, recorded, with_slot
from tiny_families import FAMILIES, TINY, build_pipeline
from tiny_llms import WIDTH, byte_tokenizer, save_llm, tiny_llama
from tiny_pipelines import load_aligned

import modelgrow.pipelines
from modelgrow.pipelines.grown import reading
from modelgrow.pipelines.grown.pipeline import grown_pipeline
from modelgrow.pipelines.text.reader import PromptReader
from modelgrow.pipelines.text.states import LLMStates
from modelgrow.surgery import GenerateError

RED, BLUE = "a red circle moves right", "a blue square"
WAYS = ("wan", "cogvideox", "ltx", "latte", "cosmos")


@pytest.fixture(scope="module")
def llm() -> tuple[Any, Any]:
    return tiny_llama(), byte_tokenizer()


@pytest.fixture(scope="module")
def stock(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Stock pipelines that guide in different ways. Tests leave them alone."""
    folder = tmp_path_factory.mktemp("families")
    families = {name: build_pipeline(FAMILIES[name], folder / name) for name in ("cogvideox", "ltx", "latte")}
    return {
        "wan": load_aligned(tiny_pipeline),
        **{name: load_aligned(place) for name, place in families.items()},
        "cosmos": cosmos_pipeline(),
    }


def latents(pipeline: Any, name: str, prompt: Any = RED, **options: Any) -> torch.Tensor:
    """What comes out of two steps of denoising, always from the same noise."""
    call = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "latent", **OPTIONS[name], **options}
    frames: torch.Tensor = pipeline(prompt, generator=torch.Generator().manual_seed(0), **call).frames
    return frames


def read(llm: tuple[Any, Any], *prompts: str) -> LLMStates:
    return PromptReader(*llm, template="plain", max_length=64).read(prompts)


def is_of(call: Any, states: LLMStates, *places: int) -> bool:
    """Whether the samples of a call read those prompts, -1 being none."""
    given, mask = call
    if len(given) != len(places):
        return False
    rows = []
    for row, row_mask, place in zip(given, mask, places, strict=True):
        wanted = states.states[place][states.mask[place]] if place >= 0 else states.states[0, :0]
        rows.append(torch.equal(row[row_mask], wanted))
    return all(rows)


@pytest.mark.parametrize("name", WAYS)
def test_a_fresh_slot_changes_nothing_and_a_live_one_does(stock: Any, llm: Any, name: str) -> None:
    base = latents(stock[name], name)
    assert torch.equal(latents(with_slot(stock[name], *llm, live=False), name), base)
    live = with_slot(stock[name], *llm)
    once = latents(live, name)
    assert not torch.allclose(once, base, atol=1e-3)
    assert torch.equal(latents(live, name), once)
    assert not torch.allclose(latents(with_slot(stock[name], *llm, layer="-3"), name), once, atol=1e-3)


@pytest.mark.parametrize("name", WAYS)
def test_both_branches_read_what_is_theirs(stock: Any, llm: Any, name: str) -> None:
    pipeline, states = with_slot(stock[name], *llm), read(llm, RED, BLUE)
    batched = name in ("cogvideox", "ltx", "latte")
    for negative, place in ((None, -1), (BLUE, 1), ("", -1)):
        with recorded() as calls:
            latents(pipeline, name, negative_prompt=negative)
        step = [(place, 0)] if batched else [(0,), (place,)]
        assert len(calls) == 2 * len(step)
        assert all(is_of(call, states, *places) for call, places in zip(calls, step * 2, strict=True)), negative
    with recorded() as calls:
        latents(pipeline, name, guidance_scale=1.0)
    assert [is_of(call, states, 0) for call in calls] == [True, True]


@pytest.mark.parametrize("name", ["wan", "cogvideox", "latte", "cosmos"])
def test_lists_and_several_clips_of_each(stock: Any, llm: Any, name: str) -> None:
    pipeline, states = with_slot(stock[name], *llm), read(llm, RED, BLUE)
    several = "num_images_per_prompt" if name == "latte" else "num_videos_per_prompt"
    with recorded() as calls:
        both = latents(pipeline, name, [RED, BLUE], negative_prompt=["", RED], **{several: 2})
    # CogVideoX makes one clip per prompt, whatever it is asked for.
    positive, negative = ((0, 1), (-1, 0)) if name == "cogvideox" else ((0, 0, 1, 1), (-1, -1, 0, 0))
    assert len(both) == len(positive)
    batched = name in ("cogvideox", "latte")
    step = [(*negative, *positive)] if batched else [positive, negative]
    assert all(is_of(call, states, *places) for call, places in zip(calls, step * 2, strict=True))


def test_two_plain_calls_are_told_apart_by_their_text(llm: Any) -> None:
    """Kandinsky 5 casts its text anew for every call, so that it is never the same tensor twice."""
    row = TINY["kandinsky5"]
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    transformer = build(row.class_name, row.tiny)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    stock = diffusers.Kandinsky5T2VPipeline(transformer=transformer, scheduler=scheduler, **parts)
    pipeline = with_slot(stock, *llm)
    lengths = torch.tensor([0, 6])
    call = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}
    for kind, seed in (("", 1), ("negative_", 2)):
        generator = torch.Generator().manual_seed(seed)
        call[f"{kind}prompt_embeds_qwen"] = torch.randn(1, 6, 16, generator=generator)
        call[f"{kind}prompt_embeds_clip"] = torch.randn(1, 8, generator=generator)
        call[f"{kind}prompt_cu_seqlens"] = lengths
    states = pipeline.encode_llm([RED, BLUE])
    wanted, unwanted = pipeline.encode_llm(RED), pipeline.encode_llm(BLUE)
    with recorded() as calls:
        pipeline(prompt=None, llm_states=wanted, negative_llm_states=unwanted, **call)
    assert [is_of(made, states, place) for made, place in zip(calls, (0, 1, 0, 1), strict=True)] == [True] * 4


def test_a_batch_is_its_clips(stock: Any, llm: Any) -> None:
    pipeline = with_slot(stock["wan"], *llm)
    call = {"num_inference_steps": 2, "output_type": "latent", **OPTIONS["wan"]}

    def clips(prompts: list[str], *seeds: int) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        frames: torch.Tensor = pipeline(prompts, generator=generators, **call).frames
        return frames

    together = clips([RED, BLUE], 3, 4)
    alone = torch.cat([clips([RED], 3), clips([BLUE], 4)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert not torch.allclose(together, torch.cat([clips([BLUE], 3), clips([RED], 4)]), atol=1e-2)


def test_states_that_were_made_before(stock: Any, llm: Any, tmp_path: Path, caplog: Any) -> None:
    pipeline = with_slot(stock["wan"], *llm)
    whole = latents(pipeline, "wan", negative_prompt=BLUE)
    saved = LLMStates.load(pipeline.encode_llm(RED).save(tmp_path / "red.safetensors"))
    against = pipeline.encode_llm(BLUE)
    with torch.no_grad():
        wanted, unwanted = pipeline.encode_prompt(RED, BLUE, max_sequence_length=512)
    pipeline.register_modules(llm=None, llm_tokenizer=None)
    embedded = {"prompt_embeds": wanted, "negative_prompt_embeds": unwanted}
    again = latents(pipeline, "wan", None, **embedded, llm_states=saved, negative_llm_states=against)
    assert torch.equal(again, whole)
    assert not torch.equal(latents(pipeline, "wan", None, **embedded, llm_states=saved), whole)
    assert not caplog.records
    base = latents(stock["wan"], "wan", negative_prompt=BLUE)
    for _ in range(2):
        assert torch.equal(latents(pipeline, "wan", None, **embedded), base)
    said = [record.message for record in caplog.records if "pass what encode_llm" in record.message]
    assert len(said) == 1
    assert "WITHOUT what the slot learned" in said[0]


def test_states_of_something_else(stock: Any, llm: Any) -> None:
    pipeline = with_slot(stock["wan"], *llm)
    narrow = LLMStates(states=torch.zeros(1, 3, WIDTH - 1), mask=torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(GenerateError, match=f"{WIDTH - 1} wide, and the slot was made for {WIDTH}"):
        latents(pipeline, "wan", llm_states=narrow)
    last = PromptReader(*llm, layer="last").read([RED])
    with pytest.raises(GenerateError, match="were read with layer 'last', and the slot with 'mean'"):
        latents(pipeline, "wan", llm_states=last)
    with pytest.raises(GenerateError, match="2 negative prompts for 3 prompts"):
        latents(pipeline, "wan", [RED] * 3, negative_llm_states=read(llm, RED, BLUE))
    with pytest.raises(GenerateError, match="called with 1 samples, and the language model read 2"):
        latents(pipeline, "wan", RED, guidance_scale=1.0, llm_states=read(llm, RED, BLUE))


def test_nothing_is_left_behind(stock: Any, llm: Any, caplog: Any) -> None:
    pipeline = with_slot(stock["wan"], *llm)

    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latents(pipeline, "wan", callback_on_step_end=fail)
    model = pipeline.transformer
    assert not model._forward_pre_hooks
    assert "cache_context" not in vars(model)
    states = torch.zeros(1, 4, 16)
    given = {"hidden_states": torch.zeros(1, 4, 3, 4, 4), "timestep": torch.ones(1), "encoder_hidden_states": states}
    stock_says = stock["wan"].transformer(**given).sample
    assert torch.equal(model(**given).sample, stock_says)
    assert "runs WITHOUT its states" in caplog.text
    assert torch.equal(latents(pipeline, "wan"), latents(with_slot(stock["wan"], *llm), "wan"))


def test_without_a_language_model_it_says_so_once(stock: Any, caplog: Any) -> None:
    pipeline = with_slot(stock["wan"])
    with caplog.at_level(logging.WARNING):
        first = latents(pipeline, "wan")
        assert torch.equal(latents(pipeline, "wan"), first)
    assert torch.equal(first, latents(stock["wan"], "wan"))
    assert caplog.text.count("has a slot for a language model and no language model") == 1
    with pytest.raises(GenerateError, match="its slot names none"):
        pipeline.encode_llm(RED)
    with pytest.raises(GenerateError, match="has an llm and no llm_tokenizer"):
        with_slot(stock["wan"], tiny_llama()).encode_llm(RED)
    with pytest.raises(GenerateError, match="has a slot"):
        modelgrow.pipelines.GrownWanPipeline(**stock["wan"].components).encode_llm(RED)


def test_a_folder_with_its_language_model(stock: Any, llm: Any, tmp_path: Path) -> None:
    pipeline = with_slot(stock["wan"], *llm)
    pipeline.save_pretrained(tmp_path / "slot")
    again = load_aligned(tmp_path / "slot")
    assert type(again).__name__ == "GrownWanPipeline"
    assert type(again.llm).__name__ == "LlamaForCausalLM"
    assert torch.equal(latents(again, "wan"), latents(pipeline, "wan"))
    again.save_pretrained(tmp_path / "once-more")
    assert torch.equal(latents(load_aligned(tmp_path / "once-more"), "wan"), latents(pipeline, "wan"))


def test_a_language_model_that_is_fetched(
    stock: Any, llm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(save_llm(tmp_path / "llm", *llm))
    pipeline = with_slot(stock["wan"], model=place)
    pipeline.save_pretrained(tmp_path / "slot")
    fetched: list[tuple[str, dict[str, Any]]] = []

    def fetch(name: str, **how: Any) -> Any:
        fetched.append((name, how))
        return llm

    monkeypatch.setattr(reading, "load_llm", fetch)
    again = load_aligned(tmp_path / "slot")
    assert not fetched
    expected = latents(with_slot(stock["wan"], *llm), "wan")
    assert torch.equal(latents(again, "wan"), expected)
    assert torch.equal(latents(again, "wan", negative_prompt=""), expected)
    assert fetched == [(place, {"revision": None, "dtype": torch.float32})]
    again.llm_offload = "free"
    latents(again, "wan")
    assert len(fetched) == 1
    latents(again, "wan")
    assert len(fetched) == 2
    again.save_pretrained(tmp_path / "still-without")
    assert not (tmp_path / "still-without" / "llm").exists()
    with pytest.raises(GenerateError, match="llm_offload is 'disk'; choose from"):
        again.llm_offload = "disk"


def test_a_fetched_model_that_is_not_there(stock: Any, tmp_path: Path) -> None:
    pipeline = with_slot(stock["wan"], model=str(tmp_path / "gone"))
    with pytest.raises(GenerateError, match=r"gone: the language model of this pipeline's slot can't be loaded"):
        latents(pipeline, "wan")


@pytest.mark.parametrize("way", ["model", "group"])
@pytest.mark.parametrize("fetched", [False, True])
def test_offloading(stock: Any, llm: Any, tmp_path: Path, way: str, fetched: bool) -> None:
    """From this machine's memory to itself: hooks and moves are those of a GPU."""
    expected = latents(with_slot(stock["wan"], *llm), "wan")
    if fetched:
        with_slot(stock["wan"], model=str(save_llm(tmp_path / "llm", *llm))).save_pretrained(tmp_path / "slot")
    else:
        with_slot(stock["wan"], *llm).save_pretrained(tmp_path / "slot")
    pipeline = load_aligned(tmp_path / "slot")
    cpu = torch.device("cpu")
    if way == "model":
        pipeline.enable_model_cpu_offload(device=cpu)
    else:
        pipeline.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    for _ in range(2):
        assert torch.allclose(latents(pipeline, "wan"), expected, atol=1e-5)


def test_a_cached_model_reads_too(stock: Any, llm: Any) -> None:
    """The names that caches go by are handed on."""
    expected = latents(with_slot(stock["wan"], *llm), "wan")
    pipeline = with_slot(stock["wan"], *llm)
    pipeline.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.0))
    assert torch.allclose(latents(pipeline, "wan"), expected, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_model_reads_too(stock: Any, llm: Any) -> None:
    expected = latents(with_slot(stock["wan"], *llm), "wan")
    pipeline = with_slot(stock["wan"], *llm)
    pipeline.transformer = torch.compile(pipeline.transformer, backend="eager")
    assert torch.allclose(latents(pipeline, "wan"), expected, atol=1e-5)
    assert not pipeline.transformer._forward_pre_hooks


VIDEO = [
    name
    for name in dir(diffusers)
    if name.endswith("Pipeline")
    and "Modular" not in name
    and any(kind in name for kind in ("Video", "Wan", "Cog", "LTX", "Mochi", "Latte"))
]


OTHERS = ("AllegroPipeline", "FluxPipeline", "StableDiffusion3Pipeline", "Kandinsky5T2VPipeline", "OpenSoraPipeline")


@pytest.mark.parametrize("name", [*VIDEO, *OTHERS])
def test_every_pipeline_has_a_grown_class(name: str) -> None:
    cls = getattr(diffusers, name)
    grown = grown_pipeline(cls)
    assert grown is getattr(modelgrow.pipelines, f"Grown{name}")
    assert grown.__module__ == "modelgrow.pipelines"
    modules, options = grown._get_signature_keys(grown)
    stock_modules, stock_options = cls._get_signature_keys(cls)
    assert set(modules) == {*stock_modules, "llm", "llm_tokenizer"}
    assert options == stock_options
    assert set(grown._get_signature_types()) == set(modules) | set(options)
    stock_call = inspect.signature(cls.__call__).parameters
    assert set(inspect.signature(grown.__call__).parameters) == {*stock_call, "llm_states", "negative_llm_states"}


def test_what_is_no_stock_pipeline() -> None:
    others: list[Any] = [torch.nn.Linear, grown_pipeline(diffusers.WanPipeline)]
    for cls in others:
        with pytest.raises(GenerateError, match="is no stock pipeline of diffusers"):
            grown_pipeline(cls)


def test_from_pipe_takes_the_grown_model_along(stock: dict[str, Any], llm: tuple[Any, Any]) -> None:
    """diffusers takes over models of the very class that the new pipeline names, and would leave this one behind."""
    pipeline = with_slot(stock["wan"], *llm)
    other = grown_pipeline(diffusers.WanVideoToVideoPipeline).from_pipe(pipeline)
    assert other.transformer is pipeline.transformer
    assert other.slot_models == {"transformer": pipeline.transformer}
    assert other.llm is pipeline.llm
    plain = grown_pipeline(diffusers.WanPipeline).from_pipe(stock["wan"])
    assert plain.transformer is stock["wan"].transformer
