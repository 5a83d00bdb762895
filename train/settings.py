"""Every setting of a run: from a TOML file, flags over it, saved beside the result in the same form."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import TrainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TRAINED = ("new", "grown-blocks", "all", "lora")
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")
OPTIMIZERS = ("adamw", "adamw8bit")
DROPOUTS = ("together", "independently")
EDMS = ("standard", "exvideo")
QUANTIZATIONS = ("none", "torchao-int8", "bitsandbytes-int8", "bitsandbytes-nf4")
PRECISIONS = ("auto", "no", "bf16", "fp16")

_COUNTS = frozenset(
    {
        *("steps", "batch_size", "accumulate", "save_every", "validate_every", "keep", "lora_rank"),
        *("num_frames", "height", "width"),
    }
)
_SHARES = frozenset({"caption_dropout", "long_captions", "frame_conditioning", "ema_decay", "held_out", "first_frame"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is enough to repeat a run. Sizes are in pixels, lengths in frames, rates per optimizer step."""

    model: str
    """A grown pipeline: a folder, or a Hub id. With `pipeline` one component by itself."""
    data: str
    """Clips: a folder, a list, "shapes:2-3" for the small world; see `modelgrow.train.data`."""
    output: str
    pipeline: str | None = None
    """Where what trains is one component by itself, the pipeline that it trains in: a folder, or a Hub id."""
    component: str | None = None
    """Which component of the pipeline trains, where more than one has grown."""
    train: str = "new"
    """"new": what the record says is new; "grown-blocks": the whole blocks that hold something new; "all"; "lora"."""
    lora_rank: int = 16
    steps: int = 1000
    batch_size: int = 1
    """Per process."""
    accumulate: int = 1
    """Batches per optimizer step."""
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    learning_rate: float = 1e-4
    schedule: str = "constant_with_warmup"
    warmup_steps: int = 50
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0
    """Of the trained parameters; 0 is without."""
    precision: str = "auto"
    """Of the arithmetic; "auto" is bf16 on a GPU, else none. Trained parameters are float32 always."""
    quantize: str = "none"
    """Of the linear layers that do not train, by diffusers' backends; what is saved is not quantized."""
    gradient_checkpointing: bool = False
    compile: bool = False
    """torch.compile the repeated blocks."""
    caption_dropout: float = 0.1
    """Share of captions left out, for classifier-free guidance."""
    dropout: str = "together"
    """Of two text encoders, with a slot: "together", or "independently", each by its own `caption_dropout`."""
    long_captions: float = 0.5
    """Probability of the long caption, where a clip has one (ModelGrow, section 3.3, trains on both)."""
    timestep_sampling: str = "logit_normal"
    """"logit_normal" or "uniform"; rectified flow only."""
    shift: float | None = None
    """Of the noise levels, s' = shift s / (1 + (shift - 1) s); None is the scheduler's own, or what a model was trained
    with where that is another."""
    frame_conditioning: float = 0.2
    """Open-Sora 1.2 only: share of the samples in which some frames are given; the default is its first stage's."""
    first_frame: float | None = None
    """LTX-Video, Sana-Video, Wan 2.2 TI2V-5B, Wan VACE, Wan Animate, Kandinsky 5 image to video: share of the samples
    whose first frame is given; None is all of them for an image-to-video pipeline, a quarter for Wan Animate, and none
    for the others."""
    edm: str = "standard"
    """Stable Video Diffusion only: "standard", or "exvideo" for the noise levels and weights of its script."""
    contrast: float = 1.0
    """Stable Video Diffusion only: what the clips to learn are multiplied by, in latents; ExVideo's script has 1.01."""
    latent_scale: float = 1.0
    """Stable Video Diffusion only: what all latents are multiplied by; 0.71507 trains as ExVideo's script does."""
    cache_trunk: int = 0
    """Suffix growth only: draws of noise and timestep per clip whose trunk output is computed once."""
    held_out: float = 0.0
    """Share of the clips that is not trained on: their loss tells learning from learning by heart."""
    validate_every: int = 100
    seed: int = 0
    save_every: int = 200
    keep: int = 2
    """Checkpoints to keep, the best one besides."""
    preview_every: int = 0
    previews: tuple[str, ...] = ()
    """Prompts of preview clips."""
    preview_image: str | None = None
    """Picture that preview clips start from; None is a clip's own first frame, where the model needs one."""
    alarm_after: int = 50
    """Steps after which a run that changed nothing fails."""
    tracker: str = "tensorboard"
    link: bool = False
    """Whether the result's files that stay as they were, such as a text encoder, are hard links to the model's."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("train", TRAINED),
            ("schedule", SCHEDULES),
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("quantize", QUANTIZATIONS),
            ("timestep_sampling", ("logit_normal", "uniform")),
            ("dropout", DROPOUTS),
            ("edm", EDMS),
        ):
            if getattr(self, name) not in choices:
                raise TrainError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(choices)}")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainError(f"{item.name} is {value}; it must be a finite number")
            if item.name in _COUNTS and value is not None and value < 1:
                raise TrainError(f"{item.name} is {value}; it must be at least 1")
            if item.name in _SHARES and value is not None and not 0 <= value <= 1:
                raise TrainError(f"{item.name} is {value}; it must lie between 0 and 1")
        if self.held_out == 1:
            raise TrainError("held_out is 1.0; that leaves no clip to train on")
        if self.learning_rate <= 0:
            raise TrainError(f"learning_rate is {self.learning_rate}; it must be positive")

    def to_json(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def to_toml(self) -> str:
        """The settings as a file that `read_settings` takes; what is None is left out."""
        lines = []
        for name, value in self.to_json().items():
            if value is not None:
                # JSON's strings, numbers, booleans and lists of strings are TOML's too.
                lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"


def read_settings(path: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Settings from a TOML file and flags, flags first. A flag that is None was not given.

    Raises:
        TrainError: The file can't be read, a key is unknown or of the wrong type, or something needed is missing.
    """
    given: dict[str, Any] = {}
    if path is not None:
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TrainError(f"{path}: can't be read as TOML: {error}") from error
    given |= {name: value for name, value in flags.items() if value is not None}
    known = {item.name: item for item in fields(Settings)}
    for name, value in given.items():
        if name not in known:
            raise TrainError(f"{path or 'settings'}: unknown key {name!r}; known are {', '.join(known)}")
        given[name] = _typed(value, str(known[name].type), name)
    for name in ("model", "data", "output"):
        if name not in given:
            raise TrainError(f"{name} is not set; give it as a flag or in the TOML file")
    return Settings(**given)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Settings from "key=value", the value as in TOML or a plain word. Raises `TrainError`."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise TrainError(f"--set {text}: expected KEY=VALUE, as --set shift=5.0")
        try:
            found |= tomllib.loads(f"{name} = {value}")
        except tomllib.TOMLDecodeError:
            found[name.strip()] = value.strip()
    return found


def changed(settings: Settings, **values: Any) -> Settings:
    """The settings with some of them replaced, checked again."""
    return replace(settings, **values)


def _typed(value: Any, annotation: str, name: str) -> Any:
    if annotation == "tuple[str, ...]":
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise TrainError(f"{name} must be a list of strings, found {value!r:.60}")
        return tuple(value)
    wanted = {"str": str, "int": int, "float": float, "bool": bool}[annotation.split(" ", maxsplit=1)[0]]
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise TrainError(f"{name} must be {wanted.__name__}, found {value!r:.60}")
    return value
