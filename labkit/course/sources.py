"""Sources of assignments: exercise and solution in one py:percent file, told apart by tags.

A cell is for both notebooks unless its tags say otherwise:

| tag | what the cell is |
|---|---|
| `student` | `STUDENT = "..."` and nothing else; `build` fills in the id. Exactly one |
| `setup` | run before the exercises, by the student and by the grader |
| `solution` | code: the solution of an exercise. Text: stands in the solutions only |
| `stub` | what the student is given for an exercise, where it shall not be derived |

A solution names its exercise and its points, and is one function of that name:

    # %% tags=["solution"] exercise="rome_update" points=3
    def rome_update(W, k_star, v_star, C):
        ...

Its stub is made from the syntax tree: the signature and the docstring stay, the body becomes
`raise NotImplementedError`. No line of the body can stay behind, whatever it looks like.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.course import check
from labkit.errors import InputError, MalformedAssignment, UnknownAssignment, one_line

TAGS = ("student", "setup", "solution", "stub")


@dataclass(frozen=True)
class Exercise:
    """An exercise of an assignment.

    Attributes:
        name: Name of the function that is asked for, and of its check.
        points: What it is worth.
        solution: The source of the solution.
        stub: What the student is given in its place.
    """

    name: str
    points: int
    solution: str
    stub: str

    @property
    def call(self) -> str:
        """The line that calls the check, below the student's function."""
        return f"check.{self.name}({self.name}, model=model, seed=SEED)"


@dataclass(frozen=True)
class Assignment:
    """An assignment, as its source tells it.

    Attributes:
        name: Name of the source, `06_rome`.
        title: Its first heading.
        minutes: How long it takes.
        difficulty: From 1 (follow the text) to 5 (think for yourself).
        exercises: In the order of the source.
        cells: All cells of the source, with `tags` and `exercise` in their metadata.
    """

    name: str
    title: str
    minutes: int
    difficulty: int
    exercises: tuple[Exercise, ...]
    cells: tuple[Any, ...]

    @property
    def points(self) -> int:
        """What all exercises are worth together."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def setup(self) -> list[str]:
        """The sources of the cells that are run before the exercises."""
        tagged = [(_tags(cell), cell.source) for cell in self.cells]
        return [source for tags, source in tagged if tags & {"setup", "student"}]


def course_folder() -> Path:
    """Where the sources lie: `notebooks/course` of the checkout that the package is run from.

    Raises:
        UnknownAssignment: If there is no such folder: an installed wheel has none.
    """
    folder = Path(__file__).resolve().parents[2] / "notebooks" / "course"
    if not folder.is_dir():
        raise UnknownAssignment(
            f"there is no folder {folder}: the sources of the course come with the repository, "
            "not with an installed package. Clone it, and pip install -e '.[lab]' there"
        )
    return folder


def assignment_names() -> list[str]:
    """Names of the assignments, in the order of the course.

    Raises:
        UnknownAssignment: If the sources are not here.
    """
    return sorted(path.stem for path in course_folder().glob("*.py"))


def read_assignment(name: str) -> Assignment:
    """Read an assignment by its name.

    Raises:
        UnknownAssignment: If there is none of that name.
        MalformedAssignment: If its source does not hold what it should.
    """
    known = assignment_names()
    if name not in known:
        raise UnknownAssignment(f"there is no assignment {name!r}; there are {', '.join(known)}")
    path = course_folder() / f"{name}.py"
    return parse_assignment(name, path.read_text(encoding="utf-8"))


def parse_assignment(name: str, text: str) -> Assignment:
    """Read the source of an assignment.

    Args:
        name: Its name.
        text: The source, py:percent.

    Raises:
        MalformedAssignment: If it does not hold what it should; the message says what, and where.
        InputError: If jupytext, which reads notebooks as text, is not installed.
    """
    try:
        import jupytext
    except ImportError as error:
        raise InputError("the course needs jupytext: pip install 'labkit[lab]'") from error
    try:
        notebook = jupytext.reads(text, fmt="py:percent")
    except Exception as error:  # yaml and jupytext have errors of their own
        raise MalformedAssignment(f"{name}: {one_line(error)}") from error
    cells = notebook.cells
    title = next(
        (c.source.splitlines()[0].removeprefix("# ") for c in cells if c.source.startswith("# ")
         and c.cell_type == "markdown"),
        None,
    )  # fmt: skip
    _require(title is not None, name, "no text begins with a heading, '# Title'")
    about = notebook.metadata.get("course", {})
    minutes, difficulty = _number(about, "minutes", name), _number(about, "difficulty", name)
    _require(1 <= difficulty <= 5, name, f"a difficulty of {difficulty}; choose 1 to 5")
    for number, cell in enumerate(cells, start=1):
        strange = _tags(cell) - {*TAGS}
        where = f"{name}, cell {number}"
        _require(not strange, where, f"an unknown tag, {', '.join(sorted(strange))}")
        one = len(_tags(cell) & {"solution", "stub"}) < 2
        _require(one, where, "both a solution and a stub; cut it in two")
        meant = "exercise" in cell.metadata and not _tags(cell) & {"solution", "stub"}
        _require(not meant, where, "an exercise without the tag solution or stub")
    students = [c for c in cells if "student" in _tags(c)]
    _require(len(students) == 1, name, f"{len(students)} cells with the tag student, not one")
    _require(
        _is_student(students[0].source), name, 'the cell of the student is not STUDENT = "..."'
    )
    return Assignment(name, str(title), minutes, difficulty, _exercises(name, cells), tuple(cells))


def _exercises(name: str, cells: list[Any]) -> tuple[Exercise, ...]:
    """The exercises, each with its stub."""
    stubs: dict[str, str] = {}
    for cell in cells:
        if "stub" in _tags(cell):
            exercise = str(cell.metadata.get("exercise"))
            _require(exercise not in stubs, name, f"two stubs of {exercise}")
            stubs[exercise] = cell.source
    found: dict[str, Exercise] = {}
    for number, cell in enumerate(cells, start=1):
        if "solution" not in _tags(cell) or cell.cell_type != "code":
            continue
        where = f"{name}, cell {number}"
        exercise = cell.metadata.get("exercise")
        _require(isinstance(exercise, str), where, 'a solution without exercise="..."')
        where = f"{name}, {exercise}"
        _require(exercise not in found, where, "two solutions of it")
        points = _number(cell.metadata, "points", where)
        _require(exercise in check.__all__, where, "labkit.course.check has no check of that name")
        function = _only_function(cell.source, where)
        _require(function.name == exercise, where, f"the function is named {function.name}")
        stub = stubs.pop(exercise, None)
        if stub is None:
            stub = stub_of(cell.source, where)
        else:
            _require_stub(stub, function, where)
        found[exercise] = Exercise(exercise, points, cell.source, stub)
    _require(not stubs, name, f"a stub without a solution: {', '.join(stubs)}")
    _require(bool(found), name, "no exercise: no code cell has the tag solution")
    return tuple(found.values())


def stub_of(solution: str, where: str = "the solution") -> str:
    """What a student is given in place of a solution: signature and docstring, no body.

    Raises:
        MalformedAssignment: If the solution is not one function with a docstring.
    """
    function = _only_function(solution, where)
    function.body = [function.body[0], *ast.parse("raise NotImplementedError").body]
    return ast.unparse(function)


def _only_function(source: str, where: str) -> ast.FunctionDef:
    """The one function that a solution is."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise MalformedAssignment(f"{where}: not Python: {one_line(error)}") from error
    one = len(body) == 1 and isinstance(body[0], ast.FunctionDef)
    _require(one, where, "a solution is one function, and nothing beside it; move what is setup")
    function = body[0]
    assert isinstance(function, ast.FunctionDef)
    _require(ast.get_docstring(function) is not None, where, "the function has no docstring")
    _require(not function.decorator_list, where, "a decorator would stand in the exercise")
    _require(len(function.body) > 1, where, "the function does nothing")
    return function


