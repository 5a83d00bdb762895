"""Preview clips from fixed prompts and seeds: the model as it is, beside what it was before the first step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.pipelines.export import Strip, save_clip, write_sheet
from modelgrow.pipelines.generate import GenerateOptions, generate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .setup import Run


class Previews:
    """Makes `previews/step-00000200-0.mp4` and a contact sheet of all prompts, the base's clips above the run's.

    Where FSDP2 splits the model every process makes the clips, and the main one writes them.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.folder: Path = run.folder / "previews"
        self.base = {prompt: self._clip(prompt).frames for prompt in run.settings.previews}

    def make(self, step: int) -> None:
        """Write the clips of a step."""
        clips = [self._clip(prompt) for prompt in self.run.settings.previews]
        if not self.run.accelerator.is_main_process:
            return
        strips = []
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, (prompt, clip) in enumerate(zip(self.run.settings.previews, clips, strict=True)):
            path = self.folder / f"step-{step:08d}-{number}.mp4"
            save_clip(clip, path, contact_sheet=False, overwrite=True)
            strips += [
                Strip(title=f"before: {prompt}", frames=self.base[prompt]),
                Strip(title=f"step {step}: {prompt}", frames=clip.frames),
            ]
        if strips:
            write_sheet(strips, self.folder / f"step-{step:08d}.png", caption=f"step {step}", settings={})

    def _clip(self, prompt: str) -> Any:
        settings = self.run.settings
        options = GenerateOptions(
            prompt=prompt,
            seed=settings.seed,
            num_frames=settings.num_frames,
            height=settings.height,
            width=settings.width,
        )
        with evaluating(self.run.model), self.run.accelerator.autocast(), torch.random.fork_rng():
            return generate(self.run.pipeline, options)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
