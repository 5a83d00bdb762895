"""What a verification found, in numbers and in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ComponentVerdict:
    """One component's comparison. Differences are of outputs, absolute, in float32."""

    name: str
    class_name: str
    dtype: str
    draws: int
    max_difference: float | None
    """None where no inputs are known for the class, so that outputs were not run."""
    output_scale: float
    """The base's largest absolute output, to read `max_difference` against."""
    promises: tuple[str, ...] | None
    """What the growth record promises and the file does not hold; None without a record."""

    @property
    def is_identical(self) -> bool:
        return self.max_difference == 0.0 and not self.promises

    @property
    def sentence(self) -> str:
        if self.max_difference is None:
            found = self.promises[0] if self.promises else "every base weight is in place and every zero is zero"
            return f"Not proven the same: no inputs are known for {self.class_name}, so it was not run; {found}."
        what = f"{self.class_name}, {self.draws} random input{'s' * (self.draws > 1)} in {self.dtype}"
        if self.max_difference != 0.0:
            return (
                f"NOT the same function: outputs differ by up to {self.max_difference:.3g} "
                f"where the base's reach {self.output_scale:.3g} ({what})."
            )
        if self.promises:
            return (
                f"Not proven the same: outputs are equal on {what}, but {self.promises[0]}"
                + (f", and {len(self.promises) - 1} more" if len(self.promises) > 1 else "")
                + "."
            )
        proof = "no growth.json to check the weights by" if self.promises is None else "every base weight in place"
        return f"The same function: every output is equal to the last bit ({what}; {proof})."


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """All compared components."""

    components: tuple[ComponentVerdict, ...]

    @property
    def is_identical(self) -> bool:
        return all(verdict.is_identical for verdict in self.components)

    @property
    def max_difference(self) -> float:
        return max(verdict.max_difference or 0.0 for verdict in self.components)

    @property
    def sentence(self) -> str:
        worst = [verdict for verdict in self.components if not verdict.is_identical]
        return (worst or list(self.components))[0].sentence

    def to_json(self) -> dict[str, Any]:
        return {
            "identical": self.is_identical,
            "max_difference": self.max_difference,
            "components": [
                {
                    "name": verdict.name,
                    "class": verdict.class_name,
                    "dtype": verdict.dtype,
                    "draws": verdict.draws,
                    "identical": verdict.is_identical,
                    "max_difference": verdict.max_difference,
                    "output_scale": verdict.output_scale,
                    "broken_promises": None if verdict.promises is None else list(verdict.promises),
                    "sentence": verdict.sentence,
                }
                for verdict in self.components
            ],
        }
