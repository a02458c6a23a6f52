"""Each assignment: solutions pass, stubs do not, mistakes are told apart, nothing leaks."""

import ast
import importlib
import json

import nbformat
import pytest

from labkit.course import assignment_names, build, check, drawn, read_assignment
from labkit.course.sources import parse_assignment
from labkit.errors import (
    CheckFailed,
    InputError,
    MalformedAssignment,
    OutputError,
    UnknownAssignment,
)

NAMES = ("01_hooks", "06_rome")
EXERCISES = [(name, one) for name in NAMES for one in read_assignment(name).exercises]
WRONG = {name: importlib.import_module(f"tests.course.wrong_{name}").WRONG for name in NAMES}


def function_of(source, name, pocket):
    """A function as a notebook's cell would define it."""
    namespace = {}
    exec(
        "import torch\nfrom torch import Tensor\nfrom labkit.running import capture\n" + source,
        namespace,
    )
    return namespace[name]


def test_they_are_all_here():
    assert assignment_names() == [*NAMES]


@pytest.mark.parametrize(("name", "one"), EXERCISES, ids=[e.name for _, e in EXERCISES])
def test_solutions_hold_and_stubs_are_stubs(name, one, pocket):
    solved, stub = (function_of(s, one.name, pocket) for s in (one.solution, one.stub))
    for seed in (0, 1, 24):  # of 1 and 24, contexts give one key
        said = getattr(check, one.name)(solved, model=pocket, seed=seed)
        assert repr(said) == f"{one.name}: every law holds"
    with pytest.raises(NotImplementedError):
        getattr(check, one.name)(stub, model=pocket, seed=0)


@pytest.mark.parametrize(
    ("name", "one", "mistake"),
    [(n, e, mistake) for n, e in EXERCISES for mistake in WRONG[n][e.name]],
    ids=[f"{e.name}-{mistake}" for n, e in EXERCISES for mistake in WRONG[n][e.name]],
)
def test_mistakes_are_refused_with_the_message_meant_for_them(name, one, mistake, pocket):
    changes, message = WRONG[name][one.name][mistake]
    source = one.solution + "\n"
    for old, new in changes:
        assert old in source, f"{old} is not in the solution"
        source = source.replace(old, new)
    with pytest.raises(CheckFailed) as refused:
        getattr(check, one.name)(function_of(source, one.name, pocket), model=pocket, seed=3)
    assert message in str(refused.value)


def test_every_exercise_has_three_mistakes():
    for name, one in EXERCISES:
        assert len(WRONG[name][one.name]) >= 3


def test_no_line_of_a_solution_is_in_an_exercise(tmp_path):
    build(tmp_path / "out", "anna")
    for name in NAMES:
        exercises = nbformat.read(tmp_path / "out" / "exercises" / f"{name}.ipynb", as_version=4)
        nbformat.validate(exercises)
        given = [c.source for c in exercises.cells if c.cell_type == "code"]
        lines = {line.strip() for cell in given for line in cell.splitlines()}
        for one in read_assignment(name).exercises:
            function = ast.parse(one.solution).body[0]
            body = {
                line.strip()
                for node in function.body[1:]
                for line in [*ast.unparse(node).splitlines(),
                             *ast.get_source_segment(one.solution, node).splitlines()]
            }  # fmt: skip
            assert not (body & lines) - {""}
            assert f"{one.name}({one.name}, model=model, seed=SEED)" in "\n".join(given)
        solved = (tmp_path / "out" / "solutions" / f"{name}.ipynb").read_text()
        assert all(json.dumps(one.solution.splitlines()[0])[1:-1] in solved
                   for one in read_assignment(name).exercises)  # fmt: skip
        assert "STUDENT = 'anna'" in given
    assert (tmp_path / "out" / "exercises" / "README.md").is_file()


def test_seeds_belong_to_a_student():
    assert drawn("anna", "06_rome") == drawn("anna", "06_rome")
    assert len({drawn(s, a, w) for s in "ab" for a in "cd" for w in "ef"}) == 8
    assert 0 <= drawn("anna", "06_rome") < 2**63


def test_bad_requests_leave_nothing(tmp_path):
    with pytest.raises(UnknownAssignment, match="no assignment '99'; there are 01_hooks"):
        build(tmp_path / "out", names=["99"])
    with pytest.raises(InputError, match="is no id"):
        build(tmp_path / "out", "")
    assert not (tmp_path / "out").exists()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(OutputError, match="not an empty folder"):
        build(tmp_path / "used")


HEADER = "# ---\n# jupyter:\n#   course:\n#     minutes: 5\n#     difficulty: 1\n# ---\n\n"
TITLE = "# %% [markdown]\n# # A title\n\n"
STUDENT = '# %% tags=["student"]\nSTUDENT = "nobody"\n\n'
CELL = '# %% tags=["solution"] exercise="logits_of" points=2\n'
GOOD = 'def logits_of(model, state):\n    """Say."""\n    return 1\n'


def test_a_source_is_read():
    found = parse_assignment("x", HEADER + TITLE + STUDENT + CELL + GOOD)
    assert (found.title, found.minutes, found.points) == ("A title", 5, 2)
    # Whatever stands on the line of the docstring goes too.
    sly = GOOD.replace('"""\n', '"""; secret = 1\n')
    assert (
        "secret"
        not in parse_assignment("x", HEADER + TITLE + STUDENT + CELL + sly).exercises[0].stub
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TITLE + STUDENT + CELL + GOOD, "minutes is None"),
        (HEADER + STUDENT + CELL + GOOD, "no text begins with a heading"),
        (HEADER + TITLE + CELL + GOOD, "0 cells with the tag student"),
        (HEADER + TITLE + STUDENT, "no exercise"),
        (HEADER + TITLE + STUDENT + CELL.replace(" points=2", "") + GOOD, "points is None"),
        (HEADER + TITLE + STUDENT + CELL + GOOD.replace("logits_of", "other"), "named other"),
        (HEADER + TITLE + STUDENT + CELL.replace("logits_of", "no_such") + GOOD, "no check"),
        (HEADER + TITLE + STUDENT + CELL + "x = 1\n" + GOOD, "one function, and nothing beside"),
        (HEADER + TITLE + STUDENT + CELL + "def logits_of(:\n", "not Python"),
        (HEADER + TITLE + STUDENT + CELL + GOOD.replace('"""Say."""', "pass"), "no docstring"),
        (HEADER + TITLE + STUDENT + 2 * (CELL + GOOD + "\n"), "two solutions"),
        (HEADER + TITLE + STUDENT + CELL.replace('"solution"', '"solutoin"') + GOOD, "unknown tag"),
        (
            HEADER + TITLE + STUDENT + CELL + GOOD + "\n"
            + CELL.replace('"solution"', '"stub"') + GOOD + "    raise NotImplementedError\n",
            "holds a line of the solution",
        ),
    ],
)  # fmt: skip
def test_malformed_sources_are_named(text, said):
    with pytest.raises(MalformedAssignment, match="^x") as refused:
        parse_assignment("x", text)
    assert said in str(refused.value)
