"""`grow extend-frames`: longer clips."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .groups import Opening, Writing, grouped
from .jobs import carry_out, show_provable
from .options import AnatomyFiles, Ckpt, Components

if TYPE_CHECKING:
    from modelgrow.surgery import Job, Source
    from modelgrow.surgery.exvideo import Sinusoids

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow extend-frames --to 128 Wan-AI/Wan2.1-T2V-1.3B-Diffusers -o wan-128f[/bold]\n\n"
    "  [bold]grow extend-frames --to 128 --method interpolate --trainable ./CogVideoX-5b --dry-run[/bold]\n\n"
    "  [bold]grow extend-frames --to 128 stabilityai/stable-video-diffusion-img2vid-xt -o svd-exvideo[/bold]\n\n"
    "By default each model has the method that suits it, and the plan says why: RIFLEx where positions are RoPE by "
    "its formula, NTK scaling where the base has that already (Cosmos), interpolation where frequencies are trained or "
    "positions are seconds (Mochi, LTX) and where sines are computed (Latte, CogVideoX-2B), the formula's next rows "
    "in AnimateDiff, and ExVideo's trained blocks in SVD. Clips no longer than the base's stay as they are, "
    "to the bit, except where positions are stored; the plan says so. docs/frames.md has the formulas."
)


@grouped
def extend_frames(
    ckpt: Ckpt,
    to: Annotated[
        int,
        typer.Option(
            min=1, max=100_000, metavar="FRAMES", help="Frames of the clips that it shall make.", show_default=False
        ),
    ],
    method: Annotated[
        Literal["none", "interpolate", "ntk", "yarn", "riflex"] | None,
        typer.Option(
            help="What happens to positions. none: nothing, they go on beyond the trained ones. Default: by model.",
            show_default=False,
        ),
    ] = None,
    trainable: Annotated[
        bool,
        typer.Option("--trainable", help="Positions become parameters that 'grow train' tunes; at first no change."),
    ] = False,
    base_frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Frames of the clips that the base was trained on. Default: its generation.json, then its family's.",
            show_default=False,
        ),
    ] = None,
    component: Components = None,
    anatomy: AnatomyFiles = None,
    *,
    opening: Opening,
    writing: Writing,
) -> None:
    """Longer clips: positions in time by RIFLEx, YaRN, NTK scaling or interpolation; ExVideo's blocks for SVD."""
    from modelgrow.surgery import anatomies
    from modelgrow.surgery.clip_default import prepare_extend
    from modelgrow.surgery.extend_frames import ExtendOptions
    from modelgrow.surgery.exvideo import BASE_CLASS
    from modelgrow.surgery.grown import stock_name

    options = ExtendOptions(to=to, method=method, trainable=trainable, base_frames=base_frames)
    known = anatomies(tuple(anatomy or ()))

    def plan(source: Source, _: bool) -> Job:
        is_svd = any(stock_name(part.class_name) == BASE_CLASS for part in source.components)
        chosen = replace(options, sinusoids=_exact_sinusoids()) if is_svd else options
        return prepare_extend(source, chosen, components=component or (), known=known)

    carry_out(ckpt, plan, opening, writing, show=partial(show_provable, base=ckpt))


def _exact_sinusoids() -> Sinusoids:
    """torch's own, which the base computes while it runs: any other's differ in the last bit."""
    from modelgrow.pipelines.exvideo.sinusoids import sinusoids

    return sinusoids
