"""A comparison of methods as a self-contained page."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from editing.evaluation.method_comparison import MethodComparison
from editing.readings.asking import EXPLAINED
from editing.readings.comparison import SHARES
from labkit.results.report import Report
from labkit.stats import Estimate, smallest_p


def report(found: MethodComparison, environment: Mapping[str, Any] | None = None) -> Report:
    """The page: figures, the table by reading, tests, collapse, side effects, failures.

    Args:
        found: The comparison.
        environment: The environment that it ran in (`labkit.results.result.environment`).
    """
    page = Report(found.title)
    page.paragraph(
        f"{', '.join(found.methods)} on {found.n_cases} cases with {found.model}. "
        "Intervals are 95 %; a case's prompts are averaged first. An edit that failed counts "
        "with the readings of the model that it left as it was."
    )
    page.heading("In short")
    for line in found.verdict:
        page.paragraph(f"{line}.")
    page.heading("What is reached, and what is spared")
    metrics = set(found.table.loc[found.table["reading"] == "success", "metric"])
    if {"paraphrase", "neighbourhood"} <= metrics:
        page.figure(found.figure())
    else:
        page.paragraph("The cases have no paraphrases or no neighbours to set side by side.")
    page.figure(found.metrics_figure())
    page.heading("The numbers")
    measured = {*found.table["metric"], *found.table["reading"]}
    page.terms({name: words for name, words in EXPLAINED.items() if name in measured})
    for reading in dict.fromkeys(found.table["reading"]):
        page.table(_by_method(found, reading), caption=f"{reading}: {_unit(found, reading)}")
    page.heading("Do the methods differ")
    page.paragraph(
        "Paired over the same cases (pieces of text for the text): mean difference first minus "
        "second with its interval, p of a sign-flip permutation test, and p corrected by Holm's "
        "method over the pairs of one metric. Pairs with a corrected p of at most 0.05:"
    )
    fewest = int(found.tests["n"].min()) if len(found.tests) else 0
    if fewest and (least := smallest_p(fewest)) > 0.05:
        page.paragraph(
            f"Some pairs share {fewest} unit(s) only. With so few the test cannot give a p below "
            f"{least:.3g}, whatever the difference: that none is listed says nothing of them."
        )
    tests = found.tests[found.tests["p_holm"] <= 0.05]
    if len(tests):
        page.table(_with_estimates(tests), caption="Differences, corrected p at most 0.05")
    else:
        page.paragraph("None.")
    for name, curve in found.collapse.items():
        if len(curve.points) > 1:
            page.heading(f"{name}: edits adding up")
            page.figure(curve.figure())
            page.table(curve.warnings(), caption="Signs, and whether they came before the fall")
    for name, effects in found.side_effects.items():
        page.heading(f"{name}: side effects")
        page.figure(effects.figure())
        page.table(effects.to_frame(), caption="Edited minus unedited, paired over units")
    if found.failed:
        page.heading("What failed")
        rows = [
            {"method": name, "case": case, "error": error}
            for name, errors in found.failed.items()
            for case, error in errors.items()
        ]
        page.table(pd.DataFrame(rows), caption="Edits that failed; * is the method altogether")
    page.heading("How it was made")
    return page.facts({"methods": found.configs, "environment": dict(environment or {})})


def _by_method(found: MethodComparison, reading: str) -> pd.DataFrame:
    """One row per method, one column per metric of one reading."""
    rows = found.table[found.table["reading"] == reading]
    metrics = [m for m in SHARES if m in set(rows["metric"])]
    metrics += [m for m in dict.fromkeys(rows["metric"]) if m not in metrics]
    columns: dict[str, Any] = {
        metric: _column(rows[rows["metric"] == metric]) for metric in metrics
    }
    if reading == "cost":  # seconds, which have no interval
        columns = {m: {name: one.mean for name, one in own.items()} for m, own in columns.items()}
    return pd.DataFrame(columns, index=list(dict.fromkeys(rows["method"]))).rename_axis("method")


def _column(rows: pd.DataFrame) -> dict[str, Estimate]:
    return {row["method"]: Estimate.from_dict(row) for row in rows.to_dict(orient="records")}


def _unit(found: MethodComparison, reading: str) -> str:
    """What the intervals of one reading are over, and how many there are."""
    rows = found.table[found.table["reading"] == reading]
    units = rows.groupby("unit", sort=False)["n"].agg(["min", "max"])
    told = (
        f"{unit}, n={low}" if low == high else f"{unit}, n={low} to {high}"
        for unit, low, high in units.itertuples()
    )
    if reading == "cost":
        return "; ".join(told)
    return f"mean [interval over: {'; '.join(told)}]"


def _with_estimates(tests: pd.DataFrame) -> pd.DataFrame:
    """Differences and their intervals in one column."""
    columns = {"difference": "mean", "low": "low", "high": "high", "n": "n"}
    found = [
        Estimate.from_dict({ours: row[theirs] for theirs, ours in columns.items()})
        for row in tests.to_dict(orient="records")
    ]
    kept = tests.drop(columns=["difference", "low", "high"]).assign(difference=found)
    return kept[["reading", "metric", "first", "second", "difference", "n", "p", "p_holm"]]
