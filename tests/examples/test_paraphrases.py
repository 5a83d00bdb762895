"""Captions in other words say what the scene shows, and what is held out stands in no caption for training."""

from __future__ import annotations

import re
from itertools import chain

import numpy as np
import pytest

from modelgrow.examples.shapes.paraphrases import (
    BACKGROUND_WORDS,
    COLOR_WORDS,
    DIRECTION_WORDS,
    MOVES,
    SHAPE_WORDS,
    SIZE_WORDS,
    STAYS,
    Words,
    long_paraphrase,
    paraphrase,
)
from modelgrow.examples.shapes.scene import BACKGROUNDS, COLORS, MOTIONS, SHAPES, SIZES, Object, Scene, sample_scene
from modelgrow.train.data.open import open_clips

TABLES = (COLOR_WORDS, SHAPE_WORDS, DIRECTION_WORDS, BACKGROUND_WORDS, SIZE_WORDS, {"": MOVES}, {"": STAYS})


def everything(name: str) -> list[str]:
    return [text for table in TABLES for words in table.values() for text in getattr(words, name)]


def test_all_that_the_world_knows_has_words() -> None:
    assert COLOR_WORDS.keys() == COLORS.keys()
    assert set(SHAPE_WORDS) == set(SHAPES)
    assert DIRECTION_WORDS.keys() == MOTIONS.keys() - {"still"}
    assert BACKGROUND_WORDS.keys() == BACKGROUNDS.keys()
    assert SIZE_WORDS.keys() == SIZES.keys()


def test_no_word_means_two_things() -> None:
    for table in TABLES:
        words = list(chain.from_iterable((*entry.training, *entry.held_out) for entry in table.values()))
        assert len(words) == len(set(words))


def test_what_is_held_out_is_in_no_training_caption() -> None:
    captions = []
    for index in range(150):
        rng = np.random.default_rng([7, index])
        scene = sample_scene(rng)
        captions += [paraphrase(scene, rng), long_paraphrase(scene, rng)]
    seen = set(re.findall(r"\w+", " ".join(captions).lower()))
    held_out = set(re.findall(r"\w+", " ".join(everything("held_out")).lower()))
    assert held_out & seen <= {"is"}
    assert {"maroon", "sphere", "sails", "westward"} <= held_out
    assert {"west", "crimson", "disc", "drifts"} <= seen


def test_a_sentence_by_hand() -> None:
    class Last(np.random.Generator):
        """Takes the last of every choice."""

        def integers(self, high: int) -> int:  # type: ignore[override]
            return high - 1

    rng = Last(np.random.PCG64(0))
    circle = Object(shape="circle", color="red", size="large", motion="left", x=0.5, y=0.1)
    cross = Object(shape="cross", color="cyan", size="small", motion="still", x=0.5, y=0.5)
    scene = Scene(objects=(circle, cross), background="navy")
    assert paraphrase(scene, rng) == "a coin that is blood red rolls to the west; an X that is ice blue remains there"
    held_out = paraphrase(scene, rng, held_out=True)
    assert held_out == "a roundel that is vermilion sails westward; a crucifix that is turquoise is frozen"
    assert long_paraphrase(scene, rng) == (
        "There is a large-sized coin in blood red at the top; it rolls to the west. "
        "There is a small-sized X in ice blue in the center; it remains there. "
        "Behind it all there is only midnight blue."
    )


def test_as_a_source() -> None:
    said, plain = (
        open_clips(f"{world}:1-2:6", num_frames=5, height=32, width=32) for world in ("paraphrases", "shapes")
    )
    assert said.fingerprint != plain.fingerprint
    for one, other in zip(said.clips, plain.clips, strict=True):
        assert one.key == other.key
        mine, theirs = (source.read(one, num_frames=5, height=32, width=32) for source in (said, plain))
        assert np.array_equal(mine, theirs)
    assert any(one.caption != other.caption for one, other in zip(said.clips, plain.clips, strict=True))
    pairs = zip(open_clips("paraphrases:1:80").clips, open_clips("shapes:1:80").clips, strict=True)
    same = sum(one.caption == other.caption for one, other in pairs)
    assert 10 <= same <= 35, "a quarter of the short captions are the base's own"
    longs = [clip.long_caption for clip in open_clips("paraphrases:1:40").clips]
    standard = [long for long in longs if long and "plain" in long]
    assert 10 <= len(standard) <= 30, "half of the long captions are the standard ones"


@pytest.mark.parametrize("held_out", [False, True])
def test_words_are_drawn_from_their_half(held_out: bool) -> None:
    words = Words(training=("a", "b"), held_out=("c",))
    drawn = {words.pick(np.random.default_rng(seed), held_out=held_out) for seed in range(30)}
    assert drawn == ({"c"} if held_out else {"a", "b"})
