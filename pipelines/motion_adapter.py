"""A motion adapter and the Stable Diffusion pipeline that it is plugged into: AnimateDiff, as diffusers builds it.

The pipeline's UNet becomes a `UNetMotionModel`, which holds the adapter's tensors beside its own. The rule of their
names is one: what an adapter calls `down_blocks.0.motion_modules.1...`, the UNet calls so too, and nothing else of
the UNet has `motion_modules` in its name (`UNetMotionModel.load_motion_modules`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError, Source
from modelgrow.surgery.disguise import CONVERT
from modelgrow.surgery.errors import first_line

from .dtypes import resolve_dtype
from .load import check_offload, load_pipeline, put_on
from .models import load_model

if TYPE_CHECKING:
    from modelgrow.surgery import Checkpoint

ADAPTER = "MotionAdapter"
UNET, PLAIN_UNET = "UNetMotionModel", "UNet2DConditionModel"
NAME, PLACE = "motion_adapter", "unet"
"""Of the two, in an AnimateDiff pipeline: the adapter as it was given, and the UNet that it was plugged into."""
SCHEDULE: dict[str, Any] = {
    "beta_schedule": "linear",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "linspace",
}
"""Of the noise. Published adapters were trained with linear betas, whatever their Stable Diffusion was trained with
(AnimateDiff, configs/training: noise_scheduler_kwargs); diffusers' documentation says the same for all of them."""
_TOLD = {
    "motion_layers_per_block": "layers_per_block",
    "motion_max_seq_length": "motion_max_seq_length",
    "motion_num_attention_heads": "motion_num_attention_heads",
    "motion_transformer_layers_per_block": "temporal_transformer_layers_per_block",
    "motion_transformer_layers_per_mid_block": "temporal_transformer_layers_per_mid_block",
    "use_motion_mid_block": "use_motion_mid_block",
}
"""Keys of an adapter's config -> what `UNetMotionModel.from_unet2d` makes of them."""
_WIDTHS = [320, 640, 1280, 1280]
_SAME: tuple[tuple[str, str, Any], ...] = (
    ("block_out_channels", "block_out_channels", _WIDTHS),
    ("motion_layers_per_block", "layers_per_block", 2),
    ("motion_norm_num_groups", "norm_num_groups", 32),
)
"""Keys of an adapter's config, of a UNet's, and what both are where they do not say."""


def is_motion(name: str) -> bool:
    """Whether a UNet's tensor, or module, is one of a motion adapter too, by the same name."""
    return ".motion_modules." in name


def check_fit(adapter: Checkpoint, pipeline: Source) -> None:
    """Raises `GenerateError` unless the pipeline is a Stable Diffusion that the adapter can be plugged into."""
    found = {part.name: part for part in pipeline.components}
    unet = found.get(PLACE)
    wanted = f"{adapter.path}: a motion adapter is plugged into a Stable Diffusion pipeline, and {pipeline.name}"
    if adapter.config.get("conv_in_channels"):
        raise GenerateError(
            f"{adapter.path}: conv_in_channels is {adapter.config['conv_in_channels']}: an adapter of PIA, whose model "
            "reads a picture beside the noise. Adapters of AnimateDiff, which have none, can be plugged in here"
        )
    if unet is None:
        has = ", ".join(f"{part.name} ({part.class_name})" for part in found.values())
        raise GenerateError(f"{wanted} has no unet; it has {has or 'no weights'}")
    if unet.class_name == UNET:
        raise GenerateError(
            f"{wanted} is AnimateDiff already: its unet is a {UNET}, with motion modules of its own. Name the Stable "
            "Diffusion pipeline that it was made from"
        )
    if unet.class_name != PLAIN_UNET:
        raise GenerateError(f"{wanted} has a {unet.class_name} as its unet, not a {PLAIN_UNET}")
    if unet.checkpoint is None:
        raise GenerateError(f"{pipeline.name}: its unet has no safetensors: {CONVERT}")
    _check_config(adapter, unet.checkpoint, pipeline.name)


