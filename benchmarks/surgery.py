"""How fast `grow expand` is, beside `cp`, beside loading everything, and beside mergekit where it is installed.

    python benchmarks/surgery.py --gb 3.9

It makes its checkpoints in a temporary folder on the disk of --folder (about four times --gb) and
removes them. Everything is measured in one go and in turn, because a machine's speed changes: read
the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import checkpoints
from measuring import Cost, Filler, Sample, measure, warm

GROUP = 4
GROW = (sys.executable, "-m", "modelgrow.cli", "expand")
FLOOR = "cp -r of the output's bytes"


@dataclass(kw_only=True)
class Row:
    """A command and what it cost in every round. `{out}` in it is the folder that it makes."""

    name: str
    command: Sequence[str]
    reads: Path
    samples: list[Sample] = field(default_factory=list)

    @property
    def cost(self) -> Cost:
        return Cost(samples=tuple(self.samples))

    def run(self, output: Path) -> None:
        self.samples.append(measure([part.replace("{out}", str(output)) for part in self.command]))
        if output.is_dir():
            shutil.rmtree(output)


def rows_of(base: Path, same: Path, llama: Path | None, mergekit: str | None) -> list[Row]:
    insert = (*GROW, str(base), "--mode", "insert", "--group", str(GROUP))
    suffix = (*GROW, str(base), "--mode", "suffix")
    to = ("-o", "{out}")
    rows = [
        Row(name=FLOOR, command=("cp", "-r", str(same), "{out}"), reads=same),
        Row(
            name="the same, and sync",
            command=("sh", "-c", f"cp -r '{same}' '{{out}}' && sync -f '{{out}}'"),
            reads=same,
        ),
        Row(name="grow, insert", command=(*insert, *to), reads=base),
        Row(name="grow, insert, 1 worker", command=(*insert, *to, "--workers", "1"), reads=base),
        Row(name="grow, insert, --checksum", command=(*insert, *to, "--checksum"), reads=base),
        Row(name="grow, suffix", command=(*suffix, *to), reads=base),
        Row(name="grow, suffix, --link", command=(*suffix, *to, "--link"), reads=base),
        Row(name="grow, insert, --dry-run", command=(*insert, "--dry-run"), reads=base),
        Row(name="load everything", command=_loading(base), reads=base),
    ]
    if mergekit and llama:
        rows.append(
            Row(
                name="mergekit",
                command=(mergekit, str(llama / "grow.yaml"), "{out}", "--out-shard-size", "1B"),
                reads=llama,
            )
        )
    return rows


def _loading(base: Path) -> Sequence[str]:
    return (sys.executable, str(Path(__file__).with_name("load_everything.py")), str(base), "{out}", str(GROUP))


def recipe(llama: Path, depth: int) -> str:
    """mergekit's own way to the same growth: slices, and copies scaled by zero."""
    lines = ["slices:"]
    scale = "{parameters: {scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.0}, {value: 1.0}]}}"
    for start in range(0, depth, GROUP):
        end = start + GROUP
        lines.append(f"  - sources: [{{model: {llama}, layer_range: [{start}, {end}]}}]")
        one = f"model: {llama}, layer_range: [{end - 1}, {end}], {scale[1:-1]}"
        lines.append(f"  - sources: [{{{one}}}]")
    return "\n".join([*lines, "merge_method: passthrough", "dtype: bfloat16", ""])


def measure_rows(rows: Sequence[Row], work: Path, rounds: int, *, fill: bool) -> None:
    filler = Filler(work)
    for number in range(rounds):
        for row in rows:
            if fill:
                filler.fill()
            for _ in range(2):  # what is read twice stays in memory when new files need room there
                warm(row.reads)
            row.run(work / "out")
            print(f"round {number + 1}: {row.name}: {row.samples[-1].wall:.2f} s", file=sys.stderr)


