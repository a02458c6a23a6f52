"""What the commands share: common options, a progress line, and output.

The first parameter of a command is the group of options that it shares with others; the
command line spells the group out as one option per field:

    app = typer.Typer()

    @command(app)
    def predict(options: ModelOptions, prompt: Annotated[str, typer.Argument()]) -> None:
        result = labkit.predict(options.load(), prompt)
        if not options.write_json(result):
            out_console.print(result.title)
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.models import OptionInfo

from labkit.errors import InputError
from labkit.files import atomic_write, require_free, require_writable
from labkit.stats.estimate import Estimate

DEFAULT_MODEL = "smollm2-135m"

MANY = 10_000
"""Draws, queries and the like at most: an interval over more says no more, and takes days."""

# What a user wrote is shown as it was written: `[red]` and `:smile:` are no markup.
out_console, err_console = (
    Console(markup=False, emoji=False, highlight=False, stderr=stderr) for stderr in (False, True)
)


def free(out: Path | None) -> Path | None:
    """Refuse an output folder that is in use while the options are read, before any work."""
    if out is not None:
        require_free(out)
    return out


def to_resume(out: Path | None) -> Path | None:
    """The same, but for a folder that holds a run: whether it is this one is seen later."""
    return out if out is not None and os.path.isfile(out / "config.json") else free(out)


def writable(file: str | None) -> str | None:
    """Refuse an output file that could not be written while the options are read."""
    if file is not None and file != "-":
        require_writable(file)
    return file


Out = Annotated[Path, typer.Option(help="A folder that does not exist or is empty.", callback=free)]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command takes."""

    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write JSON; - prints.", callback=writable),
    ] = None

    def write_json(self, value: Any) -> bool:
        """Write a command's result where `--json` says; False if it was not asked for."""
        if self.json is None:
            return False
        from labkit.results.encoding import dumps

        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        text = dumps(plain) + "\n"
        if self.json == "-":
            sys.stdout.write(text)
        else:
            atomic_write(self.json, text)
        return True


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """What every command takes that opens a model."""

    model: Annotated[str, typer.Option(help="Short name, local folder or hub id.")] = DEFAULT_MODEL
    device: Annotated[str, typer.Option(help="A torch device, or auto.")] = "cpu"
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32"
    prepend_bos: Annotated[
        bool | None,
        typer.Option(
            "--prepend-bos/--no-prepend-bos",
            help="Whether prompts get a BOS; by default what the tokenizer does.",
        ),
    ] = None

    def load(self) -> Any:
        """Open the model, with a line about what takes so long."""
        from labkit.models.loading import load

        quiet()
        with progress() as told:
            told(f"opening {self.model}", None)
            return load(
                self.model, device=self.device, dtype=self.dtype, prepend_bos=self.prepend_bos
            )


def command(
    app: typer.Typer, *, itself: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command, its group of shared options spelt out after its own.

    Where a command has a parameter of the name of a shared option (`predict MODEL` in place
    of `--model`), its own stands on the command line, and the group is told the value.

    Args:
        app: The family of commands that the command joins.
        itself: Whether it is what the family does by itself, with no command after its name
            (`labkit probe --task upos` beside `labkit probe map`).
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        group, *own = signature.parameters.values()
        hints = get_type_hints(group.annotation, include_extras=True)
        shared = [
            group.replace(name=field.name, default=field.default, annotation=hints[field.name])
            for field in fields(group.annotation)
        ]
        names = {parameter.name for parameter in own}

        @wraps(function)
        def run(**given: Any) -> None:
            if itself and _leads_on(given["ctx"]):
                return
            options = group.annotation(**{option.name: given[option.name] for option in shared})
            function(options, **{name: given[name] for name in names})

        listed = [*own, *(option for option in shared if option.name not in names)]
        for parameter in listed:
            _name_kind(parameter.annotation)
        if itself:
            listed.append(group.replace(name="ctx", annotation=typer.Context))
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in listed]
        )
        run.__annotations__ = {}
        name = function.__name__.rstrip("_").replace(
            "_", "-"
        )  # `list_` would hide a name of Python's
        (app.callback(invoke_without_command=True) if itself else app.command(name))(run)
        return function

    return register


def _name_kind(annotation: Any) -> None:
    """Name in one word what an option takes, since the column of the help is narrow."""
    kind, *about = get_args(annotation) or (annotation,)
    names = {"int": "N", "float": "X", "Path": "PATH", "str": "TEXT"}
    for info in about:
        if isinstance(info, OptionInfo) and info.metavar is None:
            words = re.findall(r"\w+", getattr(kind, "__name__", "") + " " + str(kind))
            info.metavar = next((names[word] for word in words if word in names), None)


def _leads_on(ctx: typer.Context) -> bool:
    """Whether a command follows; options before its name, which it would not see, are refused."""
    if ctx.invoked_subcommand is None:
        return False
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.replace("_", "-")
            raise InputError(f"write {flag} after {ctx.invoked_subcommand}")
    return True


@contextmanager
def progress() -> Iterator[Callable[[str, float | None], None]]:
    """A progress line on standard error, fed by (what, share done)."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
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
                bar.print(what, markup=False)
            shown = what

        yield told


def quiet() -> None:
    """Keep transformers' own bars and notes off the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


class _Fitted(Table):
    """A table that gives each column the longest of its words first, at least of its header."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, within the width that there is."""
        room = options.max_width - _BETWEEN * (len(self.columns) - 1)
        whole = sum(
            max(console.measure(c).maximum for c in (c.header, *c.cells)) for c in self.columns
        )
        if whole > room:  # a line breaks in front of an interval, not within
            for column in self.columns:
                column._cells = [_unbroken(cell) for cell in column._cells]
        cells = [[console.measure(cell) for cell in (c.header, *c.cells)] for c in self.columns]
        wanted = [max(cell.maximum for cell in column) for column in cells]
        words = [max(cell.minimum for cell in column) for column in cells]  # all unbroken
        headers = [column[0].minimum for column in cells]
        least = words if sum(words) <= room else headers
        if sum(wanted) > room >= sum(least):
            left, missing = room - sum(least), sum(wanted) - sum(least)
            for column, less, more in zip(self.columns, least, wanted, strict=True):
                column.width = less + left * (more - less) // max(1, missing)
        yield from super().__rich_console__(console, options)


_BETWEEN = 2  # spaces


def _unbroken(cell: Any) -> Any:
    """A cell whose intervals hold no space."""
    return re.sub(r"(\[\S+), (\S+\])", r"\1,\2", cell) if isinstance(cell, str) else cell


def columns(*headers: str, **more: Any) -> Table:
    """A table whose headers break between words only, also where the terminal is narrow.

    Args:
        headers: One per column.
        more: Of `rich.table.Table`: its title.
    """
    made = _Fitted(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), **more
    )
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


def short(estimate: Any, *, digits: int = 2) -> str:
    """An estimate, or a row of one, with few digits: `0.71 [0.66, 0.76]` or `0.71 (n = 1)`."""
    found = Estimate(estimate.mean, estimate.low, estimate.high, int(estimate.n))
    return f"{found:.{digits}f}".replace(", no interval", "")
