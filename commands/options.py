"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Ckpt = Annotated[
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

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder to write. Default: named after what was done.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan that would run, and stop.")]
Components = Annotated[
    list[str] | None,
    typer.Option(
        "--component",
        help="Which component of a pipeline; may be repeated. Default: all that can grow.",
        show_default=False,
    ),
]
Stack = Annotated[
    str | None,
    typer.Option(help="Which stack, where a model has several. Default: the main one.", show_default=False),
]
AnatomyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--anatomy",
        exists=True,
        dir_okay=False,
        help="Your own TOML that declares an architecture; may be repeated. See docs/anatomy.md.",
        show_default=False,
    ),
]
Link = Annotated[
    bool,
    typer.Option("--link", help="Hard links to large files that stay as they are, not copies: an edit reaches both."),
]
Checksum = Annotated[bool, typer.Option("--checksum", help="Also write checksums.sha256, for sha256sum -c.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, max=64, help="Threads that move bytes. Default: one per processor, 4 at most.", show_default=False
    ),
]
