"""Probes: what can be read out of a model's states, one task or the map of many."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from labkit.cli.command import (
    ModelOptions,
    Seed,
    command,
    out_console,
    progress,
    short,
)
from labkit.errors import InputError

app = typer.Typer()
group = typer.Typer(help="What can be read out of states, with the controls that count.")
app.add_typer(group, name="probe")

Data = Annotated[
    Path | None,
    typer.Option(help="A treebank (CoNLL-U, plain or gzipped); by default the bundled tasks."),
]
Test = Annotated[Path | None, typer.Option(help="A treebank to score on, with --data.")]
Context = Annotated[
    int,
    typer.Option(help="With --data: sentences of the same document in front of each.", min=0),
]
Site = Annotated[
    str,
    typer.Option("--where", "--site", help="resid, attn_out, ffn_out, ffn_key or head_out."),
]
Estimator = Annotated[
    str, typer.Option(help="logistic, ridge, centroid, mean_difference, sparse, mlp1 or mlp2.")
]
Pieces = Annotated[str, typer.Option(help="Of a word's tokens: first, last or mean.")]
Depths = Annotated[
    str | None, typer.Option(help="Such as 0-12 or 2,4,6-9; by default all.", metavar="RANGE")
]


class _Itself(typer.Typer):
    """What the group does by itself: `labkit probe --task ...`."""

    def command(self, *given: Any, **named: Any) -> Any:
        """Register a function as what the group does without a command behind it."""
        return group.callback(invoke_without_command=True)


@command(_Itself())
def probe(
    options: ModelOptions,
    ctx: typer.Context,
    task: Annotated[str | None, typer.Option(help="Name of the task, such as upos.")] = None,
    data: Data = None,
    test: Test = None,
    context: Context = 0,
    where: Site = "resid",
    estimator: Estimator = "logistic",
    depths: Depths = None,
    pieces: Pieces = "last",
    controls: Annotated[bool, typer.Option(help="Fit the controls as well.")] = True,
    n_train: Annotated[
        int | None, typer.Option(help="Examples of either side at most; 0 takes all.", min=0)
    ] = 2000,
    seed: Seed = 0,
) -> None:
    """Probe one task at every depth; `labkit probe map` probes many."""
    if ctx.invoked_subcommand is not None:
        for name in ctx.params:
            source = ctx.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":  # it would be lost
                flag = "--" + name.replace("_", "-")
                raise InputError(f"write {flag} behind {ctx.invoked_subcommand}")
        return
    if task is None:
        raise InputError("labkit probe takes --task NAME (or is followed by: map)")
    from probes.estimators import make
    from probes.probe import probe as run_probe

    make(estimator)
    of_data = _treebank_tasks(data, test, context, [task])
    named = _range(depths)
    lab = options.load()
    chosen = (_own_tasks(lab, [task]) if of_data is None else of_data)[task]
    with progress() as told:
        found = run_probe(
            lab,
            chosen,
            estimator=estimator,
            where=where,  # type: ignore[arg-type]
            depths=named,
            pieces=pieces,  # type: ignore[arg-type]
            controls=controls,
            n_train=n_train or None,
            seed=seed,
            progress=told,
        )
    if options.write_json(_summary(found)):
        return
    out_console.print(found.title, markup=False, highlight=False)
    table = Table("depth", found.measure, "control task", "selectivity", "random", "compression")
    for at in found.depths:
        shown = (at.score, at.control, at.selectivity, at.twin, at.compression)
        table.add_row(str(at.depth), *("" if one is None else short(one) for one in shown))
    out_console.print(table)
    for name, baseline in found.baselines.items():
        out_console.print(f"{name}: {baseline}", markup=False, highlight=False)
    for reason in (found.no_selectivity, found.no_code):
        if reason is not None:
            out_console.print(reason, markup=False, highlight=False)


@command(group)
def map(
    options: ModelOptions,
    out: Annotated[Path, typer.Option(help="A new folder, or one with a map to go on with.")],
    tasks: Annotated[
        str | None, typer.Option(help="Names of tasks, with commas; by default all.")
    ] = None,
    data: Data = None,
    test: Test = None,
    context: Context = 0,
    where: Site = "resid",
    estimator: Estimator = "logistic",
    depths: Depths = None,
    pieces: Pieces = "last",
    n_train: Annotated[
        int, typer.Option(help="Examples of either side of a task at most.", min=2)
    ] = 1000,
    seed: Seed = 0,
) -> None:
    """Probe many tasks at every depth: which kind of knowledge lies where."""
    from labkit.report import Report
    from labkit.results import RunDirectory
    from probes.estimators import make
    from probes.map import map_config, probe_map

    make(estimator)
    names = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    if names is not None and not names:
        raise InputError("no task is named by --tasks")
    asked: dict[str, Any] = {
        "where": where,
        "estimator": estimator,
        "depths": _range(depths),
        "pieces": pieces,
        "n_train": n_train,
        "seed": seed,
    }
    of_data = _treebank_tasks(data, test, context, names)
    lab = options.load()
    chosen = _own_tasks(lab, names) if of_data is None else of_data
    run = RunDirectory.create(out, map_config(chosen, **asked), lab, resume=True)
    with progress() as told:
        found = probe_map(lab, chosen, run=run, progress=told, **asked)
    orders = {measure: _order(found, measure) for measure in ("arrival", "gravity", "expected")}
    summary = {
        "title": found.title,
        "tasks": found.summary().to_dict("records"),
        "order": orders,
        "cells": found.to_frame().to_dict("records"),
        "out": str(out),
    }
    run.write_metrics(summary)
    page = Report(found.title).figure(found.figure())
    page.table(_shown(found), caption="Best depth of each task, 95 % intervals over groups")
    for measure, order in orders.items():
        page.paragraph(f"{measure}: {_said(order)}")
    for each in found.probes:
        page.heading(each.task, level=3).figure(each.figure())
    run.write_text("report.html", page.html())
    if not options.write_json(summary):
        table = Table("task", "family", "best depth", "score", "baseline", "arrival", "gravity")
        for row in found.summary().to_dict("records"):
            estimates = (row["score"], row["baseline"], row["arrival"], row["gravity"])
            shown = ("" if one is None else short(one) for one in estimates)
            table.add_row(row["task"], row["family"], str(row["best depth"]), *shown)
        out_console.print(table)
        for measure, order in orders.items():
            out_console.print(f"{measure}: {_said(order)}", markup=False, highlight=False)
        out_console.print(f"{out}/report.html", soft_wrap=True)


def _treebank_tasks(
    data: Path | None, test: Path | None, context: int, names: list[str] | None
) -> dict[str, Any] | None:
    """The tasks of a treebank; None without one."""
    if data is None:
        if test is not None:
            raise InputError("--test is a treebank to score on: it goes with --data")
        if context:
            raise InputError("--context is for sentences of a treebank: it goes with --data")
        return None
    from probes.linguistic_tasks import linguistic_tasks
    from probes.treebank import in_context, read_treebank

    sentences = in_context(read_treebank(data), context)
    held_out = None if test is None else in_context(read_treebank(test), context)
    source = data.name if not context else f"{data.name}, {context} sentences in front of each"
    return linguistic_tasks(sentences, held_out, names=names, source=source)


def _own_tasks(lab: Any, names: list[str] | None) -> dict[str, Any]:
    """The tasks that take no data."""
    from probes.default_tasks import default_tasks

    return default_tasks(lab, names=names)


def _range(depths: str | None) -> list[int] | None:
    """Depths such as 0-12 or 2,4,6-9; None for all."""
    from labkit.cli.sweep import layer_range

    return None if depths is None else layer_range(depths, "--depths")


def _summary(found: Any) -> dict[str, Any]:
    """A probe's result for `--json`."""
    return {
        "title": found.title,
        "task": found.task,
        "source": found.source,
        "measure": found.measure,
        "estimator": found.estimator,
        "strength": found.strength,
        "best_depth": found.best.depth,
        "score": found.best.score.to_dict(),
        "baselines": {name: one.to_dict() for name, one in found.baselines.items()},
        "no_selectivity": found.no_selectivity,
        "no_code": found.no_code,
        "left_out": found.left_out,
        "depths": found.to_frame().to_dict("records"),
        "sample_size_curve": found.curve_frame().to_dict("records"),
        "n_train": found.n_train,
        "n_test": found.n_test,
    }


def _order(found: Any, measure: str) -> dict[str, Any]:
    """The test of the order, or why there is none."""
    from dataclasses import asdict

    try:
        return asdict(found.order(measure))
    except InputError as reason:
        return {"none": str(reason)}


def _said(order: dict[str, Any]) -> str:
    """The test of the order in words."""
    if "none" in order:
        return order["none"]
    difference = order["difference"]
    return (
        f"factual tasks lie {difference['mean']:+.2f} [{difference['low']:+.2f}, "
        f"{difference['high']:+.2f}] depths above the linguistic ones, p = {order['p']:.3f} "
        f"({len(order['lower'])} and {len(order['upper'])} tasks)"
    )


def _shown(found: Any) -> Any:
    """The summary with blanks in the place of what is not there."""
    return found.summary().map(lambda value: "" if value is None else value)
