"""Notebooks for students, and solutions apart, out of the sources of the course."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.arguments import checked
from labkit.course.sources import Assignment, assignment_names, read_assignment
from labkit.errors import InputError
from labkit.files import atomic_folder, require_free

LONGEST = 80
"""Letters of a student's id at most."""

README = """\
# {title}

{rows}

Each exercise is a function to be filled in. The line below it calls the check: run the cell, and
it says whether the laws hold that an answer must keep, or what kind of mistake it sees. Nothing is
hidden: when your work is graded, the same checks run on other random numbers, in a clean process,
on what stands in the cells of the exercises alone. So whatever a function needs must be in its own
cell or among its arguments; functions from other cells of yours are not there.

Install what is needed with `pip install -r requirements.txt`, and open the notebooks with
`labkit lab .`. Before you hand a notebook in, restart its kernel and run all cells. Do not rename
the functions, and hand in the `.ipynb` file.
"""


@checked
def build(
    out: str | Path, student: str | None = None, names: Sequence[str] | None = None
) -> list[Assignment]:
    """Write the notebooks of the course into a new folder.

    `out/exercises` can be given to students as it is, with a README; `out/solutions` is for the
    teacher. With a student, whose id stands in the notebooks, what is drawn at random is drawn
    from the id (`labkit.course.drawn`), so that two students see different numbers.

    Args:
        out: A folder that does not exist or is empty.
        student: The id of one student; without it all get the same.
        names: Which assignments; all by default.

    Returns:
        The assignments that were written.

    Raises:
        UnknownAssignment: For a name that no assignment has, or without the sources.
        MalformedAssignment: If a source does not hold what it should.
        InputError: If the id is empty, too long, or not one line of text.
        OutputError: If the folder is in use or cannot be written; nothing is half-written.
    """
    require_free(out)
    if student is not None and not (0 < len(student) <= LONGEST and student.isprintable()):
        raise InputError(f"{student!r} is no id: give one line of 1 to {LONGEST} letters")
    chosen = assignment_names() if names is None else list(dict.fromkeys(names))
    found = [read_assignment(name) for name in chosen]
    if not found:
        raise InputError("no assignment was asked for; name one, or none for all")
    with atomic_folder(out) as folder:
        for part in ("exercises", "solutions"):
            (folder / part).mkdir()
            for one in found:
                place = folder / part / f"{one.name}.ipynb"
                _write(notebook_of(one, student, solved=part == "solutions"), place)
        (folder / "exercises" / "README.md").write_text(_readme(found), encoding="utf-8")
        (folder / "exercises" / "requirements.txt").write_text(_requirements(), encoding="utf-8")
    return found


def notebook_of(assignment: Assignment, student: str | None = None, *, solved: bool) -> Any:
    """An assignment as a notebook (nbformat 4.5), without outputs.

    Args:
        assignment: The assignment.
        student: The id of the student that it is for.
        solved: Whether it holds the solutions, or the exercises.
    """
    from nbformat import v4

    exercises = {one.name: one for one in assignment.exercises}
    cells = []
    for number, cell in enumerate(assignment.cells):
        tags = set(cell.metadata.get("tags", ()))
        source, metadata = cell.source.replace("  # noqa: F401", ""), {}
        if "stub" in tags or ("solution" in tags and cell.cell_type != "code" and not solved):
            continue
        if "student" in tags and student is not None:
            source = f"STUDENT = {student!r}"
        if "solution" in tags and cell.cell_type == "code":
            one = exercises[cell.metadata["exercise"]]
            source = f"{one.solution if solved else one.stub}\n\n\n{one.call}"
            metadata = {"labkit": {"exercise": one.name, "points": one.points}}
        made = v4.new_markdown_cell if cell.cell_type == "markdown" else v4.new_code_cell
        identity = hashlib.sha256(f"{assignment.name} {number}".encode()).hexdigest()[:12]
        cells.append(made(source, metadata=metadata, id=identity))
    about = {"assignment": assignment.name, "solved": solved}
    if student is not None:
        about["student"] = student
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "labkit": about})


def _write(notebook: Any, path: Path) -> None:
    """Write a notebook that is valid."""
    import nbformat

    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def _readme(assignments: Sequence[Assignment]) -> str:
    """What a student reads first."""
    rows = ["| notebook | about | minutes | difficulty | points |", "|---|---|---|---|---|"]
    rows += [
        f"| `{one.name}.ipynb` | {one.title} | {one.minutes} | {one.difficulty} of 5 | "
        f"{one.points} |"
        for one in assignments
    ]
    return README.format(title="Exercises", rows="\n".join(rows))


def _requirements() -> str:
    """What a student installs: the version of the lab that the checks were written for."""
    from labkit import __version__

    return f"labkit=={__version__}\n"
