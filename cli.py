"""The `grow` command: parses, calls one library function, renders. No logic.

Heavy imports (torch, diffusers, transformers) stay inside the commands that need them, so that
help and completion answer at once.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from modelgrow.examples.demo import DemoResult
    from modelgrow.surgery import Job, Plan, SourceReport

if __spec__ is None or __spec__.name != "modelgrow.cli":
    raise ImportError("run 'pip install -e .' in the clone, then 'grow', or 'python -m modelgrow.cli'")

app = typer.Typer(
    name="grow",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Grow video diffusion models: change a checkpoint so that it computes the same function with more room in "
        "it, and load the result where you already load models.\n\n"
        "CKPT is a pipeline folder, a component folder, a .safetensors file with its config.json, or a Hub id."
    ),
    epilog=(
        "Start with [bold]grow demo[/bold]. Then, with a model of yours: [bold]grow inspect[/bold], "
        "[bold]grow expand[/bold], [bold]grow verify[/bold]."
    ),
)

CKPT = Annotated[
    str,
    typer.Argument(
        metavar="CKPT", help="Pipeline or component folder, .safetensors file, or Hub id.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Config = Annotated[
    Path | None, typer.Option(help="config.json of a single file that has none beside it.", show_default=False)
]
Variant = Annotated[str | None, typer.Option(help="Weights variant, such as fp16.", show_default=False)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Device = Annotated[str, typer.Option(help="Where to run: auto, cpu, cuda, cuda:1, mps.")]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("modelgrow"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The help text is in `app`."""


@app.command(epilog="Example:  [bold]grow inspect Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]")
def inspect(
    ckpt: CKPT, as_json: AsJson = False, config: Config = None, variant: Variant = None, revision: Revision = None
) -> None:
    """Show what a checkpoint is, what can grow in it, and what has grown."""
    from modelgrow.surgery import inspect as look
    from modelgrow.surgery import open_source

    report = look(open_source(ckpt, config=config, variant=variant, revision=revision))
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        _show_report(report)


@app.command(
    epilog=(
        "Examples:\n\n"
        "  [bold]grow expand --mode suffix --blocks 8 Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]\n\n"
        "  [bold]grow expand --mode insert ./CogVideoX-2b -o ./CogVideoX-2b-deep[/bold]\n\n"
        "  [bold]grow expand --mode insert --group 5 ./CogVideoX-2b --dry-run[/bold]"
    )
)
def expand(
    ckpt: CKPT,
    mode: Annotated[
        Literal["insert", "prefix", "suffix"],
        typer.Option(
            help="Where the new blocks go: into the stack after every group, before it, or after it.",
            show_default=False,
        ),
    ],
    blocks: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="P",
            show_default=False,
            help="How many new blocks. Default: insert doubles the depth; prefix and suffix add a quarter.",
        ),
    ] = None,
    group: Annotated[
        int | None,
        typer.Option(min=1, metavar="M", help="insert: copies follow every M-th block.", show_default=False),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="Which stack, where a model has several.", show_default=False)
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(
            help="Which component of a pipeline; may be repeated. Default: all that can grow.", show_default=False
        ),
    ] = None,
    init: Annotated[
        Literal["zero", "copy"],
        typer.Option(help="zero keeps the function; copy does not: the new blocks act from the start."),
    ] = "zero",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write. Default: named after what was done.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan that would run, and stop.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    config: Config = None,
    variant: Variant = None,
    revision: Revision = None,
) -> None:
    """Duplicate transformer blocks: same function, more depth (ModelGrow)."""
    from modelgrow.surgery import ExpandOptions, default_output, open_source, plan_expand, prepare

    options = ExpandOptions(mode=mode, blocks=blocks, group=group, stack=stack, init=init)
    source = open_source(ckpt, config=config, variant=variant, revision=revision)
    job = prepare(
        source, lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, options), components=component or ()
    )
    target = output or default_output(job)
    if dry_run:
        _show_plan(job, target, as_json=as_json)
        return
    _execute(job, target, overwrite=overwrite)
    if as_json:
        print(json.dumps({"output": str(target), **_outline(job)}, indent=2))
    else:
        _show_done(job, target, ckpt)