def table(rows: Sequence[Row]) -> str:
    floor = rows[0].cost
    lines = ["| | x cp | wall s | best s | CPU s | peak MB | of it own MB |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        cost = row.cost
        lines.append(
            f"| {row.name} | {cost.wall / floor.wall:.2f} | {cost.wall:.2f} | {cost.best:.2f} | {cost.cpu:.2f} "
            f"| {cost.peak / 1e6:.0f} | {cost.anonymous / 1e6:.0f} |"
        )
    return "\n".join(lines)


@contextmanager
def xfs(folder: Path, num_bytes: int) -> Iterator[Path]:
    """A filesystem that clones, in a file. Raises `RuntimeError` with the reason where one may not be made."""
    for tool in ("mkfs.xfs", "mount", "umount"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is not installed")
    image, place = folder / "image", folder / "xfs"
    with image.open("wb") as file:
        file.truncate(max(num_bytes, 400 << 20))
    place.mkdir()
    for command in (["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} is not allowed here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        image.unlink()


def measure_clones(base: Path, work: Path, rounds: int) -> str:
    """The same growth where blocks can be shared."""
    size = sum(path.stat().st_size for path in base.iterdir())
    with xfs(work, int(1.3 * size)) as place:
        shutil.copytree(base, place / "base")
        subprocess.run(["sync", "-f", str(place)], check=True)
        insert = (*GROW, str(place / "base"), "--mode", "insert", "--group", str(GROUP))
        rows = [
            Row(name="grow, insert, on XFS", command=(*insert, "-o", "{out}"), reads=place / "base"),
            Row(name="start-up and plan alone", command=(*insert, "--dry-run"), reads=base),
        ]
        taken = 0
        for _ in range(rounds):
            before = shutil.disk_usage(place).used
            rows[0].samples.append(measure([part.replace("{out}", str(place / "out")) for part in rows[0].command]))
            subprocess.run(["sync", "-f", str(place)], check=True)
            taken = max(taken, shutil.disk_usage(place).used - before)
            shutil.rmtree(place / "out")
            rows[1].run(place / "out")
        lines = [f"{row.name}: {row.cost.wall:.2f} s, {row.cost.peak / 1e6:.0f} MB" for row in rows]
        return "\n".join([*lines, f"room taken: {taken / 1e6:.1f} MB for {size / 1e9:.1f} GB and more"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=3.9, help="size of the checkpoint (default: 3.9)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything runs (default: 3)")
    parser.add_argument("--folder", type=Path, default=Path(), help="whose disk to measure (default: here)")
    parser.add_argument("--mergekit", default=shutil.which("mergekit-yaml"), help="where mergekit-yaml is")
    parser.add_argument("--no-fill", action="store_true", help="do not fill free memory with cache before each run")
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--only", default="", help="just rows with one of these words, between commas, and the floor")
    options = parser.parse_args()
    if options.mergekit and shutil.which(options.mergekit) is None:
        parser.error(f"--mergekit {options.mergekit}: no such program")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="surgery-benchmark-") as name:
        work = Path(name).resolve()
        base, same, llama = work / "base", work / "same", work / "llama"
        depth = checkpoints.wan(base, options.gb * 1e9)
        size = sum(path.stat().st_size for path in base.iterdir())
        checkpoints.dense(same, int(size * (1 + 1 / GROUP)))
        if options.mergekit:
            (llama / "grow.yaml").write_text(recipe(llama, checkpoints.llama(llama, options.gb * 1e9)))
        words = options.only.split(",")
        rows = [
            row
            for row in rows_of(base, same, llama, options.mergekit)
            if row.name == FLOOR or any(word in row.name for word in words)
        ]
        os.sync()
        measure_rows(rows, work, options.rounds, fill=not options.no_fill)
        print(f"\n{depth} blocks, {size / 1e9:.2f} GB in, {size * (1 + 1 / GROUP) / 1e9:.2f} GB out\n\n{table(rows)}\n")
        if not options.mergekit:
            print("mergekit: not measured, it is not installed (pip install mergekit, or --mergekit PATH)")
        for folder in (same, llama):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            print(measure_clones(base, work, options.rounds))
        except RuntimeError as error:
            print(f"clones: not measured, {error}")
        if options.json:
            report = [{"name": row.name, "command": list(row.command), **_numbers(row.cost)} for row in rows]
            options.json.write_text(json.dumps({"bytes_in": size, "rows": report}, indent=2) + "\n")


def _numbers(cost: Cost) -> dict[str, object]:
    return {"wall": cost.wall, "best": cost.best, "cpu": cost.cpu, "peak": cost.peak, **asdict(cost)}


if __name__ == "__main__":
    main()
