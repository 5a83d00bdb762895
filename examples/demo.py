"""`grow demo`: the whole idea in minutes, with nothing to download.

The foundation makes a clip. It is grown by half its depth, the two are verified to be the same function,
and the grown one makes the clip again from the same seed: the same, to the bit. Then what is new learns to
draw two and three objects, see `learn`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modelgrow.pipelines.export import Strip, save_clip, write_gif, write_sheet
from modelgrow.pipelines.foundation import foundation_path
from modelgrow.pipelines.generate import Generated, GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.verify import verify
from modelgrow.surgery import ExpandOptions, execute, inspect, open_source, plan_expand, prepare
from modelgrow.surgery.staging import staged

from .learn import PROMPTS, STEPS, learn
from .read_model import SEED
from .shapes.captions import motion_phrase
from .shapes.reader import read_clip

if TYPE_CHECKING:
    from modelgrow.pipelines.verdict import VerifyReport

    from .learn import Learned

PROMPT = "a red circle moves right"
GROWTH = ExpandOptions(mode="insert", blocks=3)
"""As ModelGrow does it: new blocks between the old ones, here after every second."""
GROWN, RUN, LEARNED = "grown-pipeline", "run", "learned.png"

_ROOM = 8_000_000
"""Bytes that the clips and the contact sheet fit into."""


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What came out. `rows`: what is compared, the base's, the grown model's."""

    prompt: str
    rows: tuple[tuple[str, str, str], ...]
    identical: bool
    sentence: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models, and the clip it made."""

    name: str
    blocks: int
    parameters: int
    num_bytes: int
    clip: Generated
    seconds: float
    """Of CPU time, which a busy machine does not stretch."""

    @property
    def title(self) -> str:
        return f"{self.name}, {self.blocks} blocks"


def run_demo(
    output: Path,
    *,
    prompt: str = PROMPT,
    seed: int = 0,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> DemoResult:
    """Run it, on one thread of the CPU in float32, and leave everything in one folder.

    Args:
        output: The folder to make: base.mp4 and .gif, grown.mp4 and .gif, their settings, comparison.png, and
            the grown pipeline.
        prompt: What the clips should show.
        seed: Of both clips.
        overwrite: Replace `output` if it exists.
        report: Told what is going on, a line each.

    Raises:
        GrowError: The output exists, or a step failed. That the clips differ is no error, but `identical` false.
    """
    foundation = foundation_path()
    room = _ROOM + 2 * sum(path.stat().st_size for path in foundation.rglob("*") if path.is_file())
    options = GenerateOptions(prompt=prompt, seed=seed)
    with _one_thread(), staged(output, inputs=[foundation], num_bytes=room, overwrite=overwrite) as work:
        base = _make("base", foundation, options, report)
        report(f"growing it by {GROWTH.blocks} blocks ({GROWTH.mode})")
        job = prepare(
            open_source(str(foundation)), lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, GROWTH)
        )
        folder = execute(job, work / GROWN)
        verdict = verify(folder, foundation, report=report)
        grown = _make("grown", folder, options, report)
        grown = _under_final_name(grown, output / GROWN)
        report("writing the clips")
        names = _save(base, grown, work, prompt)
    identical, sentence = _judge(base, grown, verdict)
    return DemoResult(
        prompt=prompt,
        rows=_rows(base, grown),
        identical=identical,
        sentence=sentence,
        paths=tuple(output / name for name in (*names, GROWN)),
    )


def teach(
    output: Path,
    *,
    seed: int = 0,
    steps: int = STEPS,
    prompts: int = PROMPTS,
    workers: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Learned, tuple[Path, ...]]:
    """Train what `run_demo` has grown in `output`, and measure what came of it.

    Returns what was learned, and what is new in the folder: learned.png, and the run's model and growth.

    Args:
        output: Where `run_demo` left the grown pipeline.
        seed: Of the training.
        steps, prompts, workers, report: See `learn`.

    Raises:
        GrowError: See `learn`.
    """
    options: dict[str, Any] = {"steps": steps, "prompts": prompts, "seed": seed, "workers": workers}
    with _one_thread():
        learned = learn(output / GROWN, foundation_path(), output / RUN, report=report, **options)
    _draw(learned, output / LEARNED)
    growth = () if learned.run.growth is None else (learned.run.growth,)
    return learned, (output / LEARNED, learned.run.model, *growth)


def _draw(learned: Learned, path: Path) -> None:
    """The first prompt of each kind: the base's clip, and below it the trained model's."""
    strips = [
        Strip(title=title, frames=clip)
        for prompt, *clips in learned.pairs
        for title, clip in zip((prompt, "the same, after training"), clips, strict=True)
    ]
    settings = {"training": learned.settings.to_json(), "prompts": learned.prompts, "noise": SEED}
    write_sheet(strips, path, caption=f"the base, and after {learned.run.steps} steps", settings=settings)


@contextmanager
def _one_thread() -> Iterator[None]:
    """For so small a model threads cost more than they bring, and on a busy machine a hundred times more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make(name: str, folder: Path, options: GenerateOptions, report: Callable[[str], None]) -> Side:
    report(f"{name}: loading")
    pipeline = load_pipeline(folder, device="cpu", dtype="float32")
    generate(pipeline, replace(options, num_inference_steps=1))  # the first steps are slow, whichever model takes them
    start = time.process_time()
    clip = generate(pipeline, options, progress=lambda done, total: report(f"{name}: step {done} of {total}"))
    seconds = time.process_time() - start
    part = next(part for part in inspect(open_source(str(folder))).components if part.growable)
    return Side(
        name=name,
        blocks=part.stacks[0].depth,
        parameters=part.parameters or 0,
        num_bytes=part.num_bytes or 0,
        clip=clip,
        seconds=seconds,
    )


