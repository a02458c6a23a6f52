"""The reference of the command line: one section per command, from what `--help` says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx
from written import write

from labkit.cli import app as command_line


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the page before Sphinx looks for it."""
    app.connect("builder-inited", page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def page(app: Sphinx) -> None:
    """All commands, in the order of the help."""
    root = typer.main.get_command(command_line)
    lines = [
        "# Commands",
        "",
        "What `labkit COMMAND --help` says. Examples of all of them are in",
        "",
    ]
    lines[2] += " {doc}`/guide/commands`."
    for name, command in commands(root):
        lines += section(name, command)
    write(Path(app.srcdir) / "reference" / "commands.md", "\n".join(lines) + "\n")


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name; a group that does something by itself is one too."""
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        if not inner or command.invoke_without_command:
            yield f"{before}{name}", command
        if inner:
            yield from commands(command, f"{before}{name} ")


def section(name: str, command: Any) -> Iterator[str]:
    """One command: what it does, how it is called, and what it takes."""
    context = command.make_context(f"labkit {name}", [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    yield from (f"## labkit {name}", "", text(command.help or ""), "")
    yield from ("```text", f"labkit {name} {usage}", "```", "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            yield from (
                f"`{' '.join(record[0].split())}`",
                f": {text(record[1]) or 'See above.'}",
                "",
            )


def text(words: str) -> str:
    """Help as Markdown: paragraphs stay, and nothing of it is markup by accident."""
    paragraphs = words.replace("\b", "").split("\n\n")
    joined = "\n\n".join(" ".join(part.split()) for part in paragraphs if part.strip())
    for sign in "<>[]*_$|":
        joined = joined.replace(sign, f"\\{sign}")
    return joined
