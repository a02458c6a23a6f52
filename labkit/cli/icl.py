"""In-context learning: what demonstrations do, and which of their properties matter."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from labkit.cli.command import MANY, ModelOptions, Seed, columns, command, out_console, short
from labkit.cli.icl_task import (
    Draws,
    File,
    Queries,
    Question,
    ReportOut,
    Task,
    Tokens,
    names,
    numbers,
    show_differences,
)
from labkit.errors import InputError
from labkit.stats.estimate import p_text

app = typer.Typer()
group = typer.Typer(help="See what demonstrations do, and which of their properties matter.")
app.add_typer(group, name="icl")


@command(group, itself=True)
def icl(
    options: ModelOptions,
    task: Task = "capital",
    conditions: Annotated[
        str, typer.Option(help="Changes to demonstrations; the others are compared with the first.")
    ] = "gold,random,permuted",
    k: Annotated[str, typer.Option("--k", help="Numbers of demonstrations.")] = "0,1,2,4,8",
    file: File = None,
    draws: Draws = 4,
    queries: Queries = 50,
    tokens: Tokens = None,
    out: ReportOut = None,
    seed: Seed = 0,
) -> None:
    """See what demonstrations do: accuracy by number and condition."""
    from labkit.icl import Demonstrations

    method = Demonstrations(
        conditions=names(conditions), ks=numbers(k), draws=draws, queries=queries, seed=seed,
        tokens=tokens or "all",  # type: ignore[arg-type]
    )  # fmt: skip
    asked = Question.of(options, task, file, out)
    result, left_out = asked.ask(method, tokens)
    _demonstrations(asked, result, left_out, against=method.conditions[0])


@command(group)
def choice(
    options: ModelOptions,
    task: Task = "topic",
    ways: Annotated[
        str,
        typer.Option(help="How they are chosen; the others are compared with the first."),
    ] = "random,bm25,states,varied,spread,alike",
    k: Annotated[str, typer.Option("--k", help="Numbers of demonstrations.")] = "1,4,8",
    file: File = None,
    draws: Draws = 4,
    queries: Queries = 50,
    pool: Annotated[int, typer.Option(help="Items to choose from, at most.", min=1)] = 500,
    tokens: Tokens = None,
    out: ReportOut = None,
    seed: Seed = 0,
) -> None:
    """Choose demonstrations at random, near to the query, or far from each other."""
    from labkit.icl import Choice
    from labkit.icl.behaviour.choice import WORDS

    method = Choice(
        ways=names(ways), ks=numbers(k), draws=draws, queries=queries, pool=pool, seed=seed,  # type: ignore[arg-type]
        tokens=tokens or "all",  # type: ignore[arg-type]
    )  # fmt: skip
    asked = Question.of(options, task, file, out)
    result, left_out = asked.ask(method, tokens)
    _demonstrations(asked, result, left_out, against=WORDS[method.ways[0]])


@command(group)
def order(
    options: ModelOptions,
    task: Task = "sentiment",
    k: Annotated[int, typer.Option("--k", help="Number of demonstrations.")] = 4,
    sets: Annotated[int, typer.Option(help="Sets of demonstrations.", min=1, max=MANY)] = 4,
    orders: Annotated[int, typer.Option(help="Orders of each, at most.", min=1, max=MANY)] = 24,
    file: File = None,
    queries: Queries = 30,
    probes: Annotated[
        int, typer.Option(help="Further items, on which the entropy is measured.", min=1, max=MANY)
    ] = 20,
    tokens: Tokens = None,
    out: ReportOut = None,
    seed: Seed = 0,
) -> None:
    """Show the same demonstrations in other orders: the spread, and what explains it."""
    from labkit.icl import Orders

    method = Orders(
        k=k, sets=sets, orders=orders, queries=queries, probes=probes, seed=seed,
        tokens=tokens or "all",  # type: ignore[arg-type]
    )  # fmt: skip
    asked = Question.of(options, task, file, out)
    result, left_out = asked.ask(method, tokens)
    found = {
        "spread": result.spread(),
        "best_on_new_queries": result.best_on_new_queries(),
    }
    gains = {name: result.gain_of_entropy(name) for name in ("global", "local")}
    last = result.recency()
    biases = {"position": result.by_position(), "count": result.by_count()}
    summary: dict[str, Any] = {"title": result.title, "left_out": left_out}
    summary |= {name: estimate.to_dict() for name, estimate in found.items()}
    summary |= {
        f"gain_of_{name}_entropy": gain.to_dict() | {"p": p} for name, (gain, p) in gains.items()
    }
    summary["recency"] = last[0].to_dict() | {"p": last[1]}
    summary |= {f"by_{name}": rows.to_dict("records") for name, rows in biases.items()}
    summary["orders"] = result.to_frame().to_dict("records")
    tables = {
        "Probability of a demonstration's label, by where it stands": biases["position"],
        "Probability of a label beyond its share, by how often it is shown": biases["count"],
    }
    if asked.answer(result, summary, [result.figure()], tables):
        return
    out_console.print(f"best order - worst: {short(found['spread'])}")
    out_console.print(
        f"best on half of the queries - mean, on the other half: "
        f"{short(found['best_on_new_queries'])}",
    )
    for name, (gain, p) in gains.items():
        out_console.print(
            f"preferred by {name} entropy - mean: {short(gain)}, p = {p_text(p, gain.n)}",
        )
    out_console.print(
        f"a label shown last - shown first: {short(last[0])}, p = {p_text(last[1], last[0].n)}",
    )
    for name, rows in biases.items():
        shown = columns(name, "probability" if name == "position" else "beyond its share")
        for row in rows.itertuples():
            shown.add_row(str(row[1]), short(row))
        out_console.print(shown)
    asked.close()


@command(group)
def instruct(
    options: ModelOptions,
    task: Task = "antonym",
    instruction: Annotated[
        list[str] | None,
        typer.Option(help="Your instruction, or several; by default those of the task."),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Number of demonstrations.")] = 8,
    file: File = None,
    draws: Draws = 4,
    queries: Queries = 40,
    development: Annotated[
        int, typer.Option(help="Items that proposed instructions are chosen on.", min=1, max=MANY)
    ] = 16,
    proposals: Annotated[
        int, typer.Option(help="Instructions drawn from the model; 0 for none.", min=0, max=MANY)
    ] = 24,
    tokens: Tokens = None,
    out: ReportOut = None,
    seed: Seed = 0,
) -> None:
    """Tell what to do, show it, or both; and let the model propose what to tell."""
    from labkit.icl import Instructions

    method = Instructions(
        k=k, draws=draws, queries=queries, development=development, proposals=proposals,
        seed=seed, tokens=tokens or "all",  # type: ignore[arg-type]
    )  # fmt: skip
    asked = Question.of(options, task, file, out)
    if asked.own is not None:
        own = replace(asked.own, instructions=tuple(instruction or asked.own.instructions))
        if not own.instructions:
            raise InputError(f"{own.name!r} has no instruction: give one with --instruction")
        asked = replace(asked, own=own)
    elif instruction:
        raise InputError("the pocket model does not read English: leave --instruction out")
    result, left_out = asked.ask(method, tokens)
    compared, candidates = result.comparisons(), result.candidate_frame()
    summary = {
        "title": result.title,
        "left_out": left_out,
        "instructions": list(dict.fromkeys(result.written)),
        "others": list(dict.fromkeys(result.others)),
        "measures": result.to_frame().to_dict("records"),
        "comparisons": compared.to_dict("records"),
        "candidates": candidates.to_dict("records"),
    }
    figures = [result.figure(), result.figure("gold")]
    figures += [result.figure_candidates()] if result.candidates else []
    tables = {"Against neither": compared, "Proposed, best first": candidates.head(10)}
    if asked.answer(result, summary, figures, tables):
        return
    shown = columns("in front", "accuracy", "probability of the right label")
    for arm in result.values():
        shown.add_row(arm, *(short(result.estimate(arm, what)) for what in ("accuracy", "gold")))
    out_console.print(shown)
    show_differences(compared, against="neither")
    if result.candidates:
        best = result.candidates[result.best()]
        out_console.print(f"proposed: {best}")
    else:
        out_console.print(f"{result.model} proposed no instruction")
    asked.close()


def _demonstrations(asked: Question, result: Any, left_out: int, *, against: str) -> None:
    """What is shown of accuracies by number and condition, or way of choosing."""
    compared = result.comparisons(against=against)
    summary: dict[str, Any] = {
        "title": result.title,
        "labels": len(result.labels),
        "left_out": left_out,
        "chance": result.chance,
        "majority": result.majority,
        "measures": result.to_frame().to_dict("records"),
        "against": against,
        "comparisons": compared.to_dict("records"),
    }
    figures = [result.figure(), result.figure("mass")]
    if asked.answer(result, summary, figures, {f"Against {against}": compared}):
        return
    shown = columns("accuracy", *(f"k = {number}" for number in result.ks))
    for name in result.conditions:
        shown.add_row(name, *(short(result.accuracy(name, number)) for number in result.ks))
    out_console.print(shown)
    out_console.print(f"chance {result.chance:.2f}, majority {result.majority:.2f}")
    most = compared[compared["k"] == max(result.ks)]
    show_differences(most, against=f"{against} at k = {max(result.ks)}")
    asked.close()
