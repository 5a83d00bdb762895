"""The `grow` command: every command is a file in `commands/`, and an error of ours is one message.

Heavy imports (torch, diffusers, transformers) stay inside the functions that need them, so that
help and completion answer at once.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, NoReturn

import typer

if __spec__ is None or __spec__.name != "modelgrow.cli":
    raise ImportError("run 'pip install -e .' in the clone, then 'grow', or 'python -m modelgrow.cli'")

from modelgrow.commands import (
    apply,
    attach_llm,
    demo,
    expand,
    extend_frames,
    generate,
    inspect,
    pack,
    remap_lora,
    shrink,
    train,
    verify,
)
from modelgrow.commands.console import console, escape

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

for _module in (
    inspect,
    expand,
    attach_llm,
    extend_frames,
    verify,
    shrink,
    pack,
    apply,
    remap_lora,
    train,
    generate,
    demo,
):
    _name = _module.__name__.rpartition(".")[2]
    app.command(_name.replace("_", "-"), epilog=_module.EPILOG)(getattr(_module, _name))


def _print_version(wanted: bool) -> None:
    if wanted:
        from modelgrow.surgery.job import made_with

        print(made_with().removeprefix("modelgrow "))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The help text is in `app`."""


def _fail(message: str) -> NoReturn:
    console(stderr=True).print(f"[bold red]error:[/bold red] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def _at_home(word: str) -> str:
    """A path from ~, where the shell has left it so: in --output=~/grown, or in quotes."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value)}" if value.startswith("~/") else word


def main() -> None:
    """Entry point. A user's mistake is one message and exit code 1 (2 for usage), never a traceback."""
    from modelgrow.surgery.errors import GrowError

    try:
        app([_at_home(word) for word in sys.argv[1:]])
    except GrowError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _fail(f"{error.filename or 'the output'}: can't be written: {error.strerror}")


if __name__ == "__main__":
    main()
