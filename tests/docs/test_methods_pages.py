"""Every method has a page, and every page says what its method shows and what it does not."""

import importlib
import inspect
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import typer

pytest.importorskip("sphinx")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "extensions"))

import method_page
import methods_pages
from method_docs import sections
from rooms import rooms

from editing import METHODS
from labkit.cli import app

PARTS = methods_pages.METHODS_BY_PART.values()
PAGES = {title: method for part in PARTS for title, method in part.items()}
HOMES = {method.home for method in PAGES.values()}
NO_METHODS = ("labkit.stats",)
"""Rooms whose functions have references and are no methods of interpretation or editing."""


def handed_on():
    """Every public name with its home."""
    return {(home, name) for homes in rooms().values() for name, home in homes.items()}


def is_method(home: str, name: str) -> bool:
    """Whether a public name is a method from a paper, as its docstrings have it."""
    module = importlib.import_module(home)
    value = getattr(module, name)
    if home.startswith(NO_METHODS) or not (inspect.isclass(value) or inspect.isroutine(value)):
        return False
    if "References" in sections(value).named:
        return True
    configured = inspect.isclass(value) and "__call__" in vars(value)
    return configured and "References" in sections(module).named


def test_every_editor_has_a_page():
    for make in METHODS.values():
        cls = getattr(make, "func", make)
        assert f"{cls.__module__}.{cls.__name__}" in HOMES


def test_every_public_method_with_references_has_a_page():
    missing = {f"{home}.{name}" for home, name in handed_on() if is_method(home, name)} - HOMES
    assert not missing


def test_every_page_is_about_something_public():
    assert {f"{home}.{name}" for home, name in handed_on()} >= HOMES
    assert len(HOMES) == len(PAGES) == len({methods_pages.slug(title) for title in PAGES})


@pytest.mark.parametrize("title", PAGES)
def test_a_page_says_what_its_method_shows_and_how_it_is_called(title):
    value, module = method_page.opened(PAGES[title].home)
    own, around = sections(value), sections(module)
    for heading in ("Shows", "Does not show"):
        assert own.named.get(heading), heading
        assert "".join(own.named[heading]).rstrip().endswith((".", ")"))
    assert value.__name__ in " ".join(own.example or around.example)
    parameters = [name for name, _ in method_page.entries(own.named.get("Args", []))]
    fields = [name for name, _ in method_page.entries(own.named.get("Attributes", []))]
    fields += [name for name, _ in method_page.entries(own.named.get("Inherited fields", []))]
    assert set(method_page.defaults(value)) <= {*parameters, *fields, "progress", "k", "memory"}


def command_of(words):
    """The command that some words call, and the words left over."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize("title", [title for title, method in PAGES.items() if method.command])
def test_the_command_of_a_page_exists_with_its_options(title):
    name, *words = shlex.split(PAGES[title].command)
    command, left = command_of(words)
    assert name == "labkit" and command.name
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in left if word.startswith("--")} <= known
    editors = [value for option, value in pairwise(left) if option == "--method"]
    assert set(editors) <= set(METHODS)


def test_measured_rows_are_about_methods_with_a_page():
    names = {name for method in PAGES.values() for name in names_of(method)}
    source = Path(methods_pages.__file__).parents[1]
    for path in (source / "measured").glob("*.csv"):
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        if header.startswith("method,"):
            assert {word for row in rows for word in row.split(",")[0].split()} <= names


def names_of(method):
    return method_page.names_of(method_page.opened(method.home)[0])


def test_a_docstring_is_taken_apart():
    def taken():
        """One line.

        Prose.

            taken()

        Args:
            a: First,
                goes on.

        Shows:
            This.

        Differs from the paper: in
        two lines.
        """

    found = sections(taken)
    assert found.summary == "One line." and found.prose == ["Prose."]
    assert found.example == ["taken()"] and found.named["Shows"] == ["This."]
    assert list(method_page.entries(found.named["Args"])) == [("a", "First, goes on.")]
    assert found.differs == ["in", "two lines."]