def _under_final_name(side: Side, folder: Path) -> Side:
    """The clip's settings must not name the folder it was made in, which is gone when they are read."""
    return replace(side, clip=replace(side.clip, settings={**side.clip.settings, "model": str(folder)}))


def _save(base: Side, grown: Side, work: Path, prompt: str) -> list[str]:
    names = []
    for side in (base, grown):
        clip = side.clip
        save_clip(clip, work / f"{side.name}.mp4", contact_sheet=False)
        write_gif(clip.frames, work / f"{side.name}.gif", fps=clip.fps, settings=clip.settings)
        names += [f"{side.name}.mp4", f"{side.name}.gif"]
    strips = [Strip(title=side.title, frames=side.clip.frames) for side in (base, grown)]
    settings = {side.name: dict(side.clip.settings) for side in (base, grown)}
    write_sheet(strips, work / "comparison.png", caption=prompt, settings=settings)
    return [*names, "comparison.png"]


def _judge(base: Side, grown: Side, verdict: VerifyReport) -> tuple[bool, str]:
    first, second = base.clip, grown.clip
    if not np.array_equal(first.frames, second.frames):
        share = (first.frames != second.frames).mean()
        return False, f"The clips differ in {share:.1%} of their pixels' values. {verdict.sentence}"
    if first.settings["frames_sha256"] != second.settings["frames_sha256"]:
        return False, f"The clips look the same, but differ before rounding. {verdict.sentence}"
    if not verdict.is_identical:
        return False, f"The clips are the same, but the models are not. {verdict.sentence}"
    return True, f"The same clip from the same seed, to the bit. {verdict.sentence}"


def _rows(base: Side, grown: Side) -> tuple[tuple[str, str, str], ...]:
    def row(label: str, show: Callable[[Side], str]) -> tuple[str, str, str]:
        return label, show(base), show(grown)

    return (
        row("transformer blocks", lambda side: str(side.blocks)),
        row("its parameters", lambda side: f"{side.parameters:,}"),
        row("its weights", lambda side: f"{side.num_bytes / 1e6:.2f} MB"),
        row("the reader sees", lambda side: _describe(side.clip.frames)),
        row("CPU seconds", lambda side: f"{side.seconds:.1f}"),
        row("SHA-256 of the frames", lambda side: str(side.clip.settings["frames_sha256"])[:16]),
    )


def _describe(frames: np.ndarray) -> str:
    objects = read_clip(frames).objects
    return ", ".join(f"a {o.color} {o.shape} {motion_phrase(o.motion)}" for o in objects) or "nothing it can name"
