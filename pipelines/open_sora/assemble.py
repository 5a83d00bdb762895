"""A pipeline of the pieces that the Open-Sora authors published, which no single folder holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import AutoencoderKL, DDPMScheduler, FlowMatchEulerDiscreteScheduler, ModelMixin

from modelgrow.surgery import GenerateError

from ..models import model_class
from .vae import AutoencoderKLOpenSora

if TYPE_CHECKING:
    import torch

T5 = "DeepFloyd/t5-v1_1-xxl"
VAE_1_2 = "hpcai-tech/OpenSora-VAE-v1.2"
VAE_1_0 = "stabilityai/sd-vae-ft-ema"
_STDIT3, _STDIT = "STDiT3Transformer3DModel", "STDiTTransformer3DModel"


def from_published(
    cls: Any,
    transformer: str | Any,
    *,
    vae: str | Any = None,
    text_encoder: str | Any = T5,
    tokenizer: str | Any = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Put the pieces together; `save_pretrained` then writes one folder of them.

    Args:
        cls: The pipeline class.
        transformer: Folder or Hub id of a STDiT, published or saved here, such as hpcai-tech/OpenSora-STDiT-v3; or
            the model.
        vae: The same of a VAE. Default: Open-Sora's own for 1.2; for 1.0 Stable Diffusion's, which it was trained
            with.
        text_encoder: The same of T5.
        tokenizer: The same of its tokenizer. Default: where the text encoder is.
        dtype: Of all weights. Default: as they are stored.

    Raises:
        GenerateError: `transformer` is no STDiT.
    """
    from transformers import AutoTokenizer, T5EncoderModel

    kind: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    model = transformer if isinstance(transformer, ModelMixin) else _stdit(transformer, kind)
    is_flow = type(model).__name__.endswith(_STDIT3)
    if isinstance(text_encoder, str) or tokenizer is not None:
        tokenizer = text_encoder if tokenizer is None else tokenizer
    else:
        raise GenerateError("a text encoder that is loaded needs a tokenizer beside it")
    return cls(
        tokenizer=AutoTokenizer.from_pretrained(tokenizer) if isinstance(tokenizer, str) else tokenizer,
        text_encoder=_loaded(T5EncoderModel, text_encoder, kind),
        vae=_vae(vae or (VAE_1_2 if is_flow else VAE_1_0), kind),
        transformer=model,
        scheduler=FlowMatchEulerDiscreteScheduler() if is_flow else diffusion_scheduler(),
    )


def diffusion_scheduler() -> DDPMScheduler:
    """Open-Sora 1.0's sampler: ancestral, linear betas, a learned range of variances."""
    return DDPMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        variance_type="learned_range",
        clip_sample=False,
        timestep_spacing="linspace",
    )


def _stdit(path: str, kind: dict[str, Any]) -> Any:
    config: dict[str, Any] = AutoencoderKL.load_config(path)  # any model class reads any config.json
    return model_class(_class_name(config, path)).from_pretrained(path, **kind)


def _class_name(config: dict[str, Any], path: str) -> str:
    if "_class_name" in config:
        return str(config["_class_name"])
    if config.get("model_type") == "STDiT3" or "input_sq_size" in config:
        return _STDIT3
    if "space_scale" in config or config.get("model_type") == "STDiT":
        return _STDIT
    raise GenerateError(f"{path}: config.json is that of no STDiT of Open-Sora 1.0 or 1.2")


def _vae(vae: Any, kind: dict[str, Any]) -> Any:
    if isinstance(vae, str):
        flat = AutoencoderKL.load_config(vae).get("_class_name") == "AutoencoderKL"
        vae = (AutoencoderKL if flat else AutoencoderKLOpenSora).from_pretrained(vae, **kind)
    return AutoencoderKLOpenSora.from_spatial(vae) if isinstance(vae, AutoencoderKL) else vae


def _loaded(cls: Any, model: Any, kind: dict[str, Any]) -> Any:
    return cls.from_pretrained(model, **kind) if isinstance(model, str) else model
