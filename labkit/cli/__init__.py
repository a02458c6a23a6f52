"""The command line: every command is a thin call of one documented function.

Bad input ends in one line on standard error and exit status 1 (2 for wrong usage); Ctrl-C
in 130, with nothing half-written. `--json FILE` writes a command's result as JSON, to
standard output for `-`, which a bare `--json` means too.

A module holds a family of commands, `labkit.cli.command` what they share. The modules of the
library are imported inside the commands, so that `labkit --help` stays quick.
"""

import logging
import sys

import typer

from labkit.cli import (
    cloze,
    demo,
    editing,
    icl,
    lab,
    locate,
    memories,
    models,
    probes,
    sweep,
    weights,
)
from labkit.cli.command import err_console
from labkit.errors import LabkitError

INTERRUPTED = 130

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
