"""Every public name, every command and every notebook has its place on the site."""

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import nbformat
import pytest
import typer

pytest.importorskip("sphinx")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "extensions"))

import command_pages
import executed
import gallery
import rooms

from labkit.cli import app

ROOT = executed.ROOT


def every_package():
    for name in ("labkit", "editing", "probes"):
        package = importlib.import_module(name)
        yield package
        for inner in pkgutil.walk_packages(package.__path__, f"{name}."):
            if inner.ispkg:
                yield importlib.import_module(inner.name)


def test_every_public_name_has_an_entry_and_only_one():
    text = "\n".join("\n".join(rooms.page(room)) for room in rooms.rooms())
    entries = re.findall(r"^\.\. auto(?:class|function|data):: (\S+)$", text, flags=re.M)
    assert len(entries) == len(set(entries))
    doors = [package for package in every_package() if getattr(package, "__all__", ())]
    assert {package.__name__ for package in doors} == {*rooms.rooms(), rooms.COMMANDS}
    for package in doors:
        for name in () if package.__name__ == rooms.COMMANDS else package.__all__:
            value = getattr(package, name)
            home = inspect.getmodule(value)
            known = inspect.isclass(value) or inspect.isfunction(value)
            full = f"{home.__name__}.{name}" if known else name
            found = [e for e in entries if e == full or (not known and e.endswith(f".{name}"))]
            assert found, f"{package.__name__}.{name} has no entry"


def test_every_command_has_a_section(monkeypatch):
    """Asked of the command itself: what `--help` lists, at every level."""
    from typer.testing import CliRunner

    monkeypatch.setenv("COLUMNS", "200")
    sections = {name for name, _ in command_pages.commands(typer.main.get_command(app))}

    def listed(words):
        said = CliRunner().invoke(app, [*words, "--help"]).output
        _, *panels = said.split("╭")
        rows = "".join(panel for panel in panels if "Commands" in panel.splitlines()[0])
        return re.findall(r"^│ (\w[\w-]*)  ", rows, flags=re.M)

    waiting, found = [[name] for name in listed([])], 0
    while waiting:
        words = waiting.pop()
        inner = listed(words)
        waiting += [[*words, name] for name in inner]
        if not inner:
            assert " ".join(words) in sections
            found += 1
    assert found > 15


def test_every_notebook_has_a_page_and_a_card():
    """Whatever lies in the folder that people open, without executing it."""
    made = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata["labkit"] = {"seconds": 1.0, "results": []}
        made[path.stem] = notebook
    assert set(made) == {source.stem for source in executed.SOURCES.glob("*.py")}
    said = "\n".join(gallery.index(made, "pocket"))
    for name in made:
        assert f":link: {name}\n" in said
        assert f"\n{name}\n" in said.partition("toctree")[2]


def test_no_page_of_a_notebook_asks_for_the_scripts_of_widgets():
    """A progress bar leaves a widget and its state; the page has neither."""
    cell = nbformat.v4.new_code_cell("1")
    bar = nbformat.v4.new_output("display_data", {gallery.WIDGET: {"model_id": "a"}})
    cell.outputs = [bar, nbformat.v4.new_output("stream", text="done")]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {"a": {}}}})
    shown = gallery.with_figures(notebook)
    assert "widget" not in nbformat.writes(shown)
    assert [output["output_type"] for output in shown.cells[0].outputs] == ["stream"]
    assert "widgets" in notebook.metadata  # what is kept is as it was
