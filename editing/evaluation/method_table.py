"""Evaluations of several methods as one table, with the paired tests between them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from editing.evaluation.evaluation_result import Evaluation
from editing.evaluation.method_comparison import UNEDITED, MethodComparison
from editing.evaluation.pairs import paired_tests
from editing.readings.comparison import NAMES
from editing.readings.side_effects_result import METRICS as SIDE_METRICS
from labkit import stats
from labkit.results.measured import measured_on
from labkit.stats import Estimate

SECONDS = {
    "median": "seconds per edit",
    "low": "seconds of the fastest edit",
    "high": "seconds of the slowest edit",
}
SIDE_SHARES = ("minimal pairs", "facts")
"""Side effects that are shares of something."""


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
        collapse={
            name: replace(found.collapse, method=name)
            for name, found in evaluations.items()
            if found.collapse is not None
        },
        side_effects={
            name: replace(found.side_effects, method=name)
            for name, found in evaluations.items()
            if found.side_effects is not None
        },
        configs={name: {"method": e.method, **e.config} for name, e in evaluations.items()},
        protocol=first.protocol,
        n_cases=len(first.records),
        **measured_on(first),
    )


def _rows(name: str, found: Evaluation, state: str) -> Iterator[dict[str, Any]]:
    """The rows of one method, or of the unedited model."""

    def row(reading: str, metric: str, estimate: Estimate, unit: str) -> dict[str, Any]:
        named = {"method": name, "reading": reading, "metric": metric}
        return {**named, **estimate.to_dict(), "unit": unit}

    for reading, metric, states in found.estimates():
        shown = states["unedited" if state == "before" else "edited"]
        yield row(NAMES[reading], metric, shown, found.unit)
    if found.portability is not None:
        for reading, reading_name in NAMES.items():
            for metric in found.portability.metrics:
                asked = {metric: state}
                if state == "before":
                    asked[f"{metric}, of the truth"] = "control"
                for named, of in asked.items():
                    share = found.portability.estimate(of, reading, metric)
                    if share is not None:
                        yield row(reading_name, named, share, found.unit)
    unit = found.text_units["unedited" if state == "before" else "edited"]
    yield row("text", "perplexity", found.perplexity(state), unit)
    if state == "after":
        yield row("text", "change, nats per token", found.nll_change, unit)
        yield row("text", "KL, nats per token", found.kl, unit)
    yield from _side_rows(row, found, state)
    if state == "after":
        seconds = found.seconds()
        for which, value in seconds.items():
            exact = Estimate.exact(value, len(found.records))
            yield row("cost", SECONDS[which], exact, "case (median, least and most; no interval)")


def _side_rows(row: Any, found: Evaluation, state: str) -> Iterator[dict[str, Any]]:
    """Side effects: of the final state over their own units, of single edits over cases."""
    if found.side_effects is not None:
        readings = found.side_effects.before if state == "before" else found.side_effects.after
        for metric in readings.means():
            average = stats.share if metric in SIDE_SHARES else stats.average
            estimate = average(readings.values(metric))
            yield row("side effects", metric, estimate, SIDE_METRICS[metric][2])
        return
    means = [r["side_effects"][state] for r in found.records if "side_effects" in r]
    for metric in means[0] if means else ():
        estimate = stats.average([one[metric] for one in means])
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
    for reading, metric in _portable(first):
        values = {
            name: {
                case.case_id: getattr(case, state)[reading][metric]
                for case in e.portability.cases
                if metric in getattr(case, state).get(reading, {})
            }
            for name, e, state in (
                (UNEDITED, first, "before"),
                *((name, e, "after") for name, e in evaluations.items()),
            )
            if e.portability is not None
        }
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


def _portable(found: Evaluation) -> Iterator[tuple[str, str]]:
    """The readings and metrics of portability that were taken."""
    if found.portability is not None:
        for reading in NAMES:
            for metric in found.portability.metrics:
                if found.portability.estimate("after", reading, metric) is not None:
                    yield reading, metric
