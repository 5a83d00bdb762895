"""A language model and its tokenizer, from a folder or the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError
from modelgrow.surgery.errors import first_line
from modelgrow.surgery.hub_errors import refusal

if TYPE_CHECKING:
    import torch


def load_llm(model: str, *, revision: str | None = None, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """The model that reads prompts, in evaluation mode on the CPU, and its tokenizer. No pickle, no foreign code.

    An encoder-decoder is loaded without its decoder, where transformers has a class for that.

    Args:
        model: A folder, or a Hub id, downloaded into the Hub's cache if need be.
        revision: Branch, tag or commit of a Hub id.
        dtype: None is the one it was saved in.

    Raises:
        GenerateError: It is not there, or is no text model.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(model, revision=revision)
        loader = _class_for(config)
        llm = loader.from_pretrained(model, revision=revision, dtype=dtype or "auto", use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise GenerateError(
            f"{model}: the language model of this pipeline's slot can't be loaded: "
            f"{refusal(error, model, revision) or first_line(error)} "
            "(grow generate takes another place as --llm; in Python give it as llm= and llm_tokenizer=, or pass "
            "llm_states=, from encode_llm on another machine)"
        ) from error
    return llm.eval().requires_grad_(False), tokenizer


def read_with(pipeline: Any, model: str) -> None:
    """Let the slot of a pipeline read with the language model in this place.

    Args:
        pipeline: One with a slot.
        model: A folder, or a Hub id. That it is the one the slot was made for is checked by its width alone.

    Raises:
        GenerateError: The pipeline has no slot, or the model can't be loaded.
    """
    slots = getattr(pipeline, "slot_models", None)
    if not slots:
        raise GenerateError(
            f"{type(pipeline).__name__} has no slot for a language model, so there is nothing for {model} to read for; "
            "'grow attach-llm' adds one"
        )
    llm, tokenizer = load_llm(model, dtype=next(iter(slots.values())).dtype)
    pipeline.register_modules(llm=llm, llm_tokenizer=tokenizer)


def _class_for(config: Any) -> Any:
    """The auto class that loads what is needed to read, and for a causal model also what is needed to write."""
    import transformers

    names = config.architectures or [""]
    if config.is_encoder_decoder:
        known = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
        return transformers.AutoModelForTextEncoding if known else transformers.AutoModel
    if names[0].endswith("ForCausalLM"):
        return transformers.AutoModelForCausalLM
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModel
