"""The map of many probes, written up: its numbers, the order of its tasks, a report."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from labkit.errors import InputError
from labkit.results.report import Report
from labkit.results.runs import RunDirectory
from labkit.stats.estimate import Estimate
from probes.probing.map_result import ProbeMap

TABLES = {
    "Best depth of each task": [
        "family",
        "measure",
        "best depth",
        "score",
        "baseline",
        "baseline is",
    ],
    "Controls at that depth": ["embedding", "random weights", "selectivity", "compression", "n"],
    "Where a task lies, in depths": ["arrival", "gravity", "expected depth"],
}
"""Columns of the summary by table: what a page has room for."""


def keep_map(found: ProbeMap, run: RunDirectory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write numbers and report of a map into its run directory.

    Args:
        found: The map.
        run: Where `metrics.json` and `report.html` go.

    Returns:
        The summary, as it stands in `metrics.json`; and the test of the order of the tasks by
        each of three measures, or under "none" why there is none.
    """
    orders = {measure: _order(found, measure) for measure in ("arrival", "gravity", "expected")}
    summary = {
        "title": found.title,
        "tasks": found.summary().to_dict("records"),
        "order": orders,
        "cells": found.to_frame().to_dict("records"),
        "out": str(run.path),
    }
    run.write_metrics(summary)
    page = Report(found.title).figure(found.figure())
    table = _shown(found)
    for what, names in TABLES.items():
        page.table(table[["task", *names]], caption=f"{what}, 95 % intervals over groups")
    for measure, order in orders.items():
        page.paragraph(f"{measure}: {order_in_words(order)}")
    for each in found.probes:
        page.heading(each.task, level=3).figure(each.figure())
    run.write_text("report.html", page.html())
    return summary, orders


def _order(found: ProbeMap, measure: str) -> dict[str, Any]:
    """The test of the order, or why there is none."""
    try:
        return asdict(found.order(measure))
    except InputError as reason:
        return {"none": str(reason)}


def order_in_words(order: dict[str, Any]) -> str:
    """The test of an order, as `keep_map` returns it, in words."""
    if "none" in order:
        return order["none"]
    difference = Estimate.from_dict(order["difference"])
    return (
        f"factual tasks lie {difference:+.2f} depths above the linguistic ones, "
        f"p = {order['p']:.3f} "
        f"({len(order['lower'])} and {len(order['upper'])} tasks)"
    )


def _shown(found: ProbeMap) -> pd.DataFrame:
    """The summary with blanks in place of what is not there."""
    return found.summary().map(lambda value: "" if value is None else value)