@app.command(
    epilog=(
        "Example:  [bold]grow verify ./Wan2.1-T2V-1.3B-suffix8 --base Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]\n\n"
        "Exit code 0 only if every output is exactly equal."
    )
)
def verify(
    grown: Annotated[str, typer.Argument(metavar="GROWN", help="The grown model.", show_default=False)],
    base: Annotated[str, typer.Option(metavar="CKPT", help="What it was grown from.", show_default=False)],
    draws: Annotated[int, typer.Option(min=1, help="How many random inputs to try.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first input.")] = 0,
    dtype: Annotated[Dtype, typer.Option(help="auto: float32, or the stored dtype where memory is short.")] = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Run a grown model and its base on the same random inputs: is it the same function?"""
    console = _console(stderr=True)
    with console.status("loading torch and diffusers") as status:
        _quiet_libraries()
        from modelgrow.pipelines.verify import verify as run

        report = run(grown, base, draws=draws, seed=seed, dtype=dtype, device=device, report=status.update)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        for verdict in report.components:
            style = "green" if verdict.is_identical else "bold red"
            _console().print(
                f"{verdict.name + ': ' if verdict.name else ''}{verdict.sentence}", style=style, markup=False
            )
            for promise in (verdict.promises or ())[1:10]:
                _console().print(f"  {promise}", markup=False)
    if not report.is_identical:
        raise typer.Exit(1)


@app.command(
    epilog=(
        "Examples:\n\n"
        '  [bold]grow generate --prompt "a red circle moves right"[/bold]\n\n'
        '  [bold]grow generate --prompt "a cat on a skateboard" --model ./Wan2.1-T2V-1.3B-Diffusers-suffix8 '
        "--frames 81 -o cat.mp4[/bold]"
    )
)
def generate(
    prompt: Annotated[str, typer.Option(help="What the clip should show.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="Any diffusers text-to-video pipeline. Default: the tiny model of moving shapes that comes along.",
            show_default=False,
        ),
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What it should not show.", show_default=False)] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Length in frames.", show_default=False)] = None,
    height: Annotated[int | None, typer.Option(min=1, help="In pixels.", show_default=False)] = None,
    width: Annotated[int | None, typer.Option(min=1, help="In pixels.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.", show_default=False)] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="The same seed and settings give the same clip.")] = 0,
    fps: Annotated[int | None, typer.Option(min=1, help="Frames per second of the file.", show_default=False)] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=".mp4, .gif or .png (contact sheet). Default: named after the prompt.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[Dtype, typer.Option(help="auto: bfloat16 on a GPU, float32 on a CPU.")] = "auto",
    offload: Annotated[
        Literal["model", "sequential"] | None,
        typer.Option(help="Keep weights in main memory and move them as they are needed.", show_default=False),
    ] = None,
    variant: Variant = None,
    revision: Revision = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a clip from a prompt; settings and a contact sheet are stored beside it.

    What is not given comes from the model's own generation.json, or else from its pipeline's defaults.
    """
    console = _console(stderr=True)
    target = output or Path(f"{_slug(prompt)}-{seed}.mp4")
    with console.status("loading torch and diffusers") as status:
        _quiet_libraries()
        from modelgrow.pipelines.export import check_target, save_clip
        from modelgrow.pipelines.generate import GenerateOptions
        from modelgrow.pipelines.generate import generate as run
        from modelgrow.pipelines.load import load_pipeline

        check_target(target, overwrite=overwrite)
        status.update("loading the pipeline")
        pipeline = load_pipeline(model, device=device, dtype=dtype, variant=variant, revision=revision, offload=offload)
    options = GenerateOptions(
        prompt=prompt,
        negative_prompt=negative_prompt,
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
        fps=fps,
    )
    with _progress("denoising") as advance:
        clip = run(pipeline, options, progress=advance)
    files = save_clip(clip, target, overwrite=overwrite)
    if as_json:
        print(json.dumps({"files": [str(path) for path in files], "settings": dict(clip.settings)}, indent=2))
    else:
        for path in files:
            _console().print(str(path), markup=False, highlight=False)


@app.command(epilog="Example:  [bold]grow demo -o grow-demo[/bold]")
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for clips and the grown pipeline.")] = Path(
        "grow-demo"
    ),
    prompt: Annotated[
        str, typer.Option(help="Shapes, colors and motions that the tiny model knows.")
    ] = "a red circle moves right",
    seed: Annotated[int, typer.Option(help="Seed of both clips.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """See it work, with no download: generate, grow, verify, generate again: the same clip, to the bit."""
    console = _console(stderr=True)
    with console.status("loading torch and diffusers") as status:
        _quiet_libraries()
        from modelgrow.examples.demo import run_demo

        result = run_demo(output, prompt=prompt, seed=seed, overwrite=overwrite, report=status.update)
    _show_demo(result)
    if not result.identical:
        raise typer.Exit(1)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, moved by calls of (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _execute(job: Job, output: Path, *, overwrite: bool) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from modelgrow.surgery import execute

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as progress:
        total = 2 * sum(plan.num_bytes for plan in job.plans.values())
        task = progress.add_task("writing and comparing", total=total)
        execute(job, output, overwrite=overwrite, progress=lambda count: progress.advance(task, count))


def _outline(job: Job) -> dict[str, Any]:
    """A plan's JSON without the list of its tensors."""
    data = job.to_json()
    for plan in data["plans"].values():
        del plan["tensors"]
    return data


def _show_report(report: SourceReport) -> None:
    from rich.table import Table

    console = _console()
    console.print(f"[bold]{_escape(report.name)}[/bold]" + (f"  ({report.pipeline})" if report.pipeline else ""))
    for part in report.components:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        if part.parameters is not None and part.num_bytes is not None:
            kinds = ", ".join(part.dtypes)
            table.add_row("parameters", f"{_count(part.parameters)}, {_size(part.num_bytes)}, {kinds}")
        for stack in part.stacks:
            counted = f", counted by {stack.count_key}" if stack.count_key else ""
            each = _count(stack.parameters_per_block)
            table.add_row("stack", f"{_escape(stack.name)}: {stack.depth} blocks of {each}{counted}")
        if part.text:
            table.add_row("text", part.text)
        if part.frames:
            table.add_row("frames", part.frames)
        if part.family or part.growable:
            table.add_row("known as", str(part.family))
        for line in part.history:
            table.add_row("history", _escape(line))
        table.add_row("[green]can grow[/green]" if part.growable else "can't grow", _escape(part.advice))
        console.print(f"\n[cyan]{part.name + ': ' if part.name else ''}{part.class_name}[/cyan]")
        console.print(table)


def _show_plan(job: Job, output: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"output": str(output), **job.to_json()}, indent=2))
        return
    from rich.table import Table

    from modelgrow.surgery import Copy

    console = _console()
    for name, plan in job.plans.items():
        _show_outline(name, plan)
        table = Table("tensor", "dtype", "shape", "content", box=None, header_style="bold")
        kept = 0
        for tensor in plan.tensors:
            content = tensor.content
            if isinstance(content, Copy) and content.source == tensor.name:
                kept += 1
                continue
            what = content.source if isinstance(content, Copy) else type(content).__name__.lower()
            shape = "x".join(map(str, tensor.shape))
            table.add_row(tensor.name, tensor.dtype, shape, what, style="green" if tensor.is_new else "yellow")
        console.print(table, soft_wrap=True)
        console.print(f"and {kept} tensors as they are; green is new, yellow is renumbered", style="dim")
    console.print(
        f"\nwould write {_size(job.num_bytes)} to {output}. [bold]Nothing was written.[/bold]", highlight=False
    )


