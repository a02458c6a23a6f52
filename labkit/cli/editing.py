"""Editing: a weight change, a method's audit over many cases, an edited checkpoint."""

import re
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from labkit.cli.command import (
    Out,
    columns,
    command,
    out_console,
    progress,
    short,
    to_resume,
)
from labkit.cli.editor_options import EditorOptions
from labkit.errors import InputError

app = typer.Typer()


@command(app)
def edit(
    options: EditorOptions,
    out: Out,
    rewrites: Annotated[
        Path | None, typer.Option(help="Many facts: JSONL of rewrites, or CounterFact JSON.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Or one fact: its prompt, up to the answer.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Its subject, as it stands there.")] = None,
    target: Annotated[str | None, typer.Option(help="What the model is to say.")] = None,
) -> None:
    """Make a weight change that rewrites one fact or many, and save it as a delta."""
    from editing import InContext, applied
    from labkit.facts.fact import Fact, Rewrite
    from labkit.facts.records import read_rewrites
    from labkit.readout import predict

    editor = options.editor()
    if isinstance(editor, InContext):
        raise InputError("in-context editing changes no weight: there is no delta to save")
    one = (prompt, subject, target)
    if any(part is not None for part in one) if rewrites is not None else None in one:
        raise InputError(
            "an edit takes either --prompt, --subject and --target, or --rewrites FILE"
        )
    asked: list[Any]
    if rewrites is None:
        fact = Fact.from_prompt(str(prompt), str(subject))
        asked = [Rewrite.from_fact(fact, str(target))]
    else:
        asked = read_rewrites(rewrites)
    editor.require(asked)
    text = options.text()
    lab = options.load()
    with progress() as told:
        prepared = editor.prepare(lab, corpus=text, progress=told)
        delta = editor(lab, asked, prepared=prepared, progress=told)
        said = {}
        if prompt is not None:
            said["before"] = predict(lab, prompt, k=SHOWN)
            with applied(lab, delta):
                said["after"] = predict(lab, prompt, k=SHOWN)
    delta.save(out)
    summary = {"delta": str(out), "base": delta.base, "provenance": delta.provenance}
    if options.write_json(summary | {state: asdict(found) for state, found in said.items()}):
        return
    if said:
        table = columns("", "next tokens", title=prompt)
        for state, found in said.items():
            table.add_row(state, next_tokens(found))
        out_console.print(table)
    out_console.print(f"{delta}")
    out_console.print(f"saved to {out}", soft_wrap=True)


SHOWN = 5
"""How many next tokens are shown before and after an edit."""


def next_tokens(found: Any) -> str:
    """The most probable next tokens with their probabilities, in a line."""
    pairs = zip(found.tokens[:SHOWN], found.probabilities[:SHOWN], strict=True)
    return ", ".join(f"{token!r} {probability:.2f}" for token, probability in pairs)


