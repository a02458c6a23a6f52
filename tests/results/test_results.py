"""Files in one step, run directories that resume, results that come back as they were."""

import errno
import importlib
import json
import os
import pkgutil
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from plotly import graph_objects as go
from plotly import io as pio

from labkit.errors import (
    FingerprintMismatch,
    InputError,
    MalformedRecord,
    MissingFile,
    OutputError,
)
from labkit.results.result import (
    Result,
    RunDirectory,
    atomic_folder,
    atomic_write,
    dumps,
    to_json,
)
from labkit.stats import Estimate

MODEL = SimpleNamespace(name="tiny", fingerprint="f" * 64, dtype=torch.float32, device="cpu")
CONFIG = {"method": "rome", "layers": (5,), "clamp": 0.75, "dtype": torch.float32}


@contextmanager
def small_disk():
    """A file system that takes 1,000 bytes per file: the kernel refuses the rest.

    Around one write only: the limit holds for a test report that goes into a file, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


# --- values as JSON ---------------------------------------------------------------------


def test_every_kind_of_value_becomes_plain_json():
    value = {
        "estimate": Estimate(0.5, 0.25, 0.75, 8),
        "numpy": np.arange(2, dtype=np.float32),
        "scalar": np.float64(0.1),
        "flag": np.bool_(True),
        "tensor": torch.tensor([[1, 2]]),
        7: (torch.tensor(0.5), {"b", "a"}),
        "broken": [float("nan"), torch.tensor(float("inf"))],
    }
    assert json.loads(dumps(value)) == {
        "estimate": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8},
        "numpy": [0.0, 1.0],
        "scalar": 0.1,
        "flag": True,
        "tensor": [[1, 2]],
        "7": [0.5, ["a", "b"]],
        "broken": ["NaN", "Infinity"],
    }


def test_a_value_without_a_json_form_is_refused():
    with pytest.raises(InputError, match="object"):
        to_json({"a": object()})


# --- files ------------------------------------------------------------------------------


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    atomic_write(tmp_path / "a", "old")
    with (tmp_path / "a").open() as reader:
        atomic_write(tmp_path / "a", "né".encode())
        assert reader.read() == "old"  # it was replaced, not overwritten under a reader
    assert (tmp_path / "a").read_text(encoding="utf-8") == "né"
    assert contents(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    atomic_write(tmp_path / "a", "old")
    with pytest.raises(OutputError, match=str(tmp_path / "a")), small_disk():
        atomic_write(tmp_path / "a", "x" * 5000)
    assert (tmp_path / "a").read_text() == "old"
    assert contents(tmp_path) == ["a"]


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "deep" / "out"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert contents(target) == ["a"]
    assert contents(target.parent) == ["out"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ValueError("mine"), ConnectionError("net")])
def test_whatever_stops_a_folder_leaves_nothing_and_is_not_disguised(tmp_path, stop):
    with pytest.raises(type(stop)), atomic_folder(tmp_path / "new" / "out") as folder:
        (folder / "a").write_text("1")
        raise stop
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    "full", [OSError(errno.ENOSPC, "full"), RuntimeError("I/O error: No space left on device (28)")]
)
def test_a_full_disk_is_an_output_error(tmp_path, full):
    with pytest.raises(OutputError, match="out: No space"), atomic_folder(tmp_path / "out"):
        raise full
    assert contents(tmp_path) == []


def test_an_empty_folder_may_be_filled_another_not(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(OutputError, match="not an empty folder"), atomic_folder(target):
        pytest.fail("no work starts")
    assert contents(tmp_path) == ["out"]


# --- run directories --------------------------------------------------------------------


def test_a_run_keeps_its_config_and_what_it_ran_on(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG, MODEL)
    run.write_metrics({"efficacy": Estimate(1.0, 0.9, 1.0, 30)})
    again = RunDirectory.open(run.path)
    assert again.config == to_json(CONFIG)
    assert again.environment["model"]["fingerprint"] == MODEL.fingerprint
    assert again.environment["packages"]["torch"] == torch.__version__
    assert Estimate.from_dict(again.metrics["efficacy"]) == Estimate(1.0, 0.9, 1.0, 30)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG, MODEL)
    for case_id in (1, "two"):
        run.append_case({"case_id": case_id, "p": torch.tensor(0.5)})
    with (run.path / "cases.jsonl").open("a") as file:
        file.write('{"case_id": 3, "p": 0.')
    assert run.finished_cases() == {"1", "two"}

    run = RunDirectory.create(tmp_path / "run", CONFIG, MODEL, resume=True)
    run.append_case({"case_id": 3, "p": 0.25})
    assert [case["p"] for case in run.cases()] == [0.5, 0.5, 0.25]
    assert len(run.environment["resumed"]) == 1


def test_a_run_is_only_resumed_when_asked_and_only_as_itself(tmp_path):
    path = RunDirectory.create(tmp_path / "run", CONFIG, MODEL).path
    before = {name: (path / name).read_bytes() for name in contents(path)}
    with pytest.raises(OutputError, match="not empty"):
        RunDirectory.create(path, CONFIG, MODEL)
    with pytest.raises(OutputError, match="clamp"):
        RunDirectory.create(path, {**CONFIG, "clamp": 4}, MODEL, resume=True)
    other = SimpleNamespace(name="tiny", fingerprint="0" * 64)
    with pytest.raises(FingerprintMismatch):
        RunDirectory.create(path, CONFIG, other, resume=True)
    assert before == {name: (path / name).read_bytes() for name in contents(path)}


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for resume in (False, True):
        with pytest.raises(OutputError):
            RunDirectory.create(tmp_path, CONFIG, resume=resume)
    with pytest.raises(MissingFile):
        RunDirectory.open(tmp_path)
    assert contents(tmp_path) == ["thesis.tex"]


def test_a_case_that_cannot_be_written_leaves_the_others(tmp_path):
    run = RunDirectory(tmp_path)
    run.append_case({"case_id": 1})
    with pytest.raises(OutputError, match=r"cases\.jsonl"), small_disk():
        run.append_case({"case_id": 2, "text": "x" * 5000})
    run.append_case({"case_id": 3})
    assert run.finished_cases() == {"1", "3"}
    with pytest.raises(InputError, match="case_id"):
        run.append_case({"text": "x"})


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "cases.jsonl").write_text('{"case_id": 1}\n{"case\n{"case_id": 3}\n')
    with pytest.raises(MalformedRecord, match="line 2"):
        RunDirectory(tmp_path).finished_cases()


def test_a_run_writes_inside_its_folder_only(tmp_path):
    with pytest.raises(InputError, match="outside"):
        RunDirectory(tmp_path / "run").write_text("../elsewhere.html", "x")
    assert contents(tmp_path) == []


def test_the_folder_is_readable_by_others_as_usual(tmp_path):
    usual = tmp_path / "usual"
    usual.mkdir()
    run = RunDirectory.create(tmp_path / "run", {})
    assert run.path.stat().st_mode == usual.stat().st_mode
    assert os.access(run.path / "config.json", os.R_OK)


# --- results ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Found(Result):
    prompt: str
    tokens: tuple[str, ...]
    spans: tuple[tuple[int, float], ...]
    clean: Estimate
    worst: float
    other: Estimate | None
    by_name: dict[str, Estimate]
    cells: np.ndarray
    half: torch.Tensor
    table: pd.DataFrame

    @property
    def title(self):
        return f"Found <b>{self.prompt}</b>"

    def to_frame(self):
        return self.table

    def figure(self):
        return go.Figure(go.Bar(y=[1, 2]))


FOUND = Found(
    prompt="a <i>",
    tokens=("a", " b"),
    spans=((1, 0.1), (2, 0.2)),
    clean=Estimate(0.1, 0.0, 1 / 3, 4),
    worst=float("-inf"),
    other=None,
    by_name={"x": Estimate(1.0, 1.0, 1.0, 1)},
    cells=np.random.default_rng(0).normal(size=(2, 3)).T,
    half=torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
    table=pd.DataFrame({"pos": [0, 1] * 9, "p": [1 / 3, float("nan")] * 9, "token": ["<s>"] * 18}),
)


def test_a_result_comes_back_as_it_was(tmp_path):
    again = Found.load(FOUND.save(tmp_path / "found"))
    for name in ("prompt", "tokens", "spans", "clean", "worst", "other", "by_name"):
        assert getattr(again, name) == getattr(FOUND, name), name
    np.testing.assert_array_equal(again.cells, FOUND.cells)
    assert again.half.dtype == torch.bfloat16 and again.half.equal(FOUND.half)
    pd.testing.assert_frame_equal(again.table, FOUND.table)


def test_a_result_of_another_kind_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Lost(Result):
        prompt: str

    with pytest.raises(MalformedRecord, match=r"Found.*Lost"):
        Lost.load(FOUND.save(tmp_path / "found"))
    with pytest.raises(MissingFile, match="no result"):
        Found.load(tmp_path)


def test_a_result_shows_itself_without_scripts():
    html = FOUND._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert "&lt;s&gt;" in html and "10 more rows" in html


def test_a_notebook_gets_the_figure_and_everyone_else_the_table(monkeypatch):
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    bundle = FOUND._repr_mimebundle_()
    assert bundle["application/vnd.plotly.v1+json"]["data"][0]["type"] == "bar"
    assert bundle["text/html"] == FOUND._repr_html_() and bundle["text/plain"] == FOUND.title


def kinds(base=Result):
    """Every kind of result that there is."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_a_result_shows_itself_in_one_line_whatever_it_holds():
    """A dataclass would print all of its fields."""

    @dataclass(frozen=True, kw_only=True)
    class Large(Result):
        numbers: np.ndarray

        @property
        def title(self):
            return f"{self.numbers.size} numbers"

    assert repr(Large(numbers=np.zeros(10_000))) == "Large: 10000 numbers"
    for package in ("labkit", "editing", "probes"):
        for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if "__main__" not in info.name:
                importlib.import_module(info.name)
    found = {kind.__name__: kind for kind in kinds() if kind.__module__ != __name__}
    assert len(found) > 30
    long = [name for name, kind in found.items() if "dataclass" in kind.__repr__.__module__]
    assert long == [] and all(
        "__create_fn__" not in k.__repr__.__qualname__ for k in found.values()
    )
