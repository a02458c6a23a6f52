"""The command line: every command is a thin call of one documented function.

Bad input ends in one line on standard error and exit status 1 (2 for wrong usage); Ctrl-C
in 130, with nothing half-written. `--json FILE` writes a command's result as JSON, to
standard output for `-`, which a bare `--json` means too.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from labkit.errors import InputError, LabkitError, MissingFile

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Open a language model, find where a fact is stored, correct it, audit the correction.",
)
pocket_app = typer.Typer(no_args_is_help=True, help="The small model of an invented world.")
app.add_typer(pocket_app, name="pocket")

out_console, err_console = Console(), Console(stderr=True)

INTERRUPTED = 130
DEFAULT_MODEL = "smollm2-135m"
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - prints.")]
Model = Annotated[str, typer.Option(help="Short name, local folder or hub id.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
Out = Annotated[Path, typer.Option(help="A folder that does not exist or is empty.")]
Device = Annotated[str, typer.Option(help="A torch device, or auto.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")]


@app.command()
def models(json: Json = None) -> None:
    """List the models that have a short name."""
    from labkit import registry

    rows = [entry.to_dict() for entry in registry.entries()]
    if not _write_json(json, rows):
        table = Table("name", "what", "licence", "from", "here")
        for row in rows:
            here = "yes" if row["cached"] else "no"
            table.add_row(row["name"], row["description"], row["license"], row["source"], here)
        out_console.print(table)
        out_console.print("Local folders and hub ids (org/name) work as well.")


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="Short name.")], json: Json = None) -> None:
    """Bring a model's weights into the cache, once."""
    from labkit import registry

    _quiet()
    with _progress() as told:
        path = registry.fetch(name, progress=told)
    if not _write_json(json, {"name": name, "path": str(path)}):
        out_console.print(f"{name} is at {path}", soft_wrap=True)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Short name, local folder or hub id.")],
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    k: Annotated[int, typer.Option(help="How many next tokens.")] = 10,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json: Json = None,
) -> None:
    """Show the most probable next tokens after a prompt."""
    from labkit.readout import predict as predict_

    result = predict_(_load(model, device, dtype), prompt, k=k)
    if not _write_json(json, result):
        table = Table("token", "probability", title=prompt)
        for token, probability in zip(result.tokens, result.probabilities, strict=True):
            table.add_row(repr(token), f"{probability:.4f}")
        out_console.print(table)


@app.command()
def trace(
    prompt: Annotated[str, typer.Option(help="The prompt, ending where the answer follows.")],
    subject: Annotated[str, typer.Option(help="The subject, as it stands in the prompt.")],
    out: Out,
    model: Model = DEFAULT_MODEL,
    answer: Annotated[str | None, typer.Option(help="By default what the model says.")] = None,
    kind: Annotated[str, typer.Option(help="resid, ffn or attn.")] = "resid",
    samples: Annotated[int, typer.Option(help="Number of noise draws.")] = 10,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json: Json = None,
) -> None:
    """Locate a fact by causal tracing; writes the result and its figure."""
    from labkit.facts import Fact
    from labkit.files import require_free
    from labkit.locate import CausalTrace
    from labkit.report import Report

    require_free(out)
    method = CausalTrace(kind=kind, samples=samples, seed=seed)  # type: ignore[arg-type]
    fact = Fact.from_prompt(prompt, subject, answer)
    lab = _load(model, device, dtype)
    with _progress() as told:
        result = method(lab, fact, progress=told)
    result.save(out)
    Report(prompt).paragraph(result.title).figure(result.figure()).save(out / "trace.html")
    pos, layer = result.peak()
    summary = {
        "title": result.title,
        "peak": {"pos": pos, "token": result.tokens[pos], "layer": layer},
        "indirect_effect": result.indirect_effect(pos, layer).to_dict(),
        "total_effect": result.total_effect.to_dict(),
        "out": str(out),
    }
    if not _write_json(json, summary):
        out_console.print(result.title)
        out_console.print(
            f"strongest subject state: after layer {layer} at {result.tokens[pos]!r}, "
            f"indirect effect {result.indirect_effect(pos, layer)}"
        )
        out_console.print(f"{out}/trace.html", soft_wrap=True)


