"""Notebooks are run again where code, model or version have changed, and only there."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_nb")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "extensions"))

import executed
import nbformat

SOURCE = "# %% [markdown]\n# {text}\n\n# %%\n{code}\n"


@pytest.fixture
def runs(monkeypatch):
    """Each run, instead of a kernel."""
    seen = []

    def run(notebook, model):
        seen.append(model)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [nbformat.v4.new_output("stream", text=cell.source)]
        notebook.metadata["labkit"] = {"results": []}
        return notebook

    monkeypatch.setattr(executed, "run", run)
    return seen


def test_a_second_build_runs_what_has_changed(tmp_path, monkeypatch, runs):
    source, kept = tmp_path / "01_a.py", tmp_path / "kept"
    kept.mkdir()

    def shown(text="a", code="1 + 1", model="pocket"):
        source.write_text(SOURCE.format(text=text, code=code))
        said, code_cell = executed.one(source, model, kept, lambda line: None).cells
        return said.source, code_cell.source, code_cell.outputs[0]["text"]

    assert shown() == ("a", "1 + 1", "1 + 1")
    assert shown() == ("a", "1 + 1", "1 + 1")
    assert shown(text="b") == ("b", "1 + 1", "1 + 1")  # its text is today's
    assert runs == ["pocket"]
    assert shown(text="b", code="2") == ("b", "2", "2")
    shown(model="random-gpt2")
    monkeypatch.setattr(executed.labkit, "__version__", "9.9")
    shown(model="random-gpt2")
    assert runs == ["pocket", "pocket", "random-gpt2", "random-gpt2"]
