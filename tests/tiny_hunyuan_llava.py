"""HunyuanVideo's own image to video in miniature: stock classes, a LLaVA among them, every weight random.

The pipeline counts the tokens of its template, so the tokenizer reads that one as Llama 3's does, word by word: 103
tokens before the prompt, the picture's as the sixth. What it has not learned from the template it reads in pieces.
"""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoImageToVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import DEFAULT_PROMPT_TEMPLATE
from models import build, noisy
from tiny_clip import clip, clip_tokenizer
from tiny_pipelines import HUNYUAN_VAE
from tiny_trained import model_of
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

KINDS = ("latent-concat", "token-replace")
SIZE = (9, 32, 32)
"""Frames, height and width that it makes here."""
TEMPLATE = str(DEFAULT_PROMPT_TEMPLATE["template"])
BEGIN, IMAGE, PAD = "<|begin_of_text|>", "<image>", "<pad>"
SPECIAL = (BEGIN, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", IMAGE, PAD)
WORDS = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
"""What Llama 3 takes to be a word, but for English's apostrophes."""


def llama_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = TEMPLATE
    for token in SPECIAL:
        words = words.replace(token, "")
    tokenizer.train_from_iterator([words.replace("{}", "")], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, pad_token=PAD, padding_side="right")


def llava(tokenizer: PreTrainedTokenizerFast) -> Any:
    """16 wide. It makes 24 x 24 tokens of a picture, as the published one does."""
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=336, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        pad_token_id=tokenizer.pad_token_id,
    )
    return noisy(LlavaForConditionalGeneration(config), 2)


def hunyuan_llava(kind: str) -> Any:
    """`kind`: "latent-concat" or "token-replace"."""
    tokenizer = llama_tokenizer()
    return HunyuanVideoImageToVideoPipeline(
        text_encoder=llava(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=clip(8),
        tokenizer_2=clip_tokenizer(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336),
        vae=build("AutoencoderKLHunyuanVideo", HUNYUAN_VAE, seed=1),
        transformer=model_of(f"hunyuan-video-{kind}"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
