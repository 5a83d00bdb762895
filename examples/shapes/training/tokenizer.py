"""The foundation's tokenizer: whole words of the small world, single characters for everything else."""

from __future__ import annotations

import re
import string

import numpy as np
from transformers import T5Tokenizer

from ..captions import detailed_caption, short_caption
from ..scene import sample_scene
from .settings import FRAMES, TRAIN_SEED

SPACE = "\u2581"
"""How sentencepiece writes the start of a word."""

_SCENES = 600
_WORD_SCORE, _CHARACTER_SCORE = -5.0, -20.0


def caption_words() -> list[str]:
    """Every word of short and detailed captions, as it stands and with a capital, sorted."""
    words: set[str] = set()
    for index in range(_SCENES):
        rng = np.random.default_rng([TRAIN_SEED, index])
        scene = sample_scene(rng, num_frames=FRAMES)
        words.update(re.findall(r"[A-Za-z]+", short_caption(scene) + " " + detailed_caption(scene, rng)))
    words |= {word.lower() for word in words}
    return sorted(words | {word.capitalize() for word in words})


def build_tokenizer() -> T5Tokenizer:
    """A unigram T5 tokenizer that needs no download. A whole word always beats its characters."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(SPACE + word, _WORD_SCORE) for word in caption_words()]
    characters = string.ascii_letters + string.digits + string.punctuation + SPACE
    vocabulary += [(character, _CHARACTER_SCORE) for character in characters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
