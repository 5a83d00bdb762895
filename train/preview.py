"""Preview clips from fixed prompts, pictures and seeds: the model as it is, beside what it was before the run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.pipelines.export import Strip, save_clip, write_mp4, write_sheet
from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.parameters import parameters_of

from .families.family import preview_arguments
from .preview_image import IMAGE_NAME, LAST_NAME, preview_controls, preview_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modelgrow.pipelines.generate import Generated

    from .setup import Run


class Previews:
    """Makes `previews/step-00000200-0.mp4` and a contact sheet of all prompts, the base's clips above the run's.

    A model that starts from a picture, or reads control clips, gets the same ones every time, which lie there too.
    One that reads no prompts makes one clip. Where FSDP2 splits the model every process makes the clips, and the main
    one writes them.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.folder: Path = run.folder / "previews"
        self.images = preview_images(run)
        self.controls = preview_controls(run)
        if self.images or self.controls:
            self._write_inputs()
        prompts: tuple[str | None, ...] = run.settings.previews
        self.prompts = prompts if prompts or "prompt" in parameters_of(run.pipeline) else (None,)
        self.base = {prompt: clip.frames for prompt, clip in zip(self.prompts, self._clips(), strict=True)}

    def make(self, step: int) -> None:
        """Write the clips of a step."""
        clips = self._clips()
        if not self.run.accelerator.is_main_process:
            return
        strips = []
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, (prompt, clip) in enumerate(zip(self.prompts, clips, strict=True)):
            path = self.folder / f"step-{step:08d}-{number}.mp4"
            save_clip(clip, path, contact_sheet=False, overwrite=True)
            title = prompt if prompt is not None else IMAGE_NAME
            strips += [
                Strip(title=f"before: {title}", frames=self.base[prompt]),
                Strip(title=f"step {step}: {title}", frames=clip.frames),
            ]
        if self.controls:  # below what was made of them
            strips += [Strip(title=name, frames=frames) for name, frames in self.controls.shown.items()]
        if strips:
            write_sheet(strips, self.folder / f"step-{step:08d}.png", caption=f"step {step}", settings={})

    def _write_inputs(self) -> None:
        if self.run.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            for image in self.images[:1]:
                image.save(self.folder / IMAGE_NAME)
            if self.controls:
                for name, frames in self.controls.frames.items():
                    write_mp4(frames, self.folder / f"{name}.mp4", fps=self.controls.fps, settings={})
        if self.run.is_split:  # else the main process is here alone
            self.run.accelerator.wait_for_everyone()

    def _clips(self) -> list[Generated]:
        """One for each prompt; the text encoder and VAE travel once for all of them."""
        with self.run.parts.all_placed():
            return [self._clip(prompt) for prompt in self.prompts]

    def _clip(self, prompt: str | None) -> Generated:
        settings, parameters = self.run.settings, parameters_of(self.run.pipeline)
        asked = self.controls or settings  # what control clips lie beside is as long and as large as they are
        # Some pipelines make clips of their picture's size, and can't be asked for another.
        size = {name: getattr(asked, name) for name in ("height", "width") if name in parameters}
        options = GenerateOptions(
            prompt=prompt,
            image=str(self.folder / IMAGE_NAME) if self.images else None,
            seed=settings.seed,
            num_frames=asked.num_frames,
            **size,
        )
        extra: dict[str, Any] = {LAST_NAME: self.images[1]} if len(self.images) > 1 else {}
        if self.controls is not None:
            extra |= preview_arguments(self.run.family, self.run.pipeline, self.controls.frames)
        with evaluating(self.run.model), self.run.autocast(), torch.random.fork_rng():
            return generate(self.run.pipeline, options, extra=extra)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
