"""Small language models with tokenizers of their own, made in memory, every weight random; one is taught to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
WIDTH = 24


def byte_tokenizer(*, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """One token per byte, a beginning in front: every text can be read, and counted by hand."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _wrapped(tokenizer, padding_side)


def _wrapped(tokenizer: Any, padding_side: str = "right") -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side=padding_side,
    )


def tiny_llama(*, vocab_size: int = 260, layers: int = 4, seed: int = 3, std: float = 0.3) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=std,
        architectures=["LlamaForCausalLM"],
    )
    return LlamaForCausalLM(config).eval()


def tiny_t5() -> Any:
    torch.manual_seed(4)
    config = T5Config(
        vocab_size=260, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=3, num_heads=2, decoder_start_token_id=0
    )
    model: Any = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape) * 0.3)
    return model.eval()


def save_llm(folder: Path, llm: Any, tokenizer: Any) -> Path:
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def word_tokenizer(*texts: str) -> PreTrainedTokenizerFast:
    """One token per word of the texts, and per sign between them."""
    split = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    tokenizer: Any = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    return _wrapped(tokenizer)


def taught_llama(tokenizer: Any, pairs: list[tuple[str, str]], *, steps: int = 120) -> Any:
    """A small causal model that was trained until it continues each text as the pair says, and then ends."""
    model = tiny_llama(vocab_size=len(tokenizer), layers=2, std=0.05)
    asked = [tokenizer(text).input_ids for text, _ in pairs]
    whole = [ids + tokenizer(answer).input_ids + [2] for ids, (_, answer) in zip(asked, pairs, strict=True)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    model.train()
    for _ in range(steps):
        for question, ids in zip(asked, whole, strict=True):
            tokens = torch.tensor([ids])
            labels = tokens.clone()
            labels[:, : len(question)] = -100
            model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
