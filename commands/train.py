"""`grow train`: tune only what is new."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import console, count, size
from .options import AsJson

if TYPE_CHECKING:
    from modelgrow.train.progress import Progress
    from modelgrow.train.result import Result
    from modelgrow.train.settings import Settings

LORA_NAME = "pytorch_lora_weights.safetensors"
"""diffusers' own."""

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow train ./Wan2.1-T2V-1.3B-Diffusers-suffix8 --data ./clips -o ./run --steps 2000[/bold]\n\n"
    "  [bold]grow train ./adapter-insert1 --pipeline emilianJR/epiCRealism --data ./clips -o ./run[/bold]\n\n"
    "  [bold]grow train --config run.toml[/bold]\n\n"
    "  [bold]accelerate launch -m modelgrow.cli train ./grown --data ./clips -o ./run[/bold]\n\n"
    "The same command goes on with a run that was stopped. Results: ./run/model, and ./run/growth without the base."
)


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="GROWN", help="The grown pipeline; or, with --pipeline, one component.", show_default=False
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="What a component by itself trains in: a motion adapter's Stable Diffusion, a transformer's own "
            "pipeline. The component comes out, and not the pipeline.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help='Clips: a folder of videos with .txt captions or a metadata list, a list by itself, "shapes:2-3".',
            show_default=False,
        ),
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder of the run.", show_default=False)] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML with any setting; flags come before it.", show_default=False)
    ] = None,
    what: Annotated[
        Literal["new", "grown-blocks", "all", "lora"] | None,
        typer.Option(
            "--train",
            help="new: what growth.json says is new (default); grown-blocks: the blocks it is in; all; lora.",
            show_default=False,
        ),
    ] = None,
    component: Annotated[
        str | None, typer.Option(help="Which component, where several have grown.", show_default=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps (1000).", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Per process (1).", show_default=False)] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Batches per step (1).", show_default=False)] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Peak (1e-4).", show_default=False)
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Length of clips.", show_default=False)] = None,
    height: Annotated[int | None, typer.Option(min=1, help="In pixels.", show_default=False)] = None,
    width: Annotated[int | None, typer.Option(min=1, help="In pixels.", show_default=False)] = None,
    precision: Annotated[
        Literal["auto", "no", "bf16", "fp16"] | None,
        typer.Option(help="auto: bf16 on a GPU.", show_default=False),
    ] = None,
    quantize: Annotated[
        Literal["none", "torchao-int8", "bitsandbytes-int8", "bitsandbytes-nf4"] | None,
        typer.Option(help="Of linear layers that do not train, while it trains (none).", show_default=False),
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Less memory, more time.", show_default=False)
    ] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Average of the trained parameters (0: none).", show_default=False)
    ] = None,
    cache_trunk: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Suffix growth: K fixed draws per clip, trunk computed once.", show_default=False
        ),
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of clips to measure with and not train on (0).", show_default=False)
    ] = None,
    compile_blocks: Annotated[
        bool | None, typer.Option("--compile", help="torch.compile the repeated blocks.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random (0).", show_default=False)] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps (200).", show_default=False)] = None,
    preview_every: Annotated[int | None, typer.Option(min=0, help="Steps (0: never).", show_default=False)] = None,
    preview: Annotated[
        list[str] | None, typer.Option(help="Prompt of a preview clip; may be repeated.", show_default=False)
    ] = None,
    preview_image: Annotated[
        str | None,
        typer.Option(help="Picture that preview clips start from (a clip's first frame).", show_default=False),
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="tensorboard (default), wandb, trackio, none.", show_default=False)
    ] = None,
    link: Annotated[
        bool | None,
        typer.Option(
            "--link", help="Hard links to the model's files that stay as they are, to save disk.", show_default=False
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; may be repeated.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tune what is new in a grown model, and nothing else (ModelGrow, LLaMA-Pro)."""
    flags = {
        "model": model,
        "pipeline": pipeline,
        "data": data,
        "output": output,
        "train": what,
        "component": component,
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "num_frames": frames,
        "height": height,
        "width": width,
        "precision": precision,
        "quantize": quantize,
        "gradient_checkpointing": gradient_checkpointing,
        "ema_decay": ema_decay,
        "cache_trunk": cache_trunk,
        "held_out": held_out,
        "compile": compile_blocks,
        "seed": seed,
        "save_every": save_every,
        "preview_every": preview_every,
        "previews": preview or None,
        "preview_image": preview_image,
        "tracker": tracker,
        "link": link,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    err = console(stderr=True)
    with err.status("loading torch and diffusers") as status:
        from modelgrow.pipelines.quiet import quiet_libraries

        quiet_libraries()
        from modelgrow.train.run import train as run
        from modelgrow.train.settings import parse_settings, read_settings

        settings = read_settings(config, {**parse_settings(more or []), **given})
        try:
            result = run(
                settings,
                tell=status.update,
                report=lambda progress: status.update(_line(progress)),
                announce=lambda line: err.print(line, highlight=False, markup=False, soft_wrap=True),
            )
        except KeyboardInterrupt:
            err.print(_stopped(settings), highlight=False, markup=False, soft_wrap=True)
            raise
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        _show(result)


def _line(progress: Progress) -> str:
    memory = f"  {size(progress.memory)}" if progress.memory else ""
    held_out = f"  held out {progress.validation:.4f}" if progress.validation is not None else ""
    return (
        f"step {progress.step} of {progress.steps}  loss {progress.loss:.4f}{held_out}  "
        f"lr {progress.learning_rate:.2g}  {progress.samples_per_second:.3g} clips/s{memory}  "
        f"{timedelta(seconds=round(progress.seconds_left))} left"
    )


def _show(result: Result) -> None:
    say = partial(console().print, highlight=False, soft_wrap=True)
    held_out = f"; {result.validation:.4f} on held-out clips" if result.validation is not None else ""
    say(f"{result.steps} steps, {count(result.trained_parameters)} parameters trained; {_losses(result)}{held_out}")
    if result.peak_memory:
        say(f"memory of a step: predicted {size(result.predicted_memory)}, came to {size(result.peak_memory)}")
    if result.changed:
        say(result.changed.sentence)
    lora = result.model / LORA_NAME
    if lora.is_file():
        say(f"LoRA, as diffusers loads it: [bold]{lora}[/bold]")
        return
    say(f"model: [bold]{result.model}[/bold]")
    if result.growth:
        say(f"the growth alone: {result.growth}")
    elif any((result.model / name).exists() for name in ("model_index.json", "config.json")):
        command = f"grow pack {result.model} --base BASE"
        say(f"weights that the base has too have changed: {command} packs the growth")


def _stopped(settings: Settings) -> str:
    """Where a run goes on that was stopped from the keyboard."""
    from modelgrow.train.checkpoints import all_of

    found = all_of(Path(settings.output) / "checkpoints")
    first = f"from the beginning, for its first checkpoint comes at step {settings.save_every}"
    done = f"from step {int(found[-1].name.removeprefix('step-'))}" if found else first
    return f"stopped; the same command goes on {done}"


def _losses(result: Result) -> str:
    if result.first_loss is None or result.last_loss is None:
        return "none was left to do: with more --steps it goes on"
    return f"loss {result.first_loss:.4f} to {result.last_loss:.4f}"