def _show_outline(name: str, plan: Plan) -> None:
    console = _console()
    title = f"{name}: {plan.class_name}" if name else plan.class_name
    options = " ".join(f"{key}={value}" for key, value in plan.options.items())
    console.print(f"[cyan]{title}[/cyan]  {plan.operation} {options}", highlight=False)
    for key, value in plan.config_edits.items():
        console.print(f"  config: {key} = {value}", highlight=False)
    for stack, copies in plan.copied_from.items():
        new = ", ".join(f"{place} (of {source})" for place, source in copies.items())
        console.print(f"  {stack}: new blocks {new}; {_count(plan.num_new_parameters)} new parameters", highlight=False)
    for note in plan.notes:
        console.print(f"  [yellow]{note}[/yellow]")


def _show_done(job: Job, output: Path, base: str) -> None:
    for name, plan in job.plans.items():
        _show_outline(name, plan)
    console = _console()
    console.print(f"\nwritten: [bold]{_escape(str(output))}[/bold]", highlight=False, soft_wrap=True)
    console.print(f"prove it: grow verify {output} --base {base}", markup=False, highlight=False, soft_wrap=True)


def _show_demo(result: DemoResult) -> None:
    from rich.table import Table

    table = Table("", "base", "grown", title=f'"{result.prompt}"')
    for label, base, grown in result.rows:
        table.add_row(label, base, grown)
    console = _console()
    console.print(table)
    style = "bold green" if result.identical else "bold red"
    console.print(result.sentence, style=style, markup=False)
    for path in result.paths:
        console.print(f"  {path}", markup=False, highlight=False)


def _count(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _size(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "clip"


def _quiet_libraries() -> None:
    """Loading bars and advice of libraries would break into ours; warnings and errors still show."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1" if not sys.stderr.isatty() else "0")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _fail(message: str) -> NoReturn:
    _console(stderr=True).print(f"[bold red]error:[/bold red] {_escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def main() -> None:
    """Entry point. A user's mistake is one message and exit code 1 (2 for usage), never a traceback."""
    from modelgrow.surgery.errors import GrowError

    try:
        app()
    except GrowError as error:
        _fail(str(error))


if __name__ == "__main__":
    main()
