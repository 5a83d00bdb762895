"""What a run says of itself before its first step, in lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .room import room_of

if TYPE_CHECKING:
    from .data.report import DataReport
    from .loop import Loop
    from .memory import Memory

SHOWN = 5
"""Clips that were refused and are named."""


def about_data(data: DataReport) -> list[str]:
    """What is trained on, in lines; what is not, and why."""
    sizes = ", ".join(f"{b.clips} of {b.num_frames} x {b.height} x {b.width}" for b in data.buckets)
    clips = f"{data.clips} clip{'s' * (data.clips > 1)}"
    lines = [f"{data.name}: {clips} ({sizes}), {data.frames_used:.0%} of their frames are trained on"]
    lines += [control.sentence for control in data.controls]
    lines += [f"left out: {refused.name}: {refused.reason}" for refused in data.refused[:SHOWN]]
    if len(data.refused) > SHOWN:
        lines.append(f"and {len(data.refused) - SHOWN} more, all in data.json")
    return lines


def about_run(loop: Loop, memory: Memory) -> list[str]:
    """What trains, in how much memory and room, from where on."""
    run = loop.run
    lines = [f"{run.num_trained:,} parameters train; {memory.sentence}", room_of(run).sentence]
    if run.quantized:
        lines.append(run.quantized.sentence)
    if loop.step:
        lines.append(f"going on from step {loop.step} of {run.settings.steps}")
    return lines