@command(app)
def evaluate(
    options: EditorOptions,
    cases: Annotated[Path, typer.Option(help="JSONL of cases, or CounterFact JSON.")],
    method: Annotated[
        str | None, typer.Option(help="Name of the editor, fields after it; by default rome.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Or several, compared: rome,memit:weight=1,ft."),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="single, batch or sequential: how edits add up.")
    ] = "single",
    chunk: Annotated[int, typer.Option(help="Rewrites per call, for sequential.", min=1)] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first N cases.", min=1)] = None,
    tokens: Annotated[int, typer.Option(help="Length of free continuations; 0: none.", min=0)] = 16,
    side_effects: Annotated[
        bool, typer.Option("--side-effects", help="Also facts lost, minimal pairs, free text.")
    ] = False,
    portability: Annotated[
        bool,
        typer.Option("--portability", help="Also consequences of a rewrite, as far as facts tell."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; one of the same run is resumed.", callback=to_resume),
    ] = None,
) -> None:
    """Audit one editor or several, read three ways beside the unedited model."""
    from editing.evaluation.many_cases import evaluate as evaluate_
    from editing.evaluation.method_report import report
    from editing.evaluation.method_table import compared
    from editing.evaluation.options import EvaluationOptions
    from editing.evaluation.several_methods import check, compare_methods
    from editing.readings.side_effects import SideEffects
    from labkit.facts.records import read_cases
    from labkit.facts.worlds import chains_of
    from labkit.results.result import RunDirectory

    if method is not None and methods is not None:
        raise InputError("name either --method, one editor, or --methods, several")
    # A comma inside brackets belongs to a field's value: memit:layers=[1,2].
    names = [method or "rome"] if methods is None else re.split(r",(?![^\[]*\])", methods)
    names = [name.strip() for name in names if name.strip()]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"the method {twice[0]!r} is named twice: its rows would be one")
    editors = {name: options.editor(name) for name in names}
    if len({repr(editor) for editor in editors.values()}) < len(editors):
        raise InputError(f"{', '.join(editors)}: two of these are the same method in all fields")
    asked = read_cases(cases)[:limit]
    effects = None
    if side_effects:
        quick = protocol == "single"
        effects = SideEffects.quick(seed=options.seed) if quick else SideEffects(seed=options.seed)
    how = EvaluationOptions(
        protocol=protocol,  # type: ignore[arg-type]
        chunk=chunk,
        seed=options.seed,
        n_tokens=tokens,
        side_effects=effects,
    )
    check(editors, asked, how)
    text = options.text()
    lab = options.load()
    how = replace(how, chains=chains_of(lab) if portability else None, corpus=text)
    if methods is not None:
        with progress() as told:
            several = compare_methods(lab, editors, asked, how, out=out, progress=told)
        if not options.write_json(several.metrics()) or options.json != "-":
            _show(several, out)
        return
    ((name, editor),) = editors.items()
    kept: Any = nullcontext()
    if out is not None:
        config = {
            "command": "evaluate",
            "method": name,
            "editor": asdict(editor),
            **how.record(lab, asked),
        }
        kept = RunDirectory.session(out, config, lab, resume=True)
    with kept as run:
        with progress() as told:
            result = evaluate_(lab, editor, asked, how, run=run, progress=told)
        summary = result.metrics()
        if run is not None:
            run.write_metrics(summary)
            page = report(compared({name: result}, seed=options.seed), run.environment)
            run.write_text("report.html", page.html())
    if not options.write_json(summary) or options.json != "-":
        out_console.print(comparison(result, result.title))
        seconds = summary["seconds_per_edit"]
        out_console.print(
            f"{seconds['median']:.1f} s per edit (median; {seconds['low']:.1f} to "
            f"{seconds['high']:.1f}); intervals: 95 % over {summary['n']} case(s), "
            f"of the unedited perplexity over {len(result.nll_before)} pieces of text"
        )
        for case_id, error in result.failures.items():
            out_console.print(f"case {case_id} failed: {error}", soft_wrap=True)
        if out is not None:
            out_console.print(f"{out}/report.html", soft_wrap=True)


def comparison(result: Any, title: str) -> Table:
    """An edited model's readings beside the unedited one's, for a terminal."""
    table = columns("reading", "metric", "unedited", "edited", title=title)
    for row in result.table().to_dict(orient="records"):
        states = (short(row[state]) for state in ("unedited", "edited"))
        table.add_row(row["reading"], row["metric"], *states)
    table.caption = (
        f"perplexity on held-out text {short(result.perplexity('before'))} → "
        f"{short(result.perplexity('after'))}; change in nats per token "
        f"{short(result.nll_change, digits=4)}"
    )
    return table


def _show(compared: Any, out: Path | None) -> None:
    """Several methods side by side, for a terminal."""
    shown = {
        "efficacy": ("success", "efficacy"),
        "paraphrase": ("success", "paraphrase"),
        "neighbourhood": ("success", "neighbourhood"),
        "says it": ("argmax accuracy", "efficacy"),
        "perplexity": ("text", "perplexity"),
        "s per edit": ("cost", "seconds per edit"),
    }
    table = columns("", "method", "mean and interval", title=compared.title)
    for name, (reading, metric) in shown.items():
        found = {
            method: estimate
            for method in ("unedited", *compared.methods)
            if (estimate := compared.estimate(method, reading, metric)) is not None
        }
        for number, (method, estimate) in enumerate(found.items()):
            told = short(estimate)
            if reading == "cost":  # the median alone
                told = told.split(" ")[0]
            last = number == len(found) - 1
            table.add_row(name if number == 0 else "", method, told, end_section=last)
    out_console.print(table)
    out_console.print(
        f"success, and argmax accuracy of the rewrite itself (says it); intervals: 95 % over "
        f"{compared.n_cases} case(s); of seconds, the median"
    )
    for method, errors in compared.failed.items():
        for case_id, error in errors.items():
            where = "" if case_id == "*" else f", case {case_id}"
            out_console.print(f"{method}{where} failed: {error}", soft_wrap=True)
    if out is not None:
        out_console.print(f"{out}/report.html, {out}/table.csv", soft_wrap=True)
