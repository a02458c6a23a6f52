"""What students handed in: whose it is, which assignment, and the cells of its exercises."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.course.sources import assignment_names
from labkit.errors import MissingFile, NoSubmissions, one_line

LARGEST = 32 * 2**20
"""Bytes of a notebook at most."""


@dataclass(frozen=True)
class Submission:
    """A notebook that was handed in.

    The student is the folder below the one that is graded; where notebooks lie in it directly, the
    id that the notebook was built with, else its file's name.

    Attributes:
        path: Where it lies.
        student: Whose it is.
        assignment: Name of the assignment; None if nothing says it.
        digest: sha256 of the file.
        cells: Sources of its code cells, with the exercise that each is marked for.
        remarks: What is strange about it.
    """

    path: Path
    student: str
    assignment: str | None
    digest: str
    cells: tuple[tuple[str | None, str], ...] = ()
    remarks: tuple[str, ...] = field(default=())

    def source_of(self, exercise: str) -> str | None:
        """The cell that answers an exercise: the last marked for it, or that defines it."""
        marked = [source for name, source in self.cells if name == exercise]
        defining = [s for _, s in self.cells if re.search(rf"^def {exercise}\b", s, flags=re.M)]
        both = [source for source in marked if source in defining]
        return next((found[-1] for found in (both, defining, marked) if found), None)


def read_submissions(folder: Path) -> tuple[list[Submission], list[Submission]]:
    """The submissions of a folder, and those that a later one of the same student replaces.

    Raises:
        MissingFile: If there is no such folder.
        NoSubmissions: If no notebook in it belongs to the course.
    """
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}; name the one with the submissions")
    paths = sorted(
        path
        for path in folder.rglob("*.ipynb")
        if path.is_file() and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )  # fmt: skip
    known = assignment_names()
    found = [_read(path, folder, known) for path in paths]
    if not any(one.assignment for one in found):
        raise NoSubmissions(
            f"{folder} holds no notebook of an assignment ({len(paths)} notebooks in all)"
        )
    latest: dict[tuple[str, str | None], Submission] = {}
    earlier = []
    for one in sorted(found, key=lambda one: (one.path.stat().st_mtime, one.path)):
        key = (one.student, one.assignment)
        if key in latest:
            earlier.append(latest[key])
        latest[key] = one
    return sorted(latest.values(), key=lambda one: one.path), earlier


def _read(path: Path, folder: Path, known: Sequence[str]) -> Submission:
    """Read a file that may be anything."""
    inner = path.relative_to(folder).parts
    named = next((name for name in known if name in path.stem), None)
    bare = path.stem if named is None else path.stem.replace(named, "").strip(" _-.")
    student = inner[0] if len(inner) > 1 else bare or path.stem
    if path.stat().st_size > LARGEST:
        told = f"larger than {LARGEST // 2**20} MiB, so it was not read"
        return Submission(path, student, named, f"{path.stat().st_size} bytes", (), (told,))
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        notebook = json.loads(data)
        cells = [
            (_about(cell).get("exercise"), _source(cell))
            for cell in notebook["cells"]
            if cell["cell_type"] == "code"
        ]
        about = _about(notebook)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = f"not a notebook: {one_line(error, 120)}"
        return Submission(path, student, named, digest, (), (told,))
    assignment = about.get("assignment") if about.get("assignment") in known else named
    remarks = []
    owner = about.get("student")
    if isinstance(owner, str) and owner != student:
        if len(inner) == 1:
            student = owner
        else:
            remarks.append(f"the notebook was built for {one_line(owner, 60)}")
    return Submission(path, student, assignment, digest, tuple(cells), tuple(remarks))


def _about(part: Any) -> dict[str, Any]:
    """What the course has written into the metadata of a cell or a notebook."""
    about = part.get("metadata", {}).get("labkit", {})
    return about if isinstance(about, dict) else {}


def _source(cell: Any) -> str:
    """The source of a cell, one text or a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
