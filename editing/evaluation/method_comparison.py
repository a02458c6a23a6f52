"""Several methods on the same cases: one table, and paired tests of which of two was better.

The unedited model is a row of the table like any method. A test is paired: the same case,
edited by two methods. Among many pairs of methods some differ by chance, so that p-values
are corrected by Holm's method, over the pairs that are compared on one metric.
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from editing.evaluation.evaluation_result import HOW
from editing.readings.collapse import CollapseCurve
from editing.readings.side_effects_result import SideComparison
from labkit.results.measured import Measured
from labkit.stats import Estimate

UNEDITED = "unedited"

VERDICT = (
    ("argmax accuracy", "efficacy", "the edited prompt says the new object in"),
    ("argmax accuracy", "paraphrase", "other words for it in"),
    ("success", "neighbourhood", "neighbours keep their own in"),
    ("success", "attribute", "subjects that have the new object in truth keep it in"),
    ("success", "distractor", "neighbours asked right after the edited sentence keep theirs in"),
    ("text", "perplexity", "perplexity of other text"),
)
"""Reading, metric and words of a verdict, in its order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodComparison(Measured):
    """The results of several methods on the same cases.

    Attributes:
        table: One row per method, reading and metric: `method, reading, metric, mean, low,
            high, n, unit`, the unit being what the interval is over. The seconds per edit are
            the median, lowest and highest.
        tests: One row per reading, metric and pair of methods; see `paired_tests`.
        failed: By method and case, the error that an edit failed with; under the name "*" the error
            that ended the whole method, which then has no row in the table.
        collapse: By method, its collapse curve; of the sequential protocol.
        side_effects: By method, its side effects on the final state, if measured.
        configs: By method, its class under "method" and its fields.
        protocol: "single", "batch" or "sequential".
        n_cases: Number of cases.

    Metrics, of each of the three readings (`success`: the new object is likelier than the old one;
    `argmax`: it is the likeliest word; `generation`: it occurs in free text): `efficacy`, after
    the rewrite's own prompt; `paraphrase`, after other words for it; `neighbourhood`, of other
    subjects that should keep their object; `attribute`, of subjects that have the new object in
    truth; `distractor`, after a neighbour's prompt with the rewrite in front; `score`, the
    harmonic mean of the first three. The row "unedited" is the model before any edit.
    """

    table: pd.DataFrame
    tests: pd.DataFrame
    failed: dict[str, dict[str, str]]
    collapse: dict[str, CollapseCurve]
    side_effects: dict[str, SideComparison]
    configs: dict[str, dict[str, Any]]
    protocol: str
    n_cases: int

    @property
    def title(self) -> str:
        """How many methods, on what."""
        who = ", ".join(self.configs)
        cases = f"{self.n_cases} case{'s' * (self.n_cases > 1)}"
        return f"{who} on {self.model}: {cases}, {HOW[self.protocol]}"

    @property
    def methods(self) -> list[str]:
        """The methods that have readings, in the order given."""
        return [name for name in dict.fromkeys(self.table["method"]) if name != UNEDITED]

    def to_frame(self) -> pd.DataFrame:
        """The table; see the class."""
        return self.table

    def wide(self) -> pd.DataFrame:
        """One row per reading and metric and one column per method, all `Estimate`s.

        `.loc["success"]` is one reading. What a method has no number for is empty.
        """
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.table.to_dict(orient="records"):
            rows.setdefault((row["reading"], row["metric"]), {})[row["method"]] = (
                Estimate.from_dict(row)
            )
        index = pd.MultiIndex.from_tuples(rows, names=["reading", "metric"])
        methods = [UNEDITED, *self.methods]
        cells = [[found.get(method, "") for method in methods] for found in rows.values()]
        return pd.DataFrame(cells, index=index, columns=methods)

    @property
    def verdict(self) -> tuple[str, ...]:
        """Did it take, did it carry over, what broke: one line per method, means over cases."""
        lines = []
        for method in self.methods:
            said = [
                f"{what} {self._mean(method, reading, metric)}{self._before(reading, metric)}"
                for reading, metric, what in VERDICT
                if self.estimate(method, reading, metric) is not None
            ]
            lines.append(f"{method}: {'; '.join(said)}")
        if all(self.estimate(name, "success", "paraphrase") is None for name in self.methods):
            lines.append("other words: not asked, the cases have no paraphrases")
        failed = {name: len(errors) for name, errors in self.failed.items() if errors}
        lines += [f"{name}: {n} edit(s) failed" for name, n in failed.items()]
        return tuple(lines)

    def _mean(self, method: str, reading: str, metric: str) -> str:
        """A number of the table without its interval: a share in percent."""
        estimate = self.estimate(method, reading, metric)
        mean = math.nan if estimate is None else estimate.mean
        return f"{mean:.4g}" if reading == "text" else f"{mean:.0%}"

    def _before(self, reading: str, metric: str) -> str:
        """The same of the unedited model, for what should stay as it is."""
        if metric in ("efficacy", "paraphrase"):
            return ""
        return f" (unedited {self._mean(UNEDITED, reading, metric)})"

    def estimate(self, method: str, reading: str, metric: str) -> Estimate | None:
        """One number of the table; None where it was not taken."""
        rows = self.table
        for column, wanted in (("method", method), ("reading", reading), ("metric", metric)):
            rows = rows[rows[column] == wanted]
        return Estimate.from_dict(rows.iloc[0].to_dict()) if len(rows) else None

    def figure(self) -> Any:
        """Neighbourhood against paraphrase success: what an edit reaches, and what it spares."""
        from labkit.plots import reach_and_spare

        return reach_and_spare(self.table, title=self.title, unedited=UNEDITED)

    def metrics_figure(self) -> Any:
        """Every share with its interval, one panel per metric, one row per method."""
        from labkit.plots import method_intervals

        return method_intervals(self.table, title=self.title)

    def metrics(self) -> dict[str, Any]:
        """The summary that `labkit evaluate --json` writes."""
        return {
            "n": self.n_cases,
            "protocol": self.protocol,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "methods": self.configs,
            "failed": self.failed,
            "table": self.table.to_dict(orient="records"),
            "tests": self.tests.to_dict(orient="records"),
            "collapse": {name: curve.metrics() for name, curve in self.collapse.items()},
            "side_effects": {
                name: effects.to_frame().to_dict(orient="records")
                for name, effects in self.side_effects.items()
            },
        }
