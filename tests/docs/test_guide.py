"""The site's pages: their code runs, their commands exist, every error has an entry."""

import importlib.util
import inspect
import re
import shlex
import tomllib

import pytest
import typer

import labkit
from labkit import cli, errors
from tests.docs.pages import PAGES, ROOT, blocks, run

WITH_CODE = [
    page for page in PAGES
    if any(block.language == "python" and block.reason is None for block in blocks(page))
]  # fmt: skip


def name_of(page):
    return page.relative_to(ROOT / "docs").as_posix()


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block, printed in run(page, pocket=True):
        assert (block.shown is None) or printed, f"line {block.line} prints nothing"


def command_lines():
    """The command lines of the pages, each in one piece and without its comment."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                whole = re.sub(r"\\\s*\n", " ", block.code)
                yield from re.findall(r"\blabkit [a-z].*", whole)


def test_every_option_of_the_pages_exists():
    unknown = []
    for line in command_lines():
        command, words = typer.main.get_command(cli.app), shlex.split(line, comments=True)[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        unknown += [(line, word) for word in words if word.startswith("--") and word not in flags]
    assert unknown == []


def test_every_name_that_the_pages_speak_of_exists():
    spoken = set()
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
        spoken |= set(re.findall(r"`((?:labkit|editing|probes)(?:\.\w+)+)\b", prose))
    missing = [name for name in sorted(spoken - {"labkit.json"}) if not is_there(name)]
    assert len(spoken) > 20 and missing == []


def is_there(name):
    """Whether this is a module, or what a module hands on."""
    before, _, last = name.rpartition(".")
    module = importlib.import_module(before)
    return hasattr(module, last) or importlib.util.find_spec(name) is not None


def test_what_is_not_run_says_why():
    for page in PAGES:
        n_fences = len(re.findall(r"^```python$", page.read_text("utf-8"), flags=re.M))
        assert sum(block.language == "python" for block in blocks(page)) == n_fences
    left_out = [block for page in PAGES for block in blocks(page) if block.reason is not None]
    assert all(len(block.reason.split()) > 3 for block in left_out)
    assert len(left_out) <= 2


def test_every_error_has_an_entry_and_every_entry_is_an_error():
    text = (ROOT / "docs/guide/symptoms.md").read_text("utf-8")
    entries = re.findall(r"^`(\w+)`\n: ", text, flags=re.M)
    public = {
        name for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.LabkitError)
    }  # fmt: skip
    assert sorted(entries) == sorted(public)


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    said = dict(re.findall(r"^([\w-]+): (.+)$", text, flags=re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert said["cff-version"] == "1.2.0" and said["title"] == "Labkit"
    assert said["version"] == labkit.__version__ == project["version"]
    assert said["license"] == project["license"]
    assert ("repository-code" in said) == ("urls" in project)
    assert "The Labkit developers" in text
