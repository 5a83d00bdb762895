"""The example runs as it stands: a tiny Open-Sora put together of pieces, then clips of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from PIL import Image
from tiny_open_sora import open_sora
from typer.main import get_command

from modelgrow.cli import app
from modelgrow.examples.open_sora import main

SIZES = ("--resolution", "144p", "--aspect-ratio", "1:1", "--frames", "18", "--steps", "1")


def frames(path: Path) -> int:
    with Image.open(path) as gif:
        return int(gif.n_frames)  # type: ignore[attr-defined]


def test_the_example_runs(tmp_path: Path) -> None:
    pieces = open_sora()
    for name, part in (("stdit", "transformer"), ("vae", "vae"), ("t5", "text_encoder"), ("t5", "tokenizer")):
        getattr(pieces, part).save_pretrained(tmp_path / name)
    whole = tmp_path / "open-sora"
    others = ("--vae", str(tmp_path / "vae"), "--text-encoder", str(tmp_path / "t5"))
    main([str(tmp_path / "stdit"), "--assemble", str(whole), *others])
    assert (whole / "model_index.json").is_file()

    clip = tmp_path / "clip.gif"
    main([str(whole), "a red circle", *SIZES, "-o", str(clip)])
    assert frames(clip) == 18

    picture = tmp_path / "red.png"
    Image.new("RGB", (60, 40), (220, 30, 10)).save(picture)
    longer = tmp_path / "longer.gif"
    main([str(whole), "a red circle", *SIZES, "--image", str(picture), "--loop", "2", "-o", str(longer)])
    assert frames(longer) == 18 + 18 - 17


def test_the_commands_in_the_docs_parse() -> None:
    text = (Path(__file__).parents[2] / "docs" / "open_sora.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("grow ")]
    assert len(lines) == 5
    for words in (shlex.split(line, comments=True) for line in lines):
        command = get_command(app).commands[words[1]]  # type: ignore[attr-defined]
        assert command.make_context(words[1], list(words[2:])).params
