"""Readings of side effects, and two of them side by side.

The numbers of `editing.readings.side_effects`, kept unit by unit, so that a change is paired: the
same piece of text, the same pair of sentences, the same fact, before and after.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit import stats
from labkit.errors import InputError
from labkit.results.result import Result
from labkit.stats import Estimate

METRICS = {
    "nll": ("nll", "nats per token", "piece of text"),
    "kl": ("kl", "nats per token", "piece of text"),
    "minimal pairs": ("good", "share", "pair"),
    "facts": ("known", "share", "fact"),
    "P(answer)": ("probability", "probability", "fact"),
    "repetition": ("repetition", "share", "opening"),
    "entropy": ("entropy", "bits", "opening"),
    "words": ("words", "words", "opening"),
}
"""By metric: the field of `SideReadings`, its measure, and the unit of its interval."""


@dataclass(frozen=True, kw_only=True)
class SideReadings(Result):
    """The readings of the material in one state of a model.

    Attributes:
        nll: Held-out text, nats per token.
        kl: KL of the unedited model's next token to this state's, nats per token; 0 unedited.
        good: Whether the grammatical sentence of each minimal pair is the likelier one.
        phenomena: The phenomenon of each pair.
        known: Whether the answer of each unrelated fact is the argmax.
        probability: Probability of each fact's answer, 0..1.
        relations: The relation of each fact.
        repetition: Share of repeated n-grams in the free text after each opening, 0..1.
        entropy: n-gram entropy of it, bits.
        words: Its length in words.
        written: The free texts themselves.
    """

    nll: tuple[float, ...]
    kl: tuple[float, ...]
    good: tuple[bool, ...]
    phenomena: tuple[str, ...]
    known: tuple[bool, ...]
    probability: tuple[float, ...]
    relations: tuple[str, ...]
    repetition: tuple[float, ...]
    entropy: tuple[float, ...]
    words: tuple[float, ...]
    written: tuple[str, ...]

    @classmethod
    def none(cls) -> "SideReadings":
        """Readings without any metric."""
        return cls(
            nll=(), kl=(), good=(), phenomena=(), known=(), probability=(), relations=(),
            repetition=(), entropy=(), words=(), written=(),
        )  # fmt: skip

    @property
    def title(self) -> str:
        """What was read, in one line."""
        sizes = (f"{len(self.nll)} pieces of text", f"{len(self.good)} minimal pairs",
                 f"{len(self.known)} facts", f"{len(self.written)} openings")  # fmt: skip
        return f"side effects: {', '.join(sizes)}"

    def values(self, metric: str) -> Float[np.ndarray, " unit"]:
        """One number per unit; empty where the metric was not taken.

        Args:
            metric: A key of `METRICS`.
        """
        if metric not in METRICS:
            raise InputError(f"no metric {metric!r}; there are {', '.join(METRICS)}")
        return np.asarray(getattr(self, METRICS[metric][0]), dtype=float)

    def means(self) -> dict[str, float]:
        """Mean of every metric that was taken: one state as a row of a table of many."""
        return {metric: float(self.values(metric).mean()) for metric in self._taken()}

    def estimate(self, metric: str) -> Estimate | None:
        """A metric with its interval over units; None where it was not taken."""
        values = self.values(metric)
        if not values.size:
            return None
        share = METRICS[metric][1] == "share"
        return stats.share(values) if share else stats.average(values)

    def pairs_by_phenomenon(self) -> pd.DataFrame:
        """One row per phenomenon, and one for all: share, low, high, n (pairs)."""
        named = np.array(self.phenomena, dtype=object)
        won = np.array(self.good, dtype=bool)
        groups = {name: won[named == name] for name in dict.fromkeys(self.phenomena)}
        if self.good:
            groups["all"] = won
        rows = []
        for name, good in groups.items():
            share = stats.proportion(int(good.sum()), len(good))
            rows.append({"phenomenon": name, "share": share.mean, "low": share.low,
                         "high": share.high, "n": share.n})  # fmt: skip
        return pd.DataFrame(rows, columns=["phenomenon", "share", "low", "high", "n"])

    def to_frame(self) -> pd.DataFrame:
        """One row per metric: measure, mean, low, high, n, unit of the interval."""
        rows = []
        for metric in self._taken():
            _, measure, unit = METRICS[metric]
            found = self.estimate(metric)
            assert found is not None
            rows.append({"metric": metric, "measure": measure, **found.to_dict(), "unit": unit})
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """Accuracy on minimal pairs by phenomenon, with intervals."""
        from labkit.plots.editing.side_effects import phenomena_bars

        return phenomena_bars(self.pairs_by_phenomenon(), title=self.title)

    def _taken(self) -> Iterator[str]:
        return (metric for metric in METRICS if self.values(metric).size)


@dataclass(frozen=True, kw_only=True)
class SideComparison(Result):
    """Side effects of an edit: the edited model beside the unedited one.

    Attributes:
        before: The unedited model's readings.
        after: The edited model's, on the same material.
        method: What made the edit, for the title.
        model: Name of the model, for the title.
        notes: What was left out of the material, and why.

    Raises:
        InputError: If the two were not read on the same material.
    """

    before: SideReadings
    after: SideReadings
    method: str = "an edit"
    model: str = "a model"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse readings that cannot be paired."""
        for metric in METRICS:
            sizes = (self.before.values(metric).size, self.after.values(metric).size)
            if sizes[0] != sizes[1]:
                raise InputError(
                    f"{metric}: {sizes[0]} units before and {sizes[1]} after: "
                    "both states have to be read on the same material"
                )

    @property
    def title(self) -> str:
        """Method and model, in one line."""
        return f"Side effects of {self.method} on {self.model}"

    def change(self, metric: str) -> tuple[Estimate, float] | None:
        """Edited minus unedited over paired units, and the p-value of no change.

        Args:
            metric: A key of `METRICS`. For "facts" a change of -0.1 is a tenth forgotten.
        """
        return self._changes.get(metric)

    @cached_property
    def _changes(self) -> dict[str, tuple[Estimate, float]]:
        """Kept, since resampling takes a moment."""
        return {
            metric: stats.paired_difference(self.after.values(metric), self.before.values(metric))
            for metric in METRICS
            if self.before.values(metric).size
        }

    @property
    def forgotten(self) -> Estimate | None:
        """Share of the known unrelated facts that the edited model no longer says."""
        if not self.after.known:
            return None
        return stats.proportion(self.after.known.count(False), len(self.after.known))

    def pairs_by_phenomenon(self) -> pd.DataFrame:
        """Minimal pairs by phenomenon: phenomenon, state, share, low, high, n."""
        states = {"unedited": self.before, "edited": self.after}
        return pd.concat(
            [side.pairs_by_phenomenon().assign(state=state) for state, side in states.items()],
            ignore_index=True,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per metric: unedited, edited, change, low, high, p, n, measure, unit."""
        rows = []
        for metric, (change, p) in self._changes.items():
            _, measure, unit = METRICS[metric]
            rows.append(
                {
                    "metric": metric,
                    "measure": measure,
                    "unedited": float(self.before.values(metric).mean()),
                    "edited": float(self.after.values(metric).mean()),
                    "change": change.mean,
                    "low": change.low,
                    "high": change.high,
                    "p": p,
                    "n": change.n,
                    "unit": unit,
                }
            )
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """The changes with their intervals, one panel per measure, zero marked."""
        from labkit.plots.editing.side_effects import change_intervals

        return change_intervals(self.to_frame(), title=self.title)
