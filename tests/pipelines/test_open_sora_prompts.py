"""Prompts, mask strategies and sizes by name, as the reference has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelgrow.pipelines.open_sora.masks import apply_mask_strategy, find_nearest_point, parse_mask_strategy
from modelgrow.pipelines.open_sora.prompts import (
    append_score_to_prompts,
    extract_json_from_prompts,
    extract_prompts_loop,
    prepare_prompt,
    split_prompt,
    text_preprocessing,
)
from modelgrow.pipelines.open_sora.sizes import (
    ASPECT_RATIOS,
    NUM_FRAMES,
    RESOLUTIONS,
    dframe_to_frame,
    get_image_size,
    get_num_frames,
)
from modelgrow.surgery import GenerateError

GOLDENS = Path(__file__).parents[1] / "goldens" / "opensora_text"


def golden(name: str) -> Any:
    return json.loads((GOLDENS / name).read_text(encoding="utf-8"))


def test_scores_and_cleaning() -> None:
    for row in golden("captions.json"):
        (scored,) = append_score_to_prompts([row["prompt"]], row["aes"], row["flow"], row["camera_motion"])
        assert scored == row["with_scores"]
        assert text_preprocessing(scored) == row["cleaned"]
        options = {name: row[name] for name in ("aes", "flow", "camera_motion")}
        assert prepare_prompt(row["prompt"], **options) == row["cleaned"]


def test_what_a_prompt_says_itself_is_not_said_again() -> None:
    prompt = "a lake, aesthetic score: 5.0, camera motion: tilt"
    assert append_score_to_prompts([prompt], 6.5, 2.0, "pan left") == [prompt + " motion score: 2.0."]


def test_what_brackets_hid_at_an_end_goes_too() -> None:
    """As the reference has it, which strips in the middle of its rules; diffusers does not."""
    assert text_preprocessing("[**] 'a cat', (*)") == "a cat"
    assert text_preprocessing("(*) ,;-a lake") == "-a lake"


def test_a_prompt_like_a_file_name_is_no_warning() -> None:
    assert text_preprocessing("./clips/cat.mov") == ". clips cat. mov"
    assert text_preprocessing("A CAT (4K)", clean=False) == "a cat (4k)"


def test_prompts_by_loop() -> None:
    found = golden("prompt_utils.json")
    for prompt, (texts, loops) in found["split_prompt"].items():
        assert split_prompt(prompt) == (texts, loops)
    chosen = [extract_prompts_loop(["|0|a|2|b"], loop) for loop in range(4)]
    assert chosen == list(found["extract_prompts_loop"].values())
    assert extract_prompts_loop(["plain", "|0|x|1|y"], 5) == ["plain", "y"]
    assert prepare_prompt("|0| A Sea |3| A STORM", aes=6.5) == (
        "|0|a sea aesthetic score: 6.5.|3|a storm aesthetic score: 6.5."
    )
    with pytest.raises(GenerateError, match="must ascend"):
        split_prompt("|0|a|2|b|1|c")


def test_settings_in_a_prompt() -> None:
    prompt = 'a car {"reference_path": "x.png", "mask_strategy": "0"}'
    assert [list(extract_json_from_prompts([prompt], [""], [""]))] == golden("prompt_utils.json")["extract_json"]
    assert extract_json_from_prompts(["a car"], ["y.png"], ["0"]) == (["a car"], ["y.png"], ["0"])
    for wrong in ('{"path": "x"}', '{"mask_strategy": 0}', "{", "{}{}"):
        with pytest.raises(GenerateError):
            extract_json_from_prompts(["a car " + wrong], [""], [""])


def test_mask_strategies() -> None:
    found = golden("prompt_utils.json")
    for text, entries in found["parse_mask_strategy"].items():
        assert [list(entry) for entry in parse_mask_strategy(text)] == entries
    for value, point, limit, nearest in found["find_nearest_point"]:
        assert find_nearest_point(value, point, limit) == nearest
    for wrong in ("0,0,0,0,1,0,0", "0,x", ";"):
        with pytest.raises(GenerateError, match="mask strategy"):
            parse_mask_strategy(wrong)


def test_references_are_set_into_the_latents() -> None:
    noise = torch.zeros(3, 1, 15, 1, 1)
    first, second = torch.full((1, 1, 1, 1), 5.0), torch.arange(1.0, 11).view(1, 10, 1, 1)
    strategies = ["0;0,1,0,-1,1", "0,0,-5,0,5,0.4;1,0,0,5,5", ""]
    latents, ratios = apply_mask_strategy(noise, [[first, first], [second], []], strategies, 0)
    assert not noise.any()
    # The last frame's place is moved to where a chunk of five begins.
    assert latents[0].flatten().tolist() == [5.0] + [0.0] * 9 + [5.0] + [0.0] * 4
    assert ratios[0].tolist() == [0.0] + [1.0] * 9 + [0.0] + [1.0] * 4
    assert latents[1].flatten().tolist() == [6.0, 7.0, 8.0, 9.0, 10.0] + [0.0] * 10
    torch.testing.assert_close(ratios[1], torch.tensor([0.4] * 5 + [1.0] * 10))
    assert not latents[2].any()
    assert (ratios[2] == 1).all()
    second_loop, _ = apply_mask_strategy(noise, [[first, first], [second], []], strategies, 1)
    assert second_loop[1].flatten().tolist() == [0.0] * 5 + [1.0, 2.0, 3.0, 4.0, 5.0] + [0.0] * 5
    anywhere, _ = apply_mask_strategy(noise, [[first, first], [second], []], strategies, 0, align=None)
    assert anywhere[0].flatten().tolist() == [5.0] + [0.0] * 13 + [5.0]
    for wrong, message in (("0,3", "names reference 3"), ("0,0,0,40", "begins at 40"), ("0,0,-2", "begins at -2")):
        with pytest.raises(GenerateError, match=message):
            apply_mask_strategy(noise[:1], [[first]], [wrong], 0)


def test_sizes_and_lengths_by_name() -> None:
    assert get_image_size("240p", "9:16") == (240, 426)
    assert get_image_size("720p", "16:9") == (1280, 720)
    assert get_image_size("144p", "1:1") == (192, 192)
    assert all(len(row.split()) == len(ASPECT_RATIOS) for row in RESOLUTIONS.values())
    for resolution, row in RESOLUTIONS.items():
        height, width = get_image_size(resolution, "9:16")
        for aspect, size in zip(ASPECT_RATIOS, row.split(), strict=True):
            h, w = map(int, size.split("x"))
            a, b = map(int, aspect.split(":"))
            assert abs(h * w / (height * width) - 1) < 0.02
            assert abs(h / w / (a / b if aspect != "50:27" else 25 / 12) - 1) < 0.02
    assert [get_num_frames(length) for length in ("2s", "4s", "16s", "2x", "34", 7)] == [51, 102, 408, 102, 34, 7]
    assert [frames % 17 for frames in NUM_FRAMES.values()] == [0] * len(NUM_FRAMES)
    lengths = golden("prompt_utils.json")["dframe_to_frame"]
    assert {key: dframe_to_frame(int(key)) for key in lengths} == lengths
    wrong: list[Any] = [
        lambda: get_image_size("333p", "9:16"),
        lambda: get_image_size("240p", "7:5"),
        lambda: get_num_frames("3s"),
        lambda: get_num_frames(0),
        lambda: get_num_frames(True),
        lambda: dframe_to_frame(4),
    ]
    for call in wrong:
        with pytest.raises(GenerateError):
            call()
