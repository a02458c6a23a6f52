"""Cloze probing: at which depth facts can be read, and at which they are the answer."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.command import (
    ModelOptions,
    Seed,
    columns,
    command,
    out_console,
    progress,
    short,
    to_resume,
)
from labkit.errors import InputError
from labkit.stats.estimate import Estimate

app = typer.Typer()


@command(app)
def cloze(
    options: ModelOptions,
    facts: Annotated[Path | None, typer.Option(help="Your facts, JSONL.")] = None,
    relations: Annotated[
        Path | None, typer.Option(help="Relations in LRE's format: a file, or a folder of them.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Questions with views of their subjects, as in PopQA.")
    ] = None,
    lens: Annotated[str, typer.Option(help="logit, or translated.")] = "logit",
    limit: Annotated[int, typer.Option(help="Read at most N facts.", min=1)] = 200,
    every: Annotated[
        bool, typer.Option("--all", help="Read unknown facts too, not only those it knows.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder, or one of the same run to resume.", callback=to_resume),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Find the depth where facts become readable, and where they become the answer."""
    from labkit.results.report import Report
    from labkit.results.result import RunDirectory
    from probes.cloze.objects import Cloze

    if sum(path is not None for path in (facts, relations, questions)) > 1:
        raise InputError("name only one of --facts, --relations and --questions")
    method = Cloze(lens=lens, seed=seed)  # type: ignore[arg-type]
    asked, views = _read(facts, relations, questions)
    lab = options.load()
    chosen, views = _chosen(lab, asked, views, limit, seed, every=every)
    kept: Any = nullcontext()
    if out is not None:
        config = {
            "command": "cloze",
            "lens": lens,
            "seed": seed,
            "facts": [[fact.relation, fact.prompt, list(fact.answers)] for fact in chosen],
        }
        kept = RunDirectory.session(out, config, lab, resume=True)
    with kept as run:
        with progress() as told:
            result = method(lab, chosen, popularity=views, run=run, progress=told)
        table = result.depths_frame()
        summary: dict[str, Any] = {
            "title": result.title,
            "precision": result.to_frame().to_dict("records"),
            "depths": table.to_dict("records"),
        }
        if views is not None:
            summary["popularity"] = result.popularity_frame().to_dict("records")
        if run is not None:
            run.write_metrics(summary)
            page = Report(result.title).figure(result.figure()).figure(result.figure_ranks())
            if table["reach"].any():
                page.figure(result.figure_relations())
            if views is not None:
                page.figure(result.figure_popularity())
            run.write_text("report.html", page.table(table, caption="By relation").html())
            summary["out"] = str(out)
    if options.write_json(summary):
        return
    out_console.print(result.title)
    shown = columns("stays among", "facts", "from depth", title=f"of {lab.n_layers} blocks")
    for row in table[table["relation"] == "all"].itertuples():
        where = f"{Estimate(row.mean, row.low, row.high, row.reach):.1f}" if row.reach else "never"
        shown.add_row(f"the top {row.k}", f"{row.reach} of {row.facts}", where)
    out_console.print(shown)
    if table[table["relation"] == "all"]["reach"].min():
        gap, _ = result.readable_before_said(result.ks[-2])
        out_console.print(f"readable before said: {short(gap, digits=1)} blocks")
    if views is not None:
        _print_popularity(result)
    if out is not None:
        out_console.print(f"{out}/report.html", soft_wrap=True)


def _print_popularity(result: Any) -> None:
    """Share of facts among the top k in the end, by popularity of the subject."""
    frame = result.popularity_frame()
    shown = columns("views a month", *(f"top {k}" for k in result.ks), title="after the last block")
    for views, rows in frame.groupby("popularity"):
        shown.add_row(f"{views:,.0f}", *(short(row) for row in rows.itertuples()))
    out_console.print(shown)


def _read(facts: Path | None, relations: Path | None, questions: Path | None) -> tuple[Any, Any]:
    """The facts of a file or folder, None where none is named; and views of their subjects."""
    from labkit.facts.datasets import read_questions, read_relations
    from labkit.facts.records import read_facts

    if facts is not None:
        return read_facts(facts), None
    if relations is not None:
        return [fact for _, some in read_relations(relations) for fact in some], None
    if questions is not None:
        from probes.cloze.objects import question_facts

        return question_facts(read_questions(questions))
    return None, None


def _chosen(
    lab: Any, asked: Any, views: Any, limit: int, seed: int, *, every: bool
) -> tuple[Any, Any]:
    """The facts to read, and views of their subjects.

    Relations take turns; facts are known to the model unless told otherwise.
    """
    from itertools import islice

    from labkit.facts.known import asked_in_turn
    from labkit.facts.worlds import facts_of

    asked = facts_of(lab) if asked is None else asked
    rows = asked_in_turn(lab, asked, seed=seed, purpose="cloze")
    chosen = [row.fact for row in islice((r for r in rows if every or r.rank == 1), limit)]
    if not chosen:
        raise InputError(f"{lab.name} knows none of the {len(asked)} facts: read them with --all")
    if views is None:
        return chosen, None
    of_fact = {id(fact): number for fact, number in zip(asked, views, strict=True)}
    return chosen, [of_fact[id(fact)] for fact in chosen]