def _check_config(adapter: Checkpoint, unet: Checkpoint, name: str) -> None:
    read, made = (unet.config.get(key, 4) for key in ("in_channels", "out_channels"))
    if read != made:
        raise GenerateError(
            f"{name}: its unet reads {read} channels and answers with {made}, so it reads a picture or a mask beside "
            "the noise; name a text-to-image pipeline"
        )
    for ours, theirs, default in _SAME:
        one, other = _per_block(adapter, ours, default), _per_block(unet, theirs, default)
        if one != other:
            raise GenerateError(
                f"{adapter.path}: {ours} is {one}, and the unet of {name} has {theirs} {other}, so they do not fit. "
                f"Adapters for Stable Diffusion 1.5 have the widths {_WIDTHS}, those for SDXL {_WIDTHS[:3]}: name a "
                "pipeline of the kind that this one was made for"
            )


def _per_block(model: Checkpoint, key: str, default: Any) -> list[Any]:
    """What a config says of every block."""
    value = model.config.get(key, default)
    blocks = len(model.config.get("block_out_channels", _WIDTHS))
    return list(value) if isinstance(value, list | tuple) else [value] * blocks


def plug_in(
    adapter: Checkpoint,
    pipeline: Source,
    *,
    device: str = "auto",
    dtype: str = "auto",
    variant: str | None = None,
    offload: str | None = None,
) -> Any:
    """AnimateDiffPipeline, or AnimateDiffSDXLPipeline, of a Stable Diffusion pipeline and a motion adapter.

    Its unet holds the adapter, and its scheduler is DDIM with AnimateDiff's betas (`SCHEDULE`). Options are as
    `load_pipeline` has them.

    Raises:
        GenerateError: They do not fit, see `check_fit`, or can't be loaded.
        CheckpointError: Config and weights do not belong together.
    """
    from diffusers import AnimateDiffPipeline, AnimateDiffSDXLPipeline, DDIMScheduler

    check_fit(adapter, pipeline)
    place = check_offload(device, offload)
    kind = resolve_dtype(dtype, place)
    (unet,) = (part.checkpoint for part in pipeline.components if part.name == PLACE and part.checkpoint is not None)
    plain = load_model(unet, dtype=kind)
    is_sdxl = "text_encoder_2" in (pipeline.pipeline or {})
    made: Any = load_pipeline(
        pipeline.path,
        device="cpu" if offload else device,  # a weight that waits elsewhere could not be written to below
        dtype=str(kind).removeprefix("torch."),
        variant=variant,
        components={PLACE: plain, NAME: load_model(adapter, dtype=kind)},
        kind=AnimateDiffSDXLPipeline if is_sdxl else AnimateDiffPipeline,
    )
    if hasattr(made.unet, "add_embedding"):  # diffusers 0.42 makes it anew, from random numbers
        made.unet.add_embedding.load_state_dict(plain.add_embedding.state_dict())
    made.register_modules(motion_adapter=None)  # plugged in, and not read again
    made.scheduler = DDIMScheduler.from_config(made.scheduler.config, **SCHEDULE)
    return put_on(made, place, offload) if offload else made


def plug_again(unet: Any, adapter: Any) -> Any:
    """The UNet with another adapter in the place of the one that it holds: their own tensors, nothing copied.

    Raises:
        GenerateError: They do not fit.
    """
    from accelerate import init_empty_weights

    told = {theirs: adapter.config[ours] for ours, theirs in _TOLD.items()}
    with init_empty_weights(include_buffers=False):
        made = type(unet).from_config({**unet.config, **told})
    own = {name: tensor for name, tensor in unet.state_dict().items() if not is_motion(name)}
    try:
        made.load_state_dict({**own, **adapter.state_dict()}, assign=True)
    except RuntimeError as error:
        raise GenerateError(f"the motion adapter does not fit into the pipeline's unet: {first_line(error)}") from error
    return made.train(unet.training)
