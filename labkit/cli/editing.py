"""Editing: a weight change, a method's audit over many cases, an edited checkpoint."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from labkit.cli.command import (
    ModelOptions,
    Out,
    Seed,
    command,
    out_console,
    progress,
    short,
)
from labkit.errors import InputError

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class EditorOptions(ModelOptions):
    """What every command takes that edits a model."""

    method: Annotated[str, typer.Option(help="Name of the editor.")] = "rome"
    layer: Annotated[int | None, typer.Option(help="By default the model's preset.")] = None
    seed: Seed = 0

    def editor(self) -> Any:
        """The editor of that name."""
        from editing import METHODS

        if self.method not in METHODS:
            raise InputError(f"method {self.method!r}: one of {', '.join(METHODS)}")
        return METHODS[self.method](layer=self.layer, seed=self.seed)


@command(app)
def edit(
    options: EditorOptions,
    rewrites: Annotated[Path, typer.Option(help="JSONL of rewrites, or CounterFact JSON.")],
    out: Out,
) -> None:
    """Make a weight change that rewrites a fact, and save it as a delta."""
    from labkit.records import read_rewrites

    editor = options.editor()
    asked = read_rewrites(rewrites)
    editor.require(asked)
    lab = options.load()
    with progress() as told:
        delta = editor(lab, asked, prepared=editor.prepare(lab, progress=told))
    delta.save(out)
    summary = {"delta": str(out), "base": delta.base, "provenance": delta.provenance}
    if not options.write_json(summary):
        out_console.print(f"{delta}", markup=False)
        out_console.print(f"saved to {out}", soft_wrap=True)


@command(app)
def evaluate(
    options: EditorOptions,
    cases: Annotated[Path, typer.Option(help="JSONL of cases, or CounterFact JSON.")],
    limit: Annotated[int | None, typer.Option(help="Only the first N cases.", min=1)] = None,
    tokens: Annotated[int, typer.Option(help="Length of free continuations; 0: none.", min=0)] = 16,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; one of the same run is resumed.")
    ] = None,
) -> None:
    """Audit an editor: every case edited alone, read three ways, then undone."""
    from editing import evaluate as evaluate_
    from labkit.records import read_cases
    from labkit.results import RunDirectory

    editor = options.editor()
    asked = read_cases(cases)[:limit]
    lab = options.load()
    run = None
    if out is not None:
        config = {
            "command": "evaluate",
            "method": options.method,
            "editor": asdict(editor),
            "cases": [case.case_id for case in asked],
            "tokens": tokens,
        }
        run = RunDirectory.create(out, config, lab, resume=True)
    with progress() as told:
        result = evaluate_(
            lab, editor, asked, seed=options.seed, n_tokens=tokens, run=run, progress=told
        )
    summary = result.metrics()
    if run is not None:
        run.write_metrics(summary)
    if not options.write_json(summary) or options.json != "-":
        out_console.print(comparison(result, result.title))
        seconds = summary["seconds_per_edit"]
        out_console.print(
            f"{seconds['median']:.1f} s per edit (median; {seconds['low']:.1f} to "
            f"{seconds['high']:.1f}); intervals: 95 % over {summary['n']} case(s), "
            f"of the unedited perplexity over {len(result.nll_before)} pieces of text"
        )


def comparison(result: Any, title: str) -> Table:
    """An edited model's readings beside the unedited one's, for a terminal."""
    table = Table("reading", "metric", "unedited", "edited", title=title)
    for row in result.table().to_dict(orient="records"):
        states = (short(row[state]) for state in ("unedited", "edited"))
        table.add_row(row["reading"], row["metric"], *states)
    table.caption = (
        f"perplexity on held-out text {short(result.perplexity('before'))} → "
        f"{short(result.perplexity('after'))}; change in nats per token "
        f"{short(result.nll_change, digits=4)}"
    )
    return table