@app.command()
def edit(
    rewrites: Annotated[Path, typer.Option(help="JSONL of rewrites, or CounterFact JSON.")],
    out: Out,
    model: Model = DEFAULT_MODEL,
    method: Annotated[str, typer.Option(help="Name of the editor.")] = "rome",
    layer: Annotated[int | None, typer.Option(help="By default the model's preset.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json: Json = None,
) -> None:
    """Make a weight change that rewrites a fact, and save it as a delta."""
    from labkit.files import require_free
    from labkit.records import read_rewrites

    require_free(out)
    editor = _editor(method, layer=layer, seed=seed)
    asked = read_rewrites(rewrites)
    editor.require(asked)
    lab = _load(model, device, dtype)
    with _progress() as told:
        delta = editor(lab, asked, prepared=editor.prepare(lab, progress=told))
    delta.save(out)
    summary = {"delta": str(out), "base": delta.base, "provenance": delta.provenance}
    if not _write_json(json, summary):
        out_console.print(f"{delta}", markup=False)
        out_console.print(f"saved to {out}", soft_wrap=True)


@app.command()
def evaluate(
    cases: Annotated[Path, typer.Option(help="JSONL of cases, or CounterFact JSON.")],
    model: Model = DEFAULT_MODEL,
    method: Annotated[str, typer.Option(help="Name of the editor.")] = "rome",
    layer: Annotated[int | None, typer.Option(help="By default the model's preset.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N cases.", min=1)] = None,
    tokens: Annotated[int, typer.Option(help="Length of free continuations; 0: none.", min=0)] = 16,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; one of the same run is resumed.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json: Json = None,
) -> None:
    """Audit an editor: every case edited alone, read three ways, then undone."""
    from dataclasses import asdict

    from editing import evaluate as evaluate_
    from labkit.records import read_cases
    from labkit.results import RunDirectory

    editor = _editor(method, layer=layer, seed=seed)
    asked = read_cases(cases)[:limit]
    lab = _load(model, device, dtype)
    run = None
    if out is not None:
        ids = [case.case_id for case in asked]
        config = {"command": "evaluate", "method": method, "editor": asdict(editor), "cases": ids}
        run = RunDirectory.create(out, config | {"tokens": tokens}, lab, resume=True)
    with _progress() as told:
        result = evaluate_(lab, editor, asked, seed=seed, n_tokens=tokens, run=run, progress=told)
    summary = result.metrics()
    if run is not None:
        run.write_metrics(summary)
    if not _write_json(json, summary) or json != "-":
        _show_evaluation(result.title, summary)


@app.command()
def export(
    delta: Annotated[Path, typer.Option(help="A folder that `labkit edit` wrote.")],
    out: Out,
    model: Model = DEFAULT_MODEL,
    format: Annotated[str, typer.Option(help="hf: a Hugging Face checkpoint.")] = "hf",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json: Json = None,
) -> None:
    """Write an edited model as a checkpoint."""
    from editing import WeightDelta, export_hf
    from labkit.files import require_free

    if format != "hf":
        raise InputError(f"format {format!r}: this version writes hf")
    require_free(out)
    change = WeightDelta.load(delta)
    path = export_hf(_load(model, device, dtype), change, out)
    if not _write_json(json, {"checkpoint": str(path), "base": change.base}):
        out_console.print(f"checkpoint at {path}", soft_wrap=True)


@app.command()
def demo(
    model: Model = DEFAULT_MODEL,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; by default runs/demo-MODEL-TIME.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json: Json = None,
) -> None:
    """Locate, edit, audit and export one fact, and leave a report."""
    from labkit.demo import demo as demo_
    from labkit.demo import metrics
    from labkit.files import require_free

    if out is None:
        label = Path(model).name
        out = Path("runs") / f"demo-{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    require_free(out)
    lab = _load(model, device, dtype)
    with _progress() as told:
        result = demo_(lab, out, seed=seed, progress=told)
    if not _write_json(json, metrics(result)):
        _show_demo(result)


@app.command()
def lab(
    folder: Annotated[Path, typer.Argument(help="Where to open it.")] = Path("notebooks"),
    json: Json = None,
) -> None:
    """Open JupyterLab."""
    import os
    import shutil

    command = [sys.executable, "-m", "jupyterlab", str(folder)]
    if _write_json(json, {"command": command}):
        return
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}; name the one with your notebooks")
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        raise InputError("JupyterLab is not installed here: pip install 'labkit[lab]'")
    os.execv(sys.executable, command)


@pocket_app.command()
def train(
    out: Out,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Train the pocket model from nothing on its invented world."""
    from labkit.files import require_free
    from labkit.pocket.recipe import Recipe
    from labkit.pocket.train import train as train_

    require_free(out)
    _quiet()
    with _progress() as told:
        train_(
            out,
            recipe=Recipe(seed=seed),
            progress=lambda p: told(f"training, loss {p.loss:.3f}", p.step / p.steps),
        )
    if not _write_json(json, {"out": str(out)}):
        out_console.print(f"trained to {out}", soft_wrap=True)


# --- shared ------------------------------------------------------------------------------


def main() -> None:
    """Entry point: named errors become one line, everything else keeps its traceback."""
    arguments = [*sys.argv[1:]]
    for place, argument in enumerate(arguments):
        follower = arguments[place + 1 : place + 2]
        if argument == "--json" and (not follower or follower[0].startswith("--")):
            arguments.insert(place + 1, "-")
            break
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app(args=arguments, prog_name="labkit")
    except LabkitError as error:
        err_console.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        err_console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer has turned Ctrl-C into this
            err_console.print("interrupted; nothing was left half-written")
        raise


def _quiet() -> None:
    """Keep transformers' own bars and notes off the terminal."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _load(name: str, device: str, dtype: str) -> Any:
    """Open a model, with a line about what takes so long."""
    from labkit.models import load

    _quiet()
    with _progress() as told:
        told(f"opening {name}", None)
        return load(name, device=device, dtype=dtype)


def _editor(method: str, **fields: Any) -> Any:
    """An editor by name."""
    from editing import METHODS

    if method not in METHODS:
        raise InputError(f"method {method!r}: one of {', '.join(METHODS)}")
    return METHODS[method](**fields)


@contextmanager
def _progress() -> Iterator[Callable[[str, float | None], None]]:
    """A progress line on standard error, fed by (what, share done)."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=err_console,
        transient=err_console.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=None)
        shown = ""

        def told(what: str, share: float | None) -> None:
            nonlocal shown
            bar.update(task, description=what, total=None if share is None else 1.0)
            if share is not None:
                bar.update(task, completed=share)
            if what != shown and not err_console.is_terminal:
                bar.print(what)
            shown = what

        yield told


def _write_json(target: str | None, value: Any) -> bool:
    """Write JSON where `--json` says; False if it was not asked for."""
    if target is None:
        return False
    from dataclasses import asdict, is_dataclass

    from labkit.encoding import dumps
    from labkit.files import atomic_write

    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    text = dumps(plain) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        atomic_write(target, text)
    return True


def _show_evaluation(title: str, summary: dict[str, Any]) -> None:
    """An evaluation as a table."""
    table = Table("reading", "metric", "unedited", "edited", title=title)
    for reading in ("success", "accuracy", "generation"):
        for metric, after in summary.get(reading, {}).items():
            before = summary["unedited"].get(reading, {}).get(metric)
            name = "argmax accuracy" if reading == "accuracy" else reading
            table.add_row(name, metric, _estimate(before), _estimate(after))
    for state, shown in (("unedited", "unedited"), ("edited", "edited")):
        table.caption = (table.caption or "") + (
            f"perplexity {shown} {_estimate(summary['perplexity'][state])}  "
        )
    out_console.print(table)
    seconds = summary["seconds_per_edit"]
    out_console.print(
        f"{seconds['median']:.1f} s per edit (median; {seconds['low']:.1f} to "
        f"{seconds['high']:.1f}); intervals: 95 % over {summary['n']} case(s)"
    )


def _show_demo(result: Any) -> None:
    """The demo for a person at a terminal."""
    from labkit.demo import audit_table

    rewrite = result.case.rewrite
    where, layer = result.located.peak()
    new_where, new_layer = result.relocated.peak()
    out_console.rule(f"{rewrite.prompt} …")
    for shown, found in (("before", result.before), ("after", result.after)):
        top = zip(found.tokens[:3], found.probabilities[:3], strict=True)
        out_console.print(
            f"says {shown:<7}", "  ".join(f"{t.strip()!r} {p:.2f}" for t, p in top), highlight=False
        )
    out_console.print(result.lens.title, highlight=False)
    out_console.print(
        f"located: after layer {layer} at {result.located.tokens[where]!r}, indirect effect "
        f"{result.located.indirect_effect(where, layer)} over noise draws",
        highlight=False,
    )
    out_console.print(
        f"in the edited model: after layer {new_layer} at {result.relocated.tokens[new_where]!r}, "
        f"{result.relocated.indirect_effect(new_where, new_layer)}",
        highlight=False,
    )
    table = Table("reading", "asked as", "unedited", "edited", title="Audit, shares of prompts")
    for row in audit_table(result.audit).to_dict(orient="records"):
        table.add_row(
            row["reading"], row["metric"], _estimate(row["unedited"]), _estimate(row["edited"])
        )
    out_console.print(table)
    out_console.print(
        f"perplexity on held-out text: {result.audit.perplexity('before')} → "
        f"{result.audit.perplexity('after')}",
        highlight=False,
    )
    reload = result.reload
    out_console.print(
        f"checkpoint, in plain transformers: says {reload.says.strip()!r}; logits as in the lab to "
        f"{reload.largest_difference:.0e}; differs from the base in {len(reload.changed)} weight",
        highlight=False,
    )
    out_console.print(f"{sum(result.seconds.values()):.0f} s; {result.run.path}/report.html")


def _estimate(value: Any) -> str:
    """An estimate (or its dictionary) as text."""
    if value is None:
        return "–"
    fields = value if isinstance(value, dict) else value.to_dict()
    return f"{fields['mean']:.2f} [{fields['low']:.2f}, {fields['high']:.2f}]"


if __name__ == "__main__":
    main()
