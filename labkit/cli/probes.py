"""Probes: what can be read out of a model's states, one task or the map of many."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.command import (
    MANY,
    ModelOptions,
    Seed,
    columns,
    command,
    free,
    out_console,
    progress,
    short,
    to_resume,
)
from labkit.errors import InputError

app = typer.Typer()
group = typer.Typer(help="Probes: what can be read out of states, with controls.")
app.add_typer(group, name="probe")

Data = Annotated[
    str | None,
    typer.Option(
        help="A treebank (CoNLL-U, or a name such as UD_English-EWT), minimal pairs (JSONL), "
        "relations (JSON) or places (CSV); by default the bundled tasks."
    ),
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
Pieces = Annotated[str, typer.Option(help="Which of a word's tokens: first, last or mean.")]
Depths = Annotated[
    str | None, typer.Option(help="Such as 0-12 or 2,4,6-9; by default all.", metavar="RANGE")
]


@command(group, itself=True)
def probe(
    options: ModelOptions,
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
    """Probe one task at every depth; `labkit probe map` probes many, `structural` trees."""
    if task is None:
        raise InputError("labkit probe takes --task NAME (or is followed by: map, structural)")
    from probes.probing.by_depth import probe as run_probe
    from probes.probing.configuration import Probing

    how = Probing(
        estimator=estimator,
        where=where,  # type: ignore[arg-type]
        depths=_range(depths),
        pieces=pieces,  # type: ignore[arg-type]
        controls=controls,
        n_train=n_train or None,
        keep=False,
        seed=seed,
    )
    of_data = _data_tasks(data, test, context, [task])
    lab = options.load()
    chosen = (_own_tasks(lab, [task]) if of_data is None else of_data)[task]
    with progress() as told:
        found = run_probe(lab, chosen, how, progress=told)
    if options.write_json(_summary(found)):
        return
    out_console.print(found.title)
    table = columns("depth", found.measure, "control task", "selectivity", "random", "compression")
    for at in found.depths:
        shown = (at.score, at.control, at.selectivity, at.twin, at.compression)
        table.add_row(str(at.depth), *("" if one is None else short(one) for one in shown))
    out_console.print(table)
    for name, baseline in found.baselines.items():
        out_console.print(f"{name}: {baseline}")
    for reason in (found.no_selectivity, found.no_code):
        if reason is not None:
            out_console.print(reason)


@command(group)
def map(
    options: ModelOptions,
    out: Annotated[
        Path, typer.Option(help="A new folder, or one with a map to resume.", callback=to_resume)
    ],
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
    from labkit.results.result import RunDirectory
    from probes.probing.configuration import MAP
    from probes.probing.map import map_config, probe_map
    from probes.probing.map_report import keep_map, order_in_words

    how = replace(
        MAP,
        estimator=estimator,
        where=where,  # type: ignore[arg-type]
        depths=_range(depths),
        pieces=pieces,  # type: ignore[arg-type]
        n_train=n_train,
        seed=seed,
    )
    names = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    if names is not None and not names:
        raise InputError("no task is named by --tasks")
    of_data = _data_tasks(data, test, context, names)
    lab = options.load()
    chosen = _own_tasks(lab, names) if of_data is None else of_data
    with RunDirectory.session(out, map_config(chosen, how), lab, resume=True) as run:
        with progress() as told:
            found = probe_map(lab, chosen, how, run=run, progress=told)
        summary, orders = keep_map(found, run)
    if not options.write_json(summary):
        table = columns("task", "best depth", "score", "baseline", "arrival", "gravity")
        for row in found.summary().to_dict("records"):
            estimates = (row["score"], row["baseline"], row["arrival"], row["gravity"])
            shown = ("" if one is None else short(one) for one in estimates)
            table.add_row(row["task"], str(row["best depth"]), *shown)
        out_console.print(table)
        for measure, order in orders.items():
            out_console.print(f"{measure}: {order_in_words(order)}")
        out_console.print(f"{out}/report.html", soft_wrap=True)


@command(group)
def structural(
    options: ModelOptions,
    data: Annotated[
        str | None,
        typer.Option(help="A treebank, or its name; by default the lab's own language."),
    ] = None,
    test: Test = None,
    depths: Depths = None,
    rank: Annotated[int, typer.Option(help="Rank of the probe.", min=1, max=MANY)] = 64,
    n_train: Annotated[int, typer.Option(help="Sentences to fit to at most.", min=1)] = 3000,
    n_test: Annotated[int, typer.Option(help="Sentences to score on at most.", min=1)] = 300,
    controls: Annotated[bool, typer.Option(help="Probe random weights as well.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for result and report.", callback=free)
    ] = None,
    seed: Seed = 0,
) -> None:
    """Read syntax trees off states: the structural probe at every depth."""
    from labkit.files import atomic_folder
    from probes.trees.by_depth import probe_trees
    from probes.trees.configuration import TreeProbing

    _require_data(data, test)
    how = TreeProbing(
        depths=_range(depths),
        n_train=n_train,
        n_test=n_test,
        controls=controls,
        rank=rank,
        seed=seed,
    )
    sentences, held_out, source = _sentences(data, test, seed)
    lab = options.load()
    with progress() as told:
        found = probe_trees(lab, sentences, how, test=held_out, source=source, progress=told)
    summary = {
        "title": found.title,
        "best_depth": found.best.depth,
        "uuas": found.best.uuas.to_dict(),
        "correlation": found.best.correlation.to_dict(),
        "above_chain": found.best.above_chain.to_dict(),
        "p": found.best.p,
        "chain": found.chain.to_dict(),
        "n_train": found.n_train,
        "depths": found.to_frame().to_dict("records"),
    }
    if out is not None:
        from labkit.results.report import Report

        page = Report(found.title).figure(found.figure())
        with atomic_folder(out) as folder:
            found.save(folder)
            page.save(folder / "structural.html")
        summary["out"] = str(out)
    if options.write_json(summary):
        return
    out_console.print(found.title)
    table = columns("depth", "arcs found", "less the chain", "random weights", "rank correlation")
    for at in found.depths:
        shown = (at.uuas, at.above_chain, at.twin, at.correlation)
        table.add_row(str(at.depth), *("" if one is None else short(one) for one in shown))
    out_console.print(table)
    out_console.print(f"each word on the one before: {short(found.chain)}")
    if out is not None:
        out_console.print(f"{out}/structural.html", soft_wrap=True)


def _sentences(data: str | None, test: Path | None, seed: int) -> tuple[Any, Any, str]:
    """Sentences with trees to fit to, to score on (None: some of them), and their source."""
    from probes.sentences.own import SOURCE, language
    from probes.tasks.data import sentences_of, treebank_paths

    if data is None:
        return (
            language(1000, part="train", seed=seed),
            language(300, part="test", seed=seed),
            SOURCE,
        )
    own, held_out = treebank_paths(data, test)
    sentences, source = sentences_of(own)
    return sentences, None if held_out is None else sentences_of(held_out)[0], source


def _data_tasks(
    data: str | None, test: Path | None, context: int, names: list[str] | None
) -> dict[str, Any] | None:
    """The tasks of some data; None without any."""
    _require_data(data, test, context)
    if data is None:
        return None
    from probes.tasks.data import tasks_of

    return tasks_of(data, test, names=names, context=context)


def _require_data(data: str | None, test: Path | None, context: int = 0) -> None:
    """Refuse without data what goes with it."""
    if data is None and test is not None:
        raise InputError("--test is a treebank to score on: it goes with --data")
    if data is None and context:
        raise InputError("--context is for sentences of a treebank: it goes with --data")


def _own_tasks(lab: Any, names: list[str] | None) -> dict[str, Any]:
    """The tasks that take no data."""
    from probes.tasks.defaults import default_tasks

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
