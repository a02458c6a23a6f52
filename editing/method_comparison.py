"""Several methods on the same cases: one table, paired tests, and which of two was better.

The unedited model is a row of the table like any method. A test is paired: the same case,
edited by two methods. Among many pairs of methods some differ by chance, so that p-values
are corrected by Holm's method, over the pairs that are compared on one metric.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from editing.collapse import CollapseCurve
from editing.comparison import NAMES
from editing.evaluation_result import HOW, Evaluation, measured
from editing.paired_tests import paired_tests
from editing.side_effects_result import SideComparison
from labkit import stats
from labkit.results import Result
from labkit.stats import Estimate

UNEDITED = "unedited"
SIDE_SHARES = ("minimal pairs", "facts")


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodComparison(Result):
    """What several methods did to the same cases.

    Attributes:
        table: One row a method, reading and metric: `method, reading, metric, mean, low,
            high, n, unit`, the unit being what the interval is over. The seconds an edit are
            the median, lowest and highest.
        tests: One row a reading, metric and pair of methods; see `paired_tests`.
        failed: By method and case, the error that ended an edit; under the name "*" the error
            that ended the method altogether, which then has no row in the table.
        collapse: By method, its collapse curve; of the sequential protocol.
        side_effects: By method, its side effects on the final state, if measured.
        configs: By method, its class under "method" and its fields.
        protocol: "single", "batch" or "sequential".
        n_cases: Number of cases.
        model: Name of the model.
        fingerprint: Fingerprint of the model.
    """

    table: pd.DataFrame
    tests: pd.DataFrame
    failed: dict[str, dict[str, str]]
    collapse: dict[str, CollapseCurve]
    side_effects: dict[str, SideComparison]
    configs: dict[str, dict[str, Any]]
    protocol: str
    n_cases: int
    model: str
    fingerprint: str

    @property
    def title(self) -> str:
        """How many methods, on what."""
        who = ", ".join(self.configs)
        return f"{who} on {self.model}: {self.n_cases} cases, {HOW[self.protocol]}"

    @property
    def methods(self) -> list[str]:
        """The methods that have readings, in the order given."""
        return [name for name in dict.fromkeys(self.table["method"]) if name != UNEDITED]

    def to_frame(self) -> pd.DataFrame:
        """The table; see the class."""
        return self.table

    def wide(self) -> pd.DataFrame:
        """A row a method and a column a reading and metric, each an `Estimate`: for reading."""
        columns: dict[str, dict[str, Estimate]] = {}
        for row in self.table.to_dict(orient="records"):
            column = f"{row['metric']}, {row['reading']}" if row["reading"] else row["metric"]
            columns.setdefault(column, {})[row["method"]] = Estimate.from_dict(row)
        frame = pd.DataFrame(columns, index=[UNEDITED, *self.methods])
        return frame.rename_axis("method")

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
        """Every share with its interval, a panel a metric, a row a method."""
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
            "collapse": {
                name: {
                    "points": curve.to_frame().to_dict(orient="records"),
                    "warnings": curve.warnings().to_dict(orient="records"),
                }
                for name, curve in self.collapse.items()
            },
            "side_effects": {
                name: effects.to_frame().to_dict(orient="records")
                for name, effects in self.side_effects.items()
            },
        }


def compared(
    evaluations: Mapping[str, Evaluation], *, ended: Mapping[str, str] | None = None, seed: int = 0
) -> MethodComparison:
    """Evaluations of several methods as one comparison.

    Args:
        evaluations: By name of the method, its evaluation of the same cases by one protocol;
            at least one.
        ended: By name, the error that ended a method that has no evaluation.
        seed: Seed of intervals and permutations.
    """
    first = next(iter(evaluations.values()))
    table = [*_rows(UNEDITED, first, "before")]
    for name, found in evaluations.items():
        table += _rows(name, found, "after")
    failed = {name: found.failures for name, found in evaluations.items() if found.failures}
    return MethodComparison(
        table=pd.DataFrame(table),
        tests=_tests(evaluations, seed),
        failed=failed | {name: {"*": error} for name, error in (ended or {}).items()},
        collapse={name: e.collapse for name, e in evaluations.items() if e.collapse is not None},
        side_effects={
            name: e.side_effects for name, e in evaluations.items() if e.side_effects is not None
        },
        configs={name: {"method": e.method, **e.config} for name, e in evaluations.items()},
        protocol=first.protocol,
        n_cases=len(first.records),
        model=first.model,
        fingerprint=first.fingerprint,
    )


def _rows(name: str, found: Evaluation, state: str) -> Iterator[dict[str, Any]]:
    """The rows of one method, or of the unedited model."""

    def row(reading: str, metric: str, estimate: Estimate, unit: str) -> dict[str, Any]:
        named = {"method": name, "reading": reading, "metric": metric}
        return {**named, **estimate.to_dict(), "unit": unit}

    for reading, metric, states in found.estimates():
        shown = states["unedited" if state == "before" else "edited"]
        yield row(NAMES[reading], metric, shown, found.unit)
    unit = found.text_units["unedited" if state == "before" else "edited"]
    yield row("text", "perplexity", found.perplexity(state), unit)
    if state == "after":
        yield row("text", "change, nats per token", found.nll_change, unit)
        yield row("text", "KL, nats per token", found.kl, unit)
    yield from _side_rows(row, found, state)
    if state == "after":
        seconds = found.seconds()
        spread = Estimate(seconds["median"], seconds["low"], seconds["high"], len(found.records))
        yield row("cost", "seconds per edit", spread, "case (median, lowest, highest)")


def _side_rows(row: Any, found: Evaluation, state: str) -> Iterator[dict[str, Any]]:
    """Side effects: of the final state over their own units, of single edits over cases."""
    if found.side_effects is not None:
        readings = found.side_effects.before if state == "before" else found.side_effects.after
        for line in readings.to_frame().to_dict(orient="records"):
            average = stats.bootstrap if line["metric"] in SIDE_SHARES else measured
            estimate = average(readings.values(line["metric"]), seed=found.seed)
            yield row("side effects", line["metric"], estimate, line["unit"])
        return
    means = [r["side_effects"][state] for r in found.records if "side_effects" in r]
    for metric in means[0] if means else ():
        estimate = measured([one[metric] for one in means], seed=found.seed)
        yield row("side effects", metric, estimate, found.unit)


def _tests(evaluations: Mapping[str, Evaluation], seed: int) -> pd.DataFrame:
    """Paired tests of every pair of methods, the unedited model among them, metric by metric."""
    first = next(iter(evaluations.values()))
    frames = []
    for reading, metric, _ in first.estimates():
        if metric == "score":  # a harmonic mean of means: it has no value of one case
            continue
        values = {UNEDITED: first.by_case("before", reading, metric)}
        values |= {name: e.by_case("after", reading, metric) for name, e in evaluations.items()}
        found = paired_tests(values, seed=seed)
        frames.append(found.assign(reading=NAMES[reading], metric=metric))
    for metric, key in (("nats per token", "nll"), ("KL, nats per token", "kl")):
        values = {
            name: {str(unit): value for unit, value in enumerate(e.text_values(key))}
            for name, e in evaluations.items()
        }
        frames.append(paired_tests(values, seed=seed).assign(reading="text", metric=metric))
    joined = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    return joined[["reading", "metric", *(c for c in joined if c not in ("reading", "metric"))]]
