"""An edit's readings, unedited beside edited: the table from which all displays are made.

`Audit` compares one edit prompt by prompt, `Evaluation` a method case by case. They differ
in what an interval is over, and share what is shown: the table, the bars, and the summary
in JSON.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import pandas as pd

from editing.readings.asking import METRICS, MORE_METRICS, READINGS
from labkit.results.measured import Measured
from labkit.stats import Estimate

STATES = {"before": "unedited", "after": "edited"}
NAMES = {
    "success": "success",
    "accuracy": "argmax accuracy",
    "generation": "generation",
    "drift": "drift",
}
SHARES = (*METRICS, *MORE_METRICS, "score")
"""What lies in 0..1. Beside these the generation has "fluency", in bits, and the drift
"essence", the KL from the unedited model in nats."""


class Comparison(Measured):
    """Base of the results that compare an edited model with the unedited one.

    Attributes:
        unit: What the intervals of the readings are over.
    """

    unit: ClassVar[str]

    @property
    def text_units(self) -> dict[str, str]:
        """What each interval on held-out text is over, by its key in `metrics`."""
        raise NotImplementedError

    def estimate(self, state: str, reading: str, metric: str) -> Estimate | None:
        """One number with its interval; None where it was not taken.

        Args:
            state: "before" (unedited) or "after" (edited).
            reading: One of `editing.readings.asking.READINGS`, or "drift".
            metric: One of `SHARES`; "fluency" of the generation, "essence" of the drift.
        """
        raise NotImplementedError

    def nll(self, state: str) -> Estimate:
        """Negative log-likelihood of held-out text, in nats per token."""
        raise NotImplementedError

    @property
    def nll_change(self) -> Estimate:
        """Edited minus unedited, the same text paired, in nats per token."""
        raise NotImplementedError

    def perplexity(self, state: str) -> Estimate:
        """Perplexity on held-out text: `exp` of `nll`, and of the ends of its interval, if any."""
        nll = self.nll(state)
        return Estimate(math.exp(nll.mean), math.exp(nll.low), math.exp(nll.high), nll.n)

    def estimates(self) -> Iterator[tuple[str, str, dict[str, Estimate]]]:
        """Every reading and metric that was taken, with its estimates by shown state."""
        for reading in (*READINGS, "drift"):
            for metric in ("essence",) if reading == "drift" else (*SHARES, "fluency"):
                found = {
                    shown: estimate
                    for state, shown in STATES.items()
                    if (estimate := self.estimate(state, reading, metric)) is not None
                }
                if len(found) == len(STATES):
                    yield reading, metric, found

    def table(self) -> pd.DataFrame:
        """One row per reading and metric: the estimates `unedited` and `edited`, and their `n`."""
        return pd.DataFrame(
            {"reading": NAMES[reading], "metric": metric, **found, "n": found["edited"].n}
            for reading, metric, found in self.estimates()
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per reading, share and state (unedited, edited): mean, low, high, n."""
        return pd.DataFrame(
            {"reading": NAMES[reading], "metric": metric, "state": state, **estimate.to_dict()}
            for reading, metric, found in self.estimates()
            if metric in SHARES
            for state, estimate in found.items()
        )

    def figure(self) -> Any:
        """Bars with intervals, unedited beside edited, one panel per reading."""
        from labkit.plots import metrics_bars

        return metrics_bars(self.to_frame(), title=self.title)

    def metrics(self) -> dict[str, Any]:
        """The numbers, JSON-ready: the edited model's by reading, the others `unedited`."""
        summary: dict[str, Any] = {"unit of intervals": self.unit, "unedited": {}}
        for reading, metric, found in self.estimates():
            for state, place in (("unedited", summary["unedited"]), ("edited", summary)):
                place.setdefault(reading, {})[metric] = found[state].to_dict()
        summary["perplexity"] = {
            **{shown: self.perplexity(state).to_dict() for state, shown in STATES.items()},
            "change_in_nats_per_token": self.nll_change.to_dict(),
            "unit of intervals": self.text_units,
        }
        return summary
