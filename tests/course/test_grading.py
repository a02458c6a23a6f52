"""Submissions of people who mean well, and of others: the right points, and nothing changed."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest

from labkit.course import build
from labkit.course.grading import grade
from labkit.course.grading.grades import _inert
from labkit.course.grading.session import Bench
from labkit.course.grading.wire import Malformed, decode, encode
from labkit.errors import MissingFile, NoSubmissions, OutputError

HEAD = "def rome_update(W, k_star, v_star, C):\n"
FORGED = """
import os, socket
for descriptor in range(3, 40):
    try:
        os.write(descriptor, b"\\0\\0\\0\\0\\0\\0\\0\\x0d" + b'{"value": 1}\\n')
    except OSError:
        pass
"""
EVIL = {  # by student, what stands in the cell of rome_update
    "syntax": "def rome_update(:\n",
    "loop": HEAD + "    while True:\n        pass\n",
    "leaves": "import sys\n" + HEAD + "    sys.exit(0)\n",
    "quits": "import os\n" + HEAD + "    os._exit(0)\n",
    "forks": "import os\n" + HEAD + "    for _ in range(3):\n        os.fork()\n    return W\n",
    "talks": HEAD + "    for _ in range(50):\n        print('x' * 10**6)\n    return W\n",
    "eats": HEAD + "    return bytearray(2**40)\n",
    "sends": HEAD + "    return W.new_zeros(10**7)\n",
    "overwrites": "import labkit.course.check as c\nimport labkit.course\n"
    "c.rome_update = labkit.course.check = lambda *a, **k: None\n" + HEAD + "    return W\n",
    "patches": "import torch\nTensor.__eq__ = torch.equal = torch.allclose = lambda *a, **k: True\n"
    + HEAD + "    return W\n",
    "forges": FORGED + HEAD + "    return W\n",
    "deletes": "from pathlib import Path\n" + HEAD
    + "    for path in [*Path(HERE).rglob('*')]:\n        path.is_file() and path.unlink()\n"
    "    return W\n",
    "reads": "from pathlib import Path\n" + HEAD + "    text = next(Path(HERE).rglob("
    "'good*')).read_text()\n    return W\n",
    "dials": "import socket\n" + HEAD
    + "    socket.create_connection(('127.0.0.1', PORT), 2)\n    return W\n",
    "odd": HEAD + "    return {'W': W, 1: object()}\n",
    "looks for files": "import os\nassert 'SECRET_OF_THE_TEACHER' not in os.environ\n" + HEAD
    + "    raise ValueError('<script>alert(1)</script>')\n",
}  # fmt: skip
CUT_OFF = ("deletes", "reads", "dials")  # where the system can cut files and network off
PARTS = 3 + 3  # what the other two exercises give
WHOLE = ("syntax", "quits", "forges")  # hand these in too; the others leave them out


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    build(out, names=["06_rome"])
    return out


def edited(notebook, source, *, whole=True):
    """A notebook with another cell for rome_update, and the other exercises if it is whole."""
    made = copy.deepcopy(notebook)
    if not whole:
        made["cells"] = [
            cell
            for cell in made["cells"]
            if cell["metadata"].get("labkit", {}).get("exercise") == "rome_update"
        ]
    for cell in made["cells"]:
        if cell["metadata"].get("labkit", {}).get("exercise") == "rome_update":
            cell["source"] = source
    return made


def test_everyone_gets_what_they_earned(solved, tmp_path, monkeypatch):
    folder, out = tmp_path / "submissions", tmp_path / "grades"
    folder.mkdir()
    monkeypatch.setenv("SECRET_OF_THE_TEACHER", "yes")
    right = json.loads((solved / "solutions" / "06_rome.ipynb").read_text())
    expected = {}

    def hand_in(student, notebook, points):
        (folder / student).mkdir(exist_ok=True)
        text = notebook if isinstance(notebook, str) else json.dumps(notebook)
        (folder / student / "06_rome.ipynb").write_text(text)
        expected[student] = points

    hand_in("good", right, 10)
    hand_in("stub", (solved / "exercises" / "06_rome.ipynb").read_text(), 0)
    hand_in("no json", "{", 0)
    hand_in("a list", "[1, 2]", 0)
    with Bench(()) as bench:
        isolated = all(bench.isolated.values())
    for student, source in EVIL.items():
        if student in CUT_OFF and not isolated:
            continue  # this system cannot cut it off, and says so
        source = source.replace("HERE", repr(str(tmp_path))).replace("PORT", "9")
        whole = student in WHOLE
        hand_in(student, edited(right, source, whole=whole), PARTS * whole)
    missing = copy.deepcopy(right)
    missing["cells"] = [c for c in right["cells"] if "def key_star" not in "".join(c["source"])]
    hand_in("missing", missing, 7)
    renamed = copy.deepcopy(right)
    for cell in renamed["cells"]:
        cell["metadata"] = {}
    hand_in("unmarked", renamed, 10)
    hand_in("twice", edited(right, "x"), 10)
    old = folder / "twice" / "06_rome.ipynb"
    os.utime(old, (1, 1))
    (folder / "twice" / "06_rome (2).ipynb").write_text(json.dumps(right))
    (folder / "linked.ipynb").symlink_to(solved / "solutions" / "06_rome.ipynb")

    before = {path: path.read_bytes() for path in folder.rglob("*.ipynb")}
    graded = grade(folder, out, patience=12)
    assert {row["student"]: row["points"] for row in graded.rows} == expected
    assert before == {path: path.read_bytes() for path in folder.rglob("*.ipynb")}

    assert bool(graded.limits) is not isolated

    said = {
        row["student"]: next(
            (e["remark"] for e in row["exercises"] if e["exercise"] == "rome_update"), ""
        )
        for row in graded.rows
    }
    for student, words in {
        "syntax": "SyntaxError", "loop": "endless loop", "leaves": "SystemExit",
        "quits": "ended its process", "eats": "MemoryError", "sends": "answer of",
        "overwrites": "nothing was written", "patches": "nothing was written",
        "odd": "cannot be handed over", "stub": "not filled in", "talks": "nothing was written",
        "reads": "StopIteration", "dials": "OSError", "looks for files": "ValueError",
    }.items():  # fmt: skip
        if student in CUT_OFF and not isolated:
            continue
        assert words in said[student], (student, said[student])

    pages = "".join(path.read_text() for path in (out / "reports").glob("*.html"))
    assert "<script>alert" not in pages
    assert len(list((out / "reports").iterdir())) == len(expected)
    assert (
        (out / "grades.csv").read_text().splitlines()[0].endswith("key_star,rome_update,after_edit")
    )

    # A grading that was killed goes on: only what lacks is graded again.
    results = sorted((out / "results").iterdir())
    times = {path: path.stat().st_mtime_ns for path in results}
    gone = next(path for path in results if path.name.startswith("no-json"))
    gone.unlink()
    again = grade(folder, out, patience=12)
    assert {row["student"]: row["points"] for row in again.rows} == expected
    changed = [path for path in results if path.stat().st_mtime_ns != times[path]]
    assert changed == [gone]


def test_bad_requests_are_refused_at_once(tmp_path):
    with pytest.raises(MissingFile, match="there is no folder"):
        grade(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoSubmissions, match="no notebook of an assignment"):
        grade(tmp_path / "empty", tmp_path / "out")
    shutil.copytree(Path("notebooks"), tmp_path / "other", ignore=shutil.ignore_patterns("[!0]*"))
    with pytest.raises(NoSubmissions, match="no notebook of an assignment"):
        grade(tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty" / "06_rome.ipynb").write_text("{")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="something else than a grading"):
        grade(tmp_path / "empty", tmp_path / "used")


@pytest.mark.parametrize(
    "plain",
    [
        {"kind": "tensor", "dtype": "torch.float32", "shape": [10**12], "data": ""},
        {"kind": "tensor", "dtype": "torch.float32", "shape": [-1], "data": "AAAA"},
        {"kind": "tensor", "dtype": "os.system", "shape": [1], "data": "AAAA"},
        {"kind": "model"},
        {"kind": "list", "items": 3},
        ["x"],
        {},
    ],
)
def test_what_is_no_value_is_refused(plain):
    with pytest.raises(Malformed):
        decode(plain)


def test_values_come_back_as_they_were():
    import torch

    for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.bool):
        for shape in ((), (0,), (3, 2), (2, 0)):
            value = torch.ones(shape).to(dtype)
            found = decode(json.loads(json.dumps(encode(value))))
            assert found.dtype == dtype and torch.equal(found, value)
    assert decode(encode((1, [None, "x", 2.5, True]))) == (1, [None, "x", 2.5, True])


def test_no_cell_of_the_table_is_a_formula():
    assert _inert("=1+1") == "'=1+1" and _inert("x") == "x" and _inert(-1) == -1
