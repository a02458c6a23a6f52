"""JupyterLab with the notebooks, and the course: notebooks for students, and their grades."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.command import Options, Out, columns, command, out_console, progress, to_resume
from labkit.errors import InputError, MissingFile

app = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="Assignments that check themselves.")
app.add_typer(group, name="course")

ASSIGNMENTS = "Names, separated by commas; all by default."


@command(app)
def lab(
    options: Options,
    folder: Annotated[Path, typer.Argument(help="The folder to open.")] = Path("notebooks"),
) -> None:
    """Open JupyterLab."""
    import os
    import shutil

    arguments, environment = lab_command(folder)
    if options.write_json({"command": arguments}):
        return
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}; name the one with your notebooks")
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        raise InputError("JupyterLab is not installed here: pip install 'labkit[lab]'")
    os.execve(sys.executable, arguments, environment)


def lab_command(folder: Path) -> tuple[list[str], dict[str, str]]:
    """What is started, and its environment.

    A `jupyterlab.py` in the working folder is not run in its place (-P). The variable says
    the same to the kernels that JupyterLab starts; IPython puts a notebook's own folder
    after the standard library, so that modules beside a notebook can still be imported.
    """
    import os

    arguments = [sys.executable, "-P", "-m", "jupyterlab", str(folder)]
    return arguments, {**os.environ, "PYTHONSAFEPATH": "1"}


@command(group)
def build(
    options: Options,
    out: Out,
    student: Annotated[str | None, typer.Option(help="The id that all is drawn from.")] = None,
    assignments: Annotated[str | None, typer.Option(help=ASSIGNMENTS)] = None,
) -> None:
    """Write notebooks of exercises, and of solutions apart."""
    from labkit.course import build as build_

    names = None if assignments is None else [n.strip() for n in assignments.split(",")]
    made = build_(out, student, names)
    if options.write_json({"out": str(out), "assignments": [one.name for one in made]}):
        return
    out_console.print(f"{out}/exercises for students, {out}/solutions for you: {len(made)} each")


@command(group)
def grade(
    options: Options,
    folder: Annotated[Path, typer.Argument(help="The folder of submissions.")],
    out: Annotated[Path, typer.Option(help="A new folder, or one to resume.", callback=to_resume)],
) -> None:
    """Grade what students handed in: grades.csv, and a report each."""
    from labkit.course.grading import grade as grade_

    with progress() as told:
        graded = grade_(folder, out, progress=told)
    if options.write_json(graded.to_frame().to_dict("records")):
        return
    table = columns("student", "assignment", "points", "of", "remark")
    for row in graded.to_frame().itertuples():
        table.add_row(row.student, row.assignment, f"{row.points}", f"{row.of}", row.remark)
    out_console.print(table)
    for line in graded.limits:
        out_console.print(line)


@command(group)
def list_(options: Options) -> None:
    """List the assignments."""
    from labkit.course import assignment_names, read_assignment

    found = [read_assignment(name) for name in assignment_names()]
    rows = [(a.name, a.title, a.minutes, a.difficulty, a.points) for a in found]
    names = ("assignment", "about", "minutes", "difficulty", "points")
    if options.write_json([dict(zip(names, row, strict=True)) for row in rows]):
        return
    table = columns(*names)
    for row in rows:
        table.add_row(*map(str, row))
    out_console.print(table)
