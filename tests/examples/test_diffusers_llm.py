"""The example runs as it stands, on a pipeline with a slot and a small language model beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence
from slots import with_slot
from tiny_llms import byte_tokenizer, save_llm, tiny_llama
from tiny_pipelines import load_aligned, save_tiny_wan

from modelgrow.examples.diffusers_llm import main
from modelgrow.pipelines.text.states import LLMStates

SIZES = ("--frames", "5", "--height", "32", "--width", "32", "--steps", "2")


def frames(path: Path) -> np.ndarray:
    with Image.open(path) as gif:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)])


def test_the_example_runs(tmp_path: Path) -> None:
    llm = save_llm(tmp_path / "llm", tiny_llama(), byte_tokenizer())
    stock = load_aligned(save_tiny_wan(tmp_path / "base"))
    with_slot(stock, model=str(llm)).save_pretrained(tmp_path / "slot")
    clip = tmp_path / "clip.gif"
    main([str(tmp_path / "slot"), "a red circle", *SIZES, "-o", str(clip)])
    assert frames(clip).shape == (5, 32, 32, 3)
    states = LLMStates.load(clip.with_suffix(".safetensors"))
    assert states.states.shape == (1, len("a red circle"), 24)
    again = load_aligned(tmp_path / "slot").encode_llm("a red circle")
    assert torch.allclose(states.states, again.states, atol=1e-5)


def test_states_stand_for_the_prompt(tmp_path: Path) -> None:
    """What the example says: with the states or without them, the clip is the same."""
    pipeline = with_slot(load_aligned(save_tiny_wan(tmp_path / "base")), tiny_llama(), byte_tokenizer())
    call = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "output_type": "pt"}

    def clip(**states: LLMStates) -> torch.Tensor:
        made: torch.Tensor = pipeline(
            "a red circle", generator=torch.Generator().manual_seed(0), **call, **states
        ).frames
        return made

    assert torch.equal(clip(llm_states=pipeline.encode_llm("a red circle")), clip())
    assert not torch.equal(clip(llm_states=pipeline.encode_llm("a blue square")), clip())
