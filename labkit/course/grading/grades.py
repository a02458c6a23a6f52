"""Grades: points per exercise, a table, and a report per student."""

import csv
import hashlib
import io
import json
import re
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.course import check
from labkit.course.grading.session import PATIENCE, Bench, StudentError
from labkit.course.grading.submissions import Submission, read_submissions
from labkit.course.sources import Assignment, course_folder, read_assignment
from labkit.errors import CheckFailed, OutputError, one_line
from labkit.files import atomic_write, require_free
from labkit.progress import Progress, listener

FIELDS = ("student", "assignment", "points", "of", "remark", "file")


@dataclass(frozen=True)
class Graded:
    """What a grading came to.

    Attributes:
        rows: One per submission, with its exercises.
        limits: What students' code could not be kept from on this system, in words.
    """

    rows: tuple[dict[str, Any], ...]
    limits: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row per submission."""
        rows = [[row[name] for name in FIELDS] for row in self.rows]
        return pd.DataFrame(rows, columns=pd.Index(FIELDS))


def grade(
    folder: str | Path,
    out: str | Path,
    *,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> Graded:
    """Grade a folder of submissions.

    Each exercise runs in a process of its own; see `labkit.course.grading.isolation` for what it
    cannot do, and where that ends. The checks run here, on seeds that no student has. Of a
    student's notebook only the cells of the exercises are run, with the teacher's own setup.

    Args:
        folder: Notebooks, in a folder per student or directly.
        out: A new folder for `grades.csv`, `reports/` and `results/`, or one of the same folder's
            grading, which is resumed: what was graded and has not changed since is kept.
        patience: Seconds for one exercise.
        progress: Called as the grading goes on.

    Raises:
        MissingFile, NoSubmissions: If there is nothing to grade.
        OutputError: If `out` holds something else.
        UnknownAssignment: Without the sources of the course.
    """
    folder, out, tell = Path(folder), Path(out), listener(progress)
    submissions, earlier = read_submissions(folder)
    seed = _begin(folder, out)
    assignments = {s.assignment: read_assignment(s.assignment) for s in submissions if s.assignment}
    hidden = [str(path.resolve()) for path in (folder, out, course_folder())]
    rows: list[dict[str, Any]] = []
    isolated: dict[str, bool] = {}
    with ExitStack() as stack:
        benches: dict[str, tuple[Bench, Any]] = {}
        for number, one in enumerate(submissions):
            tell(f"grading {one_line(one.path.relative_to(folder), 60)}", number / len(submissions))
            place = out / "results" / f"{_slug(one, folder)}.json"
            row = _kept(place, one)
            if row is None:
                name = one.assignment
                assignment = None if name is None else assignments[name]
                if one.cells and name and assignment is not None and name not in benches:
                    namespace: dict[str, Any] = {}
                    for source in assignment.setup:
                        exec(compile(source, "<setup>", "exec"), namespace)
                    bench = stack.enter_context(Bench(assignment.setup, hidden, patience))
                    benches[name] = bench, namespace["model"]
                exercises = []
                if assignment is not None and name is not None:
                    ready, model = benches.get(name, (None, None))
                    isolated = ready.isolated if ready is not None else isolated
                    exercises = _exercises(one, assignment, ready, model, seed)
                row = _row(one, exercises, [e.path.name for e in earlier if _same(e, one)])
                atomic_write(place, json.dumps(row | {"isolated": isolated}, indent=1))
            rows.append(row)
            isolated = row.get("isolated") or isolated
            _report(row, out / "reports" / f"{place.stem}.html")
    atomic_write(out / "grades.csv", _csv(rows, assignments))
    return Graded(tuple(rows), tuple(_limits(isolated)))


def _begin(folder: Path, out: Path) -> int:
    """Open the folder of a grading, new or to be resumed; the seed that its checks draw from."""
    config = out / "config.json"
    if config.is_file():
        try:
            told = json.loads(config.read_text(encoding="utf-8"))
            if told["command"] == "course grade" and told["folder"] == str(folder.resolve()):
                return int(told["seed"])
        except (ValueError, KeyError, TypeError):
            pass
        raise OutputError(f"{out} holds something else than a grading of {folder}")
    require_free(out)
    for part in ("results", "reports"):
        (out / part).mkdir(parents=True)
    seed = secrets.randbits(62)
    told = {"command": "course grade", "folder": str(folder.resolve()), "seed": seed}
    atomic_write(config, json.dumps(told))
    return seed


def _exercises(
    one: Submission, assignment: Assignment, bench: Bench | None, model: Any, seed: int
) -> list[dict[str, Any]]:
    """Points and remark of every exercise."""
    found = []
    for exercise in assignment.exercises:
        source = one.source_of(exercise.name)
        points, remark = 0, "there is no cell for it"
        if source is not None and bench is not None:
            try:
                with bench.session(exercise.name, source) as function:
                    getattr(check, exercise.name)(function, model=model, seed=seed)
                points, remark = exercise.points, "every law holds"
            except NotImplementedError:
                remark = "not filled in"
            except (CheckFailed, StudentError) as error:
                remark = str(error)
            except Exception as error:  # an answer that a check did not foresee earns nothing
                remark = f"the check cannot make anything of the answer: {one_line(error, 160)}"
        about = {"exercise": exercise.name, "points": points, "of": exercise.points}
        found.append({**about, "remark": remark})
    return found


def _row(one: Submission, exercises: list[dict[str, Any]], earlier: list[str]) -> dict[str, Any]:
    """What is kept of a submission."""
    remarks = [*one.remarks]
    if one.assignment is None and not remarks:
        remarks.append("it does not say which assignment it is")
    remarks += [f"{name} was replaced by it" for name in earlier]
    points, of = (sum(e[what] for e in exercises) for what in ("points", "of"))
    return {
        "student": one.student, "assignment": one.assignment or "", "points": points, "of": of,
        "remark": "; ".join(remarks), "file": str(one.path), "digest": one.digest,
        "exercises": exercises,
    }  # fmt: skip


def _same(earlier: Submission, one: Submission) -> bool:
    """Whether two are of one student, for one assignment."""
    return (earlier.student, earlier.assignment) == (one.student, one.assignment)


def _slug(one: Submission, folder: Path) -> str:
    """A file's name for a submission, which no other has."""
    inner = str(one.path.relative_to(folder))
    digest = hashlib.sha256(inner.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", inner.removesuffix(".ipynb"))[:60].strip("-")
    return f"{plain}-{digest}"


def _kept(place: Path, one: Submission) -> dict[str, Any] | None:
    """The result of an earlier start, if the submission is still the same."""
    if not place.is_file():
        return None
    row = json.loads(place.read_text(encoding="utf-8"))
    return row if row.get("digest") == one.digest else None


def _csv(rows: list[dict[str, Any]], assignments: dict[Any, Assignment]) -> str:
    """The table for a learning platform; no cell of it is a formula."""
    exercises = [e.name for a in assignments.values() for e in a.exercises]
    names = list(dict.fromkeys(exercises))
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow([*FIELDS, *names])
    for row in rows:
        points = {e["exercise"]: e["points"] for e in row["exercises"]}
        table.writerow(
            [*(_inert(row[name]) for name in FIELDS), *(points.get(name, "") for name in names)]
        )
    return written.getvalue().encode("utf-8", "backslashreplace").decode()


def _inert(value: Any) -> Any:
    """A cell that a spreadsheet does not calculate."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def _report(row: dict[str, Any], path: Path) -> None:
    """A page for a student."""
    from labkit.results.report import Report

    report = Report(f"{row['assignment'] or 'Submission'}: {row['student']}")
    report.paragraph(f"{row['points']} of {row['of']} points. {row['remark']}".strip())
    if row["exercises"]:
        report.table(pd.DataFrame(row["exercises"]), caption="Exercises")
    for line in _limits(row.get("isolated", {})):
        report.paragraph(line)
    report.save(path)


def _limits(isolated: dict[str, bool]) -> list[str]:
    """What could not be cut off, a line each."""
    said = {
        "network": "this system does not let the network be cut off: the code had it",
        "files": "this system does not let files be made read-only: the code could write them",
        "processes": "this system has no process namespaces: what the code started may still run",
    }
    return [said[what] for what, done in isolated.items() if not done]
