"""The command line: every command is a thin call of one documented function.

Bad input ends in one line on standard error and exit status 1 (2 for wrong usage); Ctrl-C
in 130, with nothing half-written. What nobody foresaw ends in 70, in one line as well: it
names a file with the traceback. `--json FILE` writes a command's result as JSON, to standard
output for `-`, which a bare `--json` means too.

A module holds a family of commands, `labkit.cli.command` what they share. The modules of the
library are imported inside the commands, so that `labkit --help` stays quick.
"""

import logging
import sys
from typing import Annotated

import typer

from labkit.cli import (
    cloze,
    demo,
    editing,
    ending,
    icl,
    lab,
    locate,
    memories,
    models,
    probes,
    sweep,
    weights,
)
from labkit.cli.command import out_console
from labkit.cli.ending import INTERRUPTED

__all__ = ["INTERRUPTED", "app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Open a language model, find where a fact is stored, correct it, audit the correction.",
)
for family in (  # in the order of the help
    models,
    locate,
    memories,
    probes,
    cloze,
    icl,
    sweep,
    editing,
    weights,
    demo,
    lab,
):
    app.add_typer(family.app)


def _version(asked: bool) -> bool:
    """Say which version this is, and stop."""
    if asked:
        from labkit import __version__

        out_console.print(f"labkit {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Nothing: what is asked of all commands has been read."""


def main() -> None:
    """Entry point: every error ends in one line, and the exit status tells its kind."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    ending.main(app, _with_dash(sys.argv[1:]))


def _with_dash(arguments: list[str]) -> list[str]:
    """The arguments, the first `--json` that names no file followed by `-`."""
    for place, argument in enumerate(arguments):
        follower = arguments[place + 1 : place + 2]
        if argument == "--json" and (not follower or follower[0].startswith("--")):
            return [*arguments[: place + 1], "-", *arguments[place + 1 :]]
    return arguments
