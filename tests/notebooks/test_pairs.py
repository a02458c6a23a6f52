"""The two files of a notebook say the same thing, in the house's style."""

import ast
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "notebooks" / "sources").glob("*.py"))

every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def import_lines(source):
    """Lines of a cell that only say where names come from."""
    nodes = [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return sum(node.end_lineno - node.lineno + 1 for node in nodes)


@every_notebook
def test_the_pair_is_in_step_and_stripped(source):
    pair = nbformat.read(source.parents[1] / f"{source.stem}.ipynb", as_version=4)
    nbformat.validate(pair)
    assert [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells] == [
        (cell.cell_type, cell.source) for cell in pair.cells
    ], f"in notebooks/: jupytext --sync sources/{source.name} && nbstripout {source.stem}.ipynb"
    for cell in code_cells(pair):
        assert cell.outputs == [] and cell.execution_count is None


def test_no_notebook_lacks_its_source():
    pairs = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert pairs == {path.stem for path in SOURCES} != set()


@every_notebook
def test_it_keeps_to_the_house_style(source):
    cells = [cell.source for cell in code_cells(jupytext.read(source))]
    assert len(cells) <= 22
    assert max(len(cell.splitlines()) - import_lines(cell) for cell in cells) <= 15
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell))]
    assert [node for node in nodes if isinstance(node, definitions)] == []
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)} | {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    assert not {name.split(".")[0] for name in modules} & {"plotly", "matplotlib"}
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cells[-1])))
    choices = [cell for cell in cells if "LABKIT_MODEL" in cell]
    assert len(choices) == 1 and '"smollm2-135m"' in choices[0]
