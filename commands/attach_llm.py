"""`grow attach-llm`: a slot for a language model."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .groups import Opening, Writing, grouped
from .jobs import carry_out, show_provable
from .options import AnatomyFiles, Ckpt, Components, Stack

if TYPE_CHECKING:
    from modelgrow.surgery import Job, Source

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow attach-llm Wan-AI/Wan2.1-T2V-1.3B-Diffusers --llm Qwen/Qwen3-0.6B -o wan-llm[/bold]\n\n"
    "  [bold]grow attach-llm ./CogVideoX-2b --llm ./Llama-3.2-1B --every 2 --width 1024 --dry-run[/bold]\n\n"
    "  [bold]grow attach-llm ./wan-suffix8 --llm Qwen/Qwen3-0.6B --at 30-37 --include-llm[/bold]\n\n"
    "The function is unchanged until the slot is trained: its output projections are zero. In diffusers, say "
    "[bold]import modelgrow.pipelines[/bold] before DiffusionPipeline.from_pretrained."
)

_RANGES = re.compile(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", re.ASCII)


def _blocks(text: str | None) -> tuple[int, ...] | None:
    """ "0,2,4-6" to (0, 2, 4, 5, 6). Raises typer's usage error."""
    if text is None:
        return None
    if not _RANGES.fullmatch(text.replace(" ", "")):
        raise typer.BadParameter(f"{text!r} is not a list of blocks such as 0,2,4 or 20-29", param_hint="--at")
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


@grouped
def attach_llm(
    ckpt: Ckpt,
    llm: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The language model: a Hub id, of which only config.json is fetched, or a folder.",
            show_default=False,
        ),
    ],
    every: Annotated[
        int, typer.Option(min=1, metavar="K", help="A slot behind blocks 0, K, 2K ... 1, as in ModelGrow: all.")
    ] = 1,
    at: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Behind just these blocks: 0,2,4 or 20-29.", show_default=False),
    ] = None,
    stack: Stack = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Width of queries, keys and values. Default: the blocks' own. Less is smaller.",
            show_default=False,
        ),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Attention heads. Default: the model's own, or of at most 128 values each.",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        str, typer.Option(help="Which hidden states: mean (of all layers, each normalized), last, or -3 and so on.")
    ] = "mean",
    template: Annotated[
        Literal["modelgrow", "plain", "hunyuan-video", "chat"],
        typer.Option(help="What stands around the prompt: see docs/llm.md."),
    ] = "modelgrow",
    max_length: Annotated[int, typer.Option(min=1, help="Tokens of a prompt; the rest is cut off.")] = 256,
    include_llm: Annotated[
        bool,
        typer.Option(
            "--include-llm",
            help="Copy the language model and its tokenizer into the pipeline. Otherwise its name is recorded, "
            "and loading fetches it.",
        ),
    ] = False,
    llm_revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the language model.", show_default=False)
    ] = None,
    llm_dim: Annotated[
        int | None,
        typer.Option(min=1, help="Width of its states, where its config does not say it.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the slot's first values.")] = 0,
    component: Components = None,
    anatomy: AnatomyFiles = None,
    *,
    opening: Opening,
    writing: Writing,
) -> None:
    """Give blocks a second cross-attention, to a language model's states: same function until it is trained."""
    from modelgrow.surgery import anatomies
    from modelgrow.surgery.attach_job import prepare_attach_llm
    from modelgrow.surgery.attach_llm import AttachOptions
    from modelgrow.surgery.language_model import open_language_model

    numbers = _blocks(at)
    known = anatomies(tuple(anatomy or ()))

    def plan(source: Source, headers_only: bool) -> Job:
        options = AttachOptions(
            llm=open_language_model(
                llm, revision=llm_revision, dim=llm_dim, with_weights=include_llm, headers_only=headers_only
            ),
            every=every,
            at=numbers,
            stack=stack,
            width=width,
            heads=heads,
            layer=layer,
            template=template,
            max_length=max_length,
            seed=seed,
        )
        return prepare_attach_llm(source, options, components=component or (), known=known, include=include_llm)

    carry_out(ckpt, plan, opening, writing, show=partial(show_provable, base=ckpt))
