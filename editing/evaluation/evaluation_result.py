"""The results of an evaluation: one method over many cases, compared with the unedited model."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from editing.readings.asking import METRICS
from editing.readings.collapse import CollapseCurve
from editing.readings.comparison import SHARES, Comparison
from editing.readings.portability_result import Carried, Portability
from editing.readings.side_effects_result import SideComparison
from labkit import stats
from labkit.running.reading import PIECE
from labkit.stats import Estimate

HOW = {
    "single": "each edited alone",
    "batch": "all edited in one call, read after it",
    "sequential": "edited one after another, read after the last",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Comparison):
    """The results of evaluating a method on some cases.

    A failed edit leaves the model unedited, and is read like that: it counts in every mean.

    Attributes:
        records: One per case: `case_id`, `rewrite`, `before` and `after` (readings), `seconds`
            of the edit, `failed` (the error in words, or null), `edit` (numbers that the
            method reports), `portability` (null, or `before`, `after`, `control` and `n`: see
            `editing.readings.portability_result.Carried`); in the single protocol also
            `nll_after` and `kl` (held-out text under the edited model, means over pieces) and, if
            measured, `side_effects` (means by metric, `before` and `after`).
        protocol: "single", "batch" or "sequential".
        chunk: Rewrites per call of the sequential protocol.
        nll_before: Held-out text under the unedited model, nats per token, by piece.
        nll_after: The same on the final state; None in the single protocol.
        kl_after: KL of the next token from the unedited model on the final state, in nats per
            token, by piece; None in the single protocol.
        collapse: The curve over the number of edits; None in the single protocol.
        side_effects: Side effects of the final state, if they were measured; those of single
            edits are in the records, means by metric.
        method: Name of the method.
        config: Its fields.
        seed: Seed of the intervals.
    """

    unit: ClassVar[str] = "case"

    records: tuple[dict[str, Any], ...]
    protocol: str = "single"
    chunk: int = 1
    nll_before: Float[np.ndarray, " piece"]
    nll_after: Float[np.ndarray, " piece"] | None = None
    kl_after: Float[np.ndarray, " piece"] | None = None
    collapse: CollapseCurve | None = None
    side_effects: SideComparison | None = None
    method: str
    config: dict[str, Any]
    seed: int

    @property
    def title(self) -> str:
        """Method, model, number of cases and protocol, in one line."""
        return f"{self.method} on {self.model}: {len(self.records)} cases, {HOW[self.protocol]}"

    @property
    def text_units(self) -> dict[str, str]:
        """What each interval on held-out text is over."""
        edited = PIECE if self.nll_after is not None else "case (mean over the same text)"
        states = dict.fromkeys(("edited", "change_in_nats_per_token", "kl_to_unedited"), edited)
        return {"unedited": PIECE, **states}

    @property
    def failures(self) -> dict[str, str]:
        """By case, the error that its edit failed with."""
        return {r["case_id"]: r["failed"] for r in self.records if r.get("failed")}

    def estimate(self, state: str, reading: str, metric: str) -> Estimate | None:
        """Mean over cases with its interval; None where no case has such a prompt."""
        if metric == "score":
            return self._score(state, reading)
        values = self.values(state, reading, metric)
        if not values:
            return None
        return stats.share(values) if metric in SHARES else stats.average(values)

    def values(self, state: str, reading: str, metric: str) -> list[float]:
        """One number per case, for the cases that have it."""
        return list(self.by_case(state, reading, metric).values())

    def by_case(self, state: str, reading: str, metric: str) -> dict[str, float]:
        """One number per case by its id, for the cases that have it."""
        found = {r["case_id"]: r[state].get(reading, {}).get(metric) for r in self.records}
        return {case_id: value for case_id, value in found.items() if value is not None}

    def _score(self, state: str, reading: str) -> Estimate | None:
        """Harmonic mean of the three metrics, its interval by the jackknife over cases.

        There is no interval where a metric is 0 in all cases, and the score therefore 0.
        """
        rows = [
            [record[state].get(reading, {}).get(metric) for metric in METRICS]
            for record in self.records
        ]
        array = np.array([row for row in rows if None not in row], dtype=float)
        if not len(array):
            return None
        value, n = _harmonic(array.mean(axis=0)), len(array)
        if n == 1:
            return Estimate.exact(value)
        without = (array.sum(axis=0) - array) / (n - 1)
        return stats.jackknife(value, [_harmonic(row) for row in without], within=(0.0, 1.0))

    def text_values(self, quantity: str) -> list[float]:
        """Held-out text under the edited model, one number per case or (final state) a piece.

        Args:
            quantity: "nll" (nats per token) or "kl" (from the unedited model).
        """
        final = self.nll_after if quantity == "nll" else self.kl_after
        if final is not None:
            return final.tolist()
        return [record[{"nll": "nll_after", "kl": "kl"}[quantity]] for record in self.records]

    def nll(self, state: str) -> Estimate:
        """Nats per token of held-out text: see `text_units` for what the interval is over."""
        values = self.nll_before if state == "before" else self.text_values("nll")
        return stats.average(values)

    @property
    def nll_change(self) -> Estimate:
        """Edited minus unedited, in nats per token, on the same text.

        On a final state paired over pieces. In the single protocol over cases: differences between
        the texts cancel, and the interval shows how much the edits differ.
        """
        after = self.text_values("nll")
        before = (
            self.nll_before
            if self.nll_after is not None
            else np.full(len(after), self.nll_before.mean())
        )
        return stats.paired_difference(after, before, seed=self.seed)[0]

    @property
    def kl(self) -> Estimate:
        """KL of the next token on held-out text, unedited to edited, in nats per token."""
        return stats.average(self.text_values("kl"))

    @cached_property
    def portability(self) -> Portability | None:
        """Consequences of the rewrites; None if they were not measured."""
        carried = tuple(
            Carried(case_id=r["case_id"], **r["portability"])
            for r in self.records
            if r.get("portability")
        )
        if not carried:
            return None
        return Portability(cases=carried, method=self.method, model=self.model, seed=self.seed)

    def seconds(self) -> dict[str, float]:
        """Seconds per edit: median, low and high over cases (a call's divided among its cases)."""
        seconds = [record["seconds"] for record in self.records]
        return {"median": statistics.median(seconds), "low": min(seconds), "high": max(seconds)}

    def metrics(self) -> dict[str, Any]:
        """The summary that `labkit evaluate --json` writes."""
        summary = {
            "n": len(self.records),
            "protocol": self.protocol,
            "chunk": self.chunk,
            "failed": len(self.failures),
            **super().metrics(),
            "seconds_per_edit": self.seconds(),
            "method": self.method,
            "config": self.config,
            "model": self.model,
            "fingerprint": self.fingerprint,
        }
        summary["perplexity"]["kl_to_unedited"] = self.kl.to_dict()
        if self.portability is not None:
            summary["portability"] = self.portability.to_frame().to_dict(orient="records")
        if self.side_effects is not None:
            summary["side_effects"] = self.side_effects.to_frame().to_dict(orient="records")
        if self.collapse is not None:
            summary["collapse"] = self.collapse.metrics()
        return summary


def _harmonic(values: Sequence[float] | np.ndarray) -> float:
    """Harmonic mean; 0 if one of the values is."""
    array = np.asarray(values, dtype=float)
    return float(len(array) / (1 / array).sum()) if (array > 0).all() else 0.0