def _require_stub(stub: str, solution: ast.FunctionDef, where: str) -> None:
    """Refuse a stub of one's own that is not to be filled in, or that holds the solution."""
    try:
        body = ast.parse(stub).body
    except SyntaxError as error:
        raise MalformedAssignment(f"{where}: its stub is not Python: {one_line(error)}") from error
    named = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == solution.name]
    _require(len(named) == 1, where, f"its stub does not define {solution.name} once")
    same = ast.unparse(named[0].args) == ast.unparse(solution.args)
    _require(same, where, "its stub takes other arguments")
    raises = any("NotImplementedError" in ast.unparse(n) for n in named[0].body)
    _require(raises, where, "its stub does not raise NotImplementedError")
    lines = {line.strip() for node in solution.body[1:] for line in ast.unparse(node).splitlines()}
    told = {line.strip() for node in body for line in ast.unparse(node).splitlines()}
    left = sorted(lines & told - {""})
    _require(not left, where, f"its stub holds a line of the solution: {left[:1]}")


def _is_student(source: str) -> bool:
    """Whether a cell is `STUDENT = "..."` and nothing else."""
    try:
        body = ast.parse(source).body
        return len(body) == 1 and ast.unparse(body[0]).startswith("STUDENT = '")
    except SyntaxError:
        return False


def _tags(cell: Any) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", ()))


def _number(about: Mapping[str, Any], field: str, where: str) -> int:
    """A whole number of a cell or of a source, at least 1."""
    value = about.get(field)
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    _require(good, where, f"{field} is {value!r}; give a whole number from 1 on")
    assert isinstance(value, int)
    return value


def _require(holds: bool, where: str, lacking: str) -> None:
    """Refuse a source.

    Raises:
        MalformedAssignment: If something does not hold.
    """
    if not holds:
        raise MalformedAssignment(f"{where}: {lacking}")
