"""Weight changes exported, found and undone: export, diff, undo."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.command import (
    ModelOptions,
    Options,
    Out,
    columns,
    command,
    out_console,
    progress,
    quiet,
)
from labkit.errors import InputError, MalformedRecord, MissingFile
from labkit.stats.estimate import Estimate

app = typer.Typer()

FORMATS = ("hf", "peft", "gguf")


@command(app)
def export(
    options: ModelOptions,
    delta: Annotated[
        list[Path],
        typer.Option(help="A folder that `labkit edit` wrote; repeated: one after the other."),
    ],
    out: Out,
    format: Annotated[
        str, typer.Option(help="hf: a checkpoint; peft: a LoRA adapter; gguf: one file.")
    ] = "hf",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Number format of the changed weights in the files; by default as loaded."
        ),
    ] = None,
    load_dtype: Annotated[
        str, typer.Option(help="In memory: the number format that the edit was made in.")
    ] = "float32",
    base: Annotated[
        Path | None, typer.Option(help="For gguf: the file that the edit is written into.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Truncate the change to this rank first.", min=1)
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="A metrics.json to state in the model card.")
    ] = None,
    originals: Annotated[
        bool, typer.Option(help="For hf: keep the original weights, which an exact undo needs.")
    ] = True,
) -> None:
    """Write an edited model for use elsewhere, read it back, and report what it keeps."""
    from editing import ExportOptions, WeightDelta, export_gguf, export_hf, export_peft, truncated
    from editing.export.record import read_record

    if format not in FORMATS:
        raise InputError(f"format {format!r}: one of {', '.join(FORMATS)}")
    if base is not None and format != "gguf":
        raise InputError(f"--base is the file that a GGUF export is written into, not for {format}")
    if dtype is not None and format == "peft":
        raise InputError("an adapter is float32 whatever its base is: leave --dtype out")
    metrics = None if audit is None else _metrics(audit)
    if not originals and format != "hf":
        raise InputError(
            f"--no-originals is for a checkpoint: nothing is kept in a {format} export"
        )
    how = ExportOptions(dtype=dtype, keep_originals=originals)
    change, *more = map(WeightDelta.load, delta)
    for later in more:
        change = change.then(later)
    if rank is not None:
        change = truncated(change, rank=rank)
    if format == "gguf" and base is None:
        from labkit.models.gguf_source import gguf_file

        with progress() as told:
            base = gguf_file(options.model, progress=told)
    lab = replace(options, dtype=load_dtype).load()
    with progress() as told:
        if format == "peft":
            export_peft(lab, change, out, how, audit=metrics, progress=told)
        elif base is not None:
            export_gguf(lab, change, out, how, base=base, audit=metrics, progress=told)
        else:
            export_hf(lab, change, out, how, audit=metrics, progress=told)
    record = read_record(out)
    check = record["check"]
    summary = {"out": str(out), "format": format, "base": change.base, "check": check}
    if not options.write_json(summary | {"result": record["result"]["fingerprint"]}):
        kept = min(row["kept"] for row in check["weights"])
        out_console.print(f"{kept:.2%} of the change is in the files, as {record['dtype']}")
        table = columns("state", "P(target), a token", title=f"{check['rewrites']} rewrite(s)")
        for state, found in check["probability_of_target"].items():
            table.add_row(state, f"{Estimate.from_dict(found):.3f}")
        if check["probability_of_target"]:
            out_console.print(table)
        out_console.print(f"written to {out}", soft_wrap=True)


@command(app)
def diff(
    options: ModelOptions,
    edited: Annotated[str, typer.Option(help="The other checkpoint: a folder, name or hub id.")],
    out: Out,
    rank: Annotated[
        int | None, typer.Option(help="Rank of each difference; by default it is found.", min=1)
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How far above rounding a singular value counts, as a factor.")
    ] = 1.0,
) -> None:
    """Turn the difference of two checkpoints into a delta."""
    from editing import diff as diff_

    if not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance {tolerance}: choose a finite factor of at least 0")
    lab = options.load()
    with progress() as told:
        found = diff_(lab, edited, rank=rank, tolerance=tolerance, progress=told)
    found.save(out)
    stated = found.provenance["weights"]
    summary = {"delta": str(out), "base": found.base, "weights": stated}
    if not options.write_json(summary):
        table = columns("weight", "rank", "norm", "relative error", title=f"{len(stated)} differ")
        for name, change in found.changes.items():
            error = "dense" if stated[name] is None else f"{stated[name]['relative_error']:.2g}"
            norm = f"{change.dense().norm():.3f}"
            table.add_row(name, str(change.rank), norm, error)
        out_console.print(table)
        out_console.print(f"saved to {out}", soft_wrap=True)


@command(app)
def undo(
    options: Options,
    delta: Annotated[Path, typer.Option(help="The edit to undo, as it was saved.")],
    out: Out,
    model: Annotated[
        Path | None, typer.Option(help="A checkpoint that `labkit export` wrote.")
    ] = None,
    total: Annotated[
        Path | None, typer.Option(help="Or a delta that several edits were composed into.")
    ] = None,
) -> None:
    """Undo one edit of a checkpoint or a composed delta, and say how exact that is."""
    from editing import WeightDelta, undo_checkpoint
    from editing import undo as undo_

    if (model is None) == (total is None):
        raise InputError("name either --model, an exported checkpoint, or --total, a delta")
    change = WeightDelta.load(delta)
    if model is not None:
        quiet()
        with progress() as told:
            answer = undo_checkpoint(model, change, out, progress=told)
    else:
        remaining, answer = undo_(WeightDelta.load(str(total)), change)
        remaining.save(out)
    summary = {
        "out": str(out),
        "title": answer.title,
        "exact": answer.exact,
        "weights": answer.weights.to_dict("records"),
        "remaining": answer.remaining,
        "made_on_top_of_it": answer.stale,
    }
    if not options.write_json(summary):
        out_console.print(answer.title, soft_wrap=True)
        for stale in answer.stale:
            line = f"made on top of it, to be audited again: {stale}"
            out_console.print(line, soft_wrap=True)
        out_console.print(f"{answer.remaining} edit(s) are left; written to {out}", soft_wrap=True)


def _metrics(path: Path) -> dict[str, Any]:
    """The metrics of an audit, as `labkit evaluate` writes them.

    Raises:
        MissingFile, MalformedRecord: If there are none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingFile(f"there is no audit to read in {path}: {error}") from error
    except ValueError as error:
        raise MalformedRecord(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise MalformedRecord(f"{path} holds no metrics")
    return found
