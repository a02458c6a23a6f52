"""Learning in context: what demonstrations do, and what it is about them that matters."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from labkit.cli.command import ModelOptions, Seed, command, out_console, progress, short
from labkit.errors import InputError
from labkit.files import require_free

app = typer.Typer()


@command(app)
def icl(
    options: ModelOptions,
    task: Annotated[
        str, typer.Option(help="One of the lab's tasks (with FILE, the one of this name in it).")
    ] = "capital",
    conditions: Annotated[
        str, typer.Option(help="What is done to demonstrations; the first is compared with.")
    ] = "gold,random,permuted",
    k: Annotated[str, typer.Option("--k", help="Numbers of demonstrations.")] = "0,1,2,4,8",
    file: Annotated[
        Path | None, typer.Option(help="Your task: a JSON list of input and output, or CSV.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Sets of demonstrations.", min=1)] = 4,
    queries: Annotated[int, typer.Option(help="Items that are asked about.", min=1)] = 50,
    tokens: Annotated[
        str | None,
        typer.Option(help="Of a label: all, or first (the default where there are many labels)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for result and report.")] = None,
    seed: Seed = 0,
) -> None:
    """See what demonstrations do: accuracy by number and condition."""
    from labkit.icl import Demonstrations
    from labkit.report import Report

    if out is not None:
        require_free(out)
    names = tuple(name.strip() for name in conditions.split(","))
    method = Demonstrations(
        conditions=names, ks=_numbers(k), draws=draws, queries=queries, seed=seed,
        tokens=tokens or "all",  # type: ignore[arg-type]
    )  # fmt: skip
    own = _file(file, task) if file is not None else None
    if own is None and options.model != "pocket":
        own = _named(task)
    lab = options.load()
    own = _named(task, lab) if own is None else own
    n_items = len(own)
    method, own = _fitted(lab, own, method, tokens)
    left_out = n_items - len(own)
    with progress() as told:
        result = method(lab, own, progress=told)
    compared = result.comparisons(against=names[0])
    summary: dict[str, Any] = {
        "title": result.title,
        "labels": len(result.labels),
        "left_out": left_out,
        "chance": result.chance,
        "majority": result.majority,
        "measures": result.to_frame().to_dict("records"),
        "against": names[0],
        "comparisons": compared.to_dict("records"),
    }
    if out is not None:
        result.save(out)
        page = Report(result.title).figure(result.figure()).figure(result.figure("mass"))
        page.table(compared, caption=f"Against {names[0]}").save(out / "icl.html")
        summary["out"] = str(out)
    if options.write_json(summary):
        return
    out_console.print(result.title, markup=False, highlight=False)
    if left_out:
        out_console.print(
            f"{left_out} items left out: the tokens of their label begin another's",
            markup=False,
        )
    shown = Table("accuracy", *(f"k = {number}" for number in result.ks))
    for name in names:
        shown.add_row(name, *(short(result.accuracy(name, number)) for number in result.ks))
    out_console.print(shown)
    out_console.print(f"chance {result.chance:.2f}, majority {result.majority:.2f}")
    for row in compared[compared["k"] == max(result.ks)].itertuples():
        out_console.print(
            f"{row.condition} - {names[0]} at k = {row.k}: {row.mean:+.2f} "
            f"[{row.low:+.2f}, {row.high:+.2f}], p = {row.p_holm:.3g} (Holm)",
            markup=False,
        )
    if out is not None:
        out_console.print(f"{out}/icl.html", soft_wrap=True)


def _numbers(listed: str) -> tuple[int, ...]:
    """Numbers of demonstrations, separated by commas, in order."""
    try:
        return tuple(sorted({int(number) for number in listed.split(",")}))
    except ValueError as error:
        raise InputError(f"--k takes numbers such as 0,1,4, not {listed!r}") from error


def _named(name: str, lab: Any = None) -> Any:
    """One of the lab's own tasks."""
    from labkit.icl import task

    return task(name, lab)


def _file(path: Path, name: str) -> Any:
    """The task of a file; of a folder the one of this name."""
    from labkit.icl.readers import read_csv, read_pairs

    if path.suffix == ".csv":
        return read_csv(path)
    tasks = read_pairs(path)
    if len(tasks) == 1:
        return tasks[0]
    by_name = {task.name: task for task in tasks}
    if name not in by_name:
        raise InputError(f"{path} has no task {name!r}; it has {', '.join(by_name)}")
    return by_name[name]


def _fitted(lab: Any, task: Any, method: Any, tokens: str | None) -> tuple[Any, Any]:
    """The method with the tokens that suit the label space, and the items that it can score.

    Asked for by name, ambiguous labels are an error; by default their items are left out.
    """
    from dataclasses import replace

    from labkit.icl import told_apart

    if tokens is not None:
        return method, task
    method = replace(method, tokens="all" if task.closed else "first")
    kept = told_apart(lab, task, tokens=method.tokens)
    return method, kept if len(kept) < len(task) else task
