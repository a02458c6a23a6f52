"""Which layers of a model can be edited: the sweep that writes its preset."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

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
from labkit.cli.editor_options import EditorOptions
from labkit.errors import InputError, LayerOutOfRange

app = typer.Typer()


@command(app)
def sweep(
    options: ModelOptions,
    method: Annotated[str, typer.Option(help="Name of the editor.")] = "rome",
    cases: Annotated[
        Path | None,
        typer.Option(help="JSONL of cases; by default facts that the model knows, rewritten."),
    ] = None,
    n_cases: Annotated[
        int | None, typer.Option(help="How many cases; by default 20, or all of the file.", min=1)
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Such as 0-12 or 2,4,6-9; by default all.", metavar="RANGE")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(help="Layers to edit after the screening: 4, or all of --layers.", min=1),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for finished edits; a killed sweep resumes there.", callback=to_resume
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Text behind contexts and second moments; by default the model's own."),
    ] = None,
    keep: Annotated[bool, typer.Option(help="Write the model's preset.")] = True,
    seed: Seed = 0,
) -> None:
    """Find the layer where a model can be edited, and keep it as the model's preset."""
    from editing.layers.sweep import CASES, SweepOptions, sweep_layers
    from editing.layers.tuning_cases import known_cases
    from editing.presets.preset_files import preset_file
    from labkit.facts.records import read_cases

    named_options = EditorOptions(method=method, seed=seed, corpus=corpus)
    editor, text = named_options.editor(), named_options.text()
    named = None if layers is None else layer_range(layers)
    read = None if cases is None else read_cases(cases)[:n_cases]
    lab = options.load()
    with progress() as told:
        found = sweep_layers(
            lab,
            known_cases(lab, n_cases or CASES, seed=seed, progress=told) if read is None else read,
            named,
            editor,
            SweepOptions(n_candidates=candidates, keep=keep, seed=seed, corpus=text),
            run=out,
            progress=told,
        )
    preset = found.preset()
    written = str(preset_file(lab)) if keep and preset_file(lab).is_file() else None
    summary = {"method": method, "preset": preset, "written": written, "title": found.title}
    if not options.write_json(summary) or options.json != "-":
        out_console.print(table(found))
        out_console.print(
            f"layer {preset.layer}; for methods that edit several: layers "
            f"{', '.join(map(str, preset.layers))} (by the margin; not edited together)"
        )
        if written is not None:
            out_console.print(f"preset written to {written}", soft_wrap=True)


def layer_range(text: str, option: str = "--layers") -> list[int]:
    """The layers of `0-12` or `2,4,6-9`, as an option gives them.

    Raises:
        InputError: If it is neither.
    """
    if not text.strip():
        raise InputError(f"{option} names no layer: write it as 0-12, or as 2,4,6-9")
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise InputError(f"{option} {text!r}: write it as 0-12, or as 2,4,6-9")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise InputError(f"{option} {text!r}: {part.strip()} ends before it begins")
        if last >= DEEPEST:
            raise LayerOutOfRange(f"{option} {text!r}: no model has {last:,} layers")
        layers += range(first, last + 1)
    return layers


def table(found: Any) -> Table:
    """Screening and edits of every layer, for a terminal."""
    shown = columns("layer", "hit", "leak", "margin", *EDITED, title=found.title)
    frame = found.to_frame()
    screening = frame[frame["state"] == "screening"]
    edited = frame[(frame["state"] == "edited") & (frame["reading"] == "success")]
    for layer in sorted(set(frame["layer"])):
        cells = [
            *(_cell(screening, layer, part) for part in ("hit", "leak", "margin")),
            *(_cell(edited, layer, metric) for metric in EDITED),
        ]
        style = "bold" if layer == found.layer else None
        shown.add_row(str(layer), *cells, style=style)
    shown.caption = (
        "hit, leak: share of an edit that paraphrases and neighbours would get, read off keys; "
        "margin: their difference; the rest: success of the edits. Intervals: 95 % over "
        f"{found.n_cases} case(s)"
    )
    return shown


DEEPEST = 10_000
"""Layers that no model has: so many numbers need not be written out to be refused."""

EDITED = ("efficacy", "paraphrase", "neighbourhood", "score")


def _cell(rows: Any, layer: int, metric: str) -> str:
    """One number with its interval, or nothing."""
    found = rows[(rows["layer"] == layer) & (rows["metric"] == metric)]
    return next((short(row) for row in found.itertuples()), "")
