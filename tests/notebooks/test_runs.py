"""Notebooks run from end to end on the pocket model: `make notebooks`, apart from `make test`."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "notebooks" / "sources").glob("*.py"))
SECONDS_PER_CELL = 900
DRAWS = re.compile(r"\.(figure\w*|heatmap)\([^()]*\)$")


def run(notebook, folder):
    """Execute every cell with `folder` as the working directory."""
    client = NotebookClient(
        notebook, timeout=SECONDS_PER_CELL, resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_it_runs_on_the_pocket_model_and_shows_its_figures(source, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_MODEL", "pocket")
    monkeypatch.setenv("LABKIT_N", "6")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    cells = [c for c in run(jupytext.read(source), tmp_path).cells if c.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    bundles = [output.data for output in outputs if "data" in output]
    drawn = [bundle for bundle in bundles if "application/vnd.plotly.v1+json" in bundle]
    asked_for = sum(bool(DRAWS.search(cell.source.rstrip())) for cell in cells)
    assert len(drawn) == asked_for > 0


def test_a_cell_that_fails_fails_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
    with pytest.raises(Exception, match="AssertionError"):
        run(broken, tmp_path)
