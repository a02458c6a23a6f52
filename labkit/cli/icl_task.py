"""What the commands of `labkit icl` share: their task, the model asked, and how they answer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.command import MANY, ModelOptions, free, out_console, progress
from labkit.errors import InputError
from labkit.files import atomic_folder
from labkit.stats.estimate import Estimate, p_text

Task = Annotated[
    str, typer.Option(help="One of the lab's tasks (with --file, the one of this name in it).")
]
File = Annotated[
    Path | None,
    typer.Option(help="Your task: JSON (input and output), CSV, analogies, zipped lines."),
]
Queries = Annotated[int, typer.Option(help="Number of queries.", min=1, max=MANY)]
Draws = Annotated[int, typer.Option(help="Sets of demonstrations.", min=1, max=MANY)]
Tokens = Annotated[
    str | None,
    typer.Option(
        help="Tokens of a label: all, or first (the default where there are many labels)."
    ),
]
ReportOut = Annotated[
    Path | None, typer.Option(help="A new folder for result and report.", callback=free)
]


@dataclass(frozen=True)
class Question:
    """A task that is to be asked of a model, all that can be checked before it is opened done.

    Attributes:
        options: Which model, and where the JSON goes.
        name: Name of the task.
        out: Folder of result and report; none if None.
        own: The task, where it does not depend on the model.
    """

    options: ModelOptions
    name: str
    out: Path | None
    own: Any

    @classmethod
    def of(
        cls, options: ModelOptions, name: str, file: Path | None, out: Path | None
    ) -> "Question":
        """Read the task."""
        from labkit.icl.tasks.own import require_task
        from labkit.icl.tasks.readers import read_tasks

        if file is None:
            require_task(name)
            return cls(options, name, out, None)
        by_name = {each.name: each for each in read_tasks(file)}
        if len(by_name) == 1:
            name = next(iter(by_name))
        if name not in by_name:
            raise InputError(f"{file} has no task {name!r}; it has {', '.join(by_name)}")
        return cls(options, name, out, by_name[name])

    def ask(self, method: Any, tokens: str | None) -> tuple[Any, int]:
        """Open the model and ask; the result, and how many items were left out.

        Labels that cannot be told apart are an error where `tokens` says what is scored; else
        the items of all but the first of them are left out.
        """
        from labkit.icl import scorable, task

        lab = self.options.load()
        own = task(self.name, lab) if self.own is None else self.own
        fitted, scored = scorable(lab, own, tokens)  # type: ignore[arg-type]
        with progress() as told:
            result = replace(method, tokens=scored)(lab, fitted, progress=told)
        return result, len(own) - len(fitted)

    def answer(
        self, result: Any, summary: dict[str, Any], figures: list[Any], tables: dict[str, Any]
    ) -> bool:
        """Write folder and JSON where asked for; True if there is nothing left to be shown."""
        from labkit.results.report import Report

        if self.out is not None:
            page = Report(result.title)
            for figure in figures:
                page.figure(figure)
            for caption, table in tables.items():
                page.table(table, caption=caption)
            with atomic_folder(self.out) as folder:
                result.save(folder)
                page.save(folder / "icl.html")
            summary["out"] = str(self.out)
        if self.options.write_json(summary):
            return True
        out_console.print(result.title)
        if summary["left_out"]:
            out_console.print(
                f"{summary['left_out']} items left out: the tokens of their label begin another's",
            )
        return False

    def close(self) -> None:
        """Say where the report lies."""
        if self.out is not None:
            out_console.print(f"{self.out}/icl.html", soft_wrap=True)


def numbers(listed: str) -> tuple[int, ...]:
    """Numbers of demonstrations, separated by commas, in order.

    Raises:
        InputError: If one is no number.
    """
    try:
        return tuple(sorted({int(number) for number in listed.split(",")}))
    except ValueError as error:
        raise InputError(f"--k takes numbers such as 0,1,4, not {listed!r}") from error


def names(listed: str) -> tuple[str, ...]:
    """Names, separated by commas."""
    return tuple(name.strip() for name in listed.split(","))


def show_differences(rows: Any, *, against: str) -> None:
    """A line for each row of a table of differences; its first column is what differs."""
    for row in rows.to_dict("records"):
        first, *_ = row.values()
        out_console.print(
            f"{first} - {against}: {Estimate.from_dict(row):+.2f}, "
            f"p = {p_text(row['p_holm'], row['n'])} (Holm)",
        )
