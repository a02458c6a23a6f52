"""What the documents tell a reader to do works as they say it."""

import re
import tomllib
from pathlib import Path

import pytest
import typer

from labkit import load, pocket
from tests.docs.pages import PAGES

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/guide/commands.md")
DOCUMENTS = [ROOT / name for name in NAMES]
DOCUMENTS += [page for page in PAGES if page not in DOCUMENTS]
README = DOCUMENTS[0].read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 170


def test_the_ten_lines_of_the_readme_are_ten_and_do_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _ = blocks(README, "python")
    lines = [line for line in code.splitlines() if line and "import" not in line]
    assert len(lines) <= 10
    # The same path in the pocket model's own world.
    rewrite = pocket.demo_case().rewrite
    for real, invented in {
        "smollm2-135m": "pocket",
        "The Eiffel Tower is located in the city of": rewrite.prompt,
        "Eiffel Tower": rewrite.subject,
        "Paris": rewrite.target_true,
        "Rome": rewrite.target_new,
    }.items():
        assert f'"{real}"' in code
        code = code.replace(f'"{real}"', f'"{invented}"')
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["trace"].answer.strip() == rewrite.target_true
    assert names["edited"].tokens[0].strip() == rewrite.target_new
    assert names["predict"](names["model"], rewrite.prompt).tokens[0] != names["edited"].tokens[0]
    assert (tmp_path / "edited" / "model.safetensors").exists()
    for name in ("lens", "trace", "report"):
        assert names[name].figure().data


def test_the_benches_of_the_readme_run():
    _, code = blocks(README, "python")
    for real, invented in {
        "default_tasks(model)": 'default_tasks(model, names=["relation"], n_examples=60)',
        'task("sentiment")': 'task("city_river", model)',
    }.items():
        assert real in code
        code = code.replace(real, invented)
    names: dict = {"model": load("pocket")}
    exec(compile(code, "README.md", "exec"), names)
    assert names["found"].figure().data and names["shown"].figure().data
    assert set(names["shown"].comparisons()["condition"]) == {"random"}


def commands() -> set[str]:
    """Every command of the command line, those of groups behind their group's name.

    A group that does something by itself is a command too.
    """
    cli = pytest.importorskip("labkit.cli")
    root = typer.main.get_command(cli.app)
    found = set()
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {one}" for one in inner or ()}
        if not inner or command.invoke_without_command:
            found.add(name)
    return found


def test_every_command_of_the_documents_exists():
    shell = "\n".join("\n".join(blocks(path.read_text("utf-8"), "sh")) for path in DOCUMENTS)
    groups = "|".join({name.split()[0] for name in commands() if " " in name})
    asked = set(re.findall(rf"^labkit ((?:(?:{groups}) )?\w+)", shell, flags=re.M))
    assert asked - commands() == set()
    listed = "\n".join(blocks(DOCUMENTS[3].read_text("utf-8"), "sh"))
    own_lines = {line.split(" #")[0] for line in listed.splitlines()}
    shown = {name for name in commands() for line in own_lines if line.startswith(f"labkit {name}")}
    assert commands() - shown == set()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", shell, flags=re.M))
    assert {"demo", "test", "lab"} <= targets
    assert {name for name in targets if not re.search(rf"^{name}:", makefile, flags=re.M)} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_are_there(path):
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert [name for name in targets if not (path.parent / name).exists()] == []
    pictures = [path.parent / name for name in targets if name.endswith(".png")]
    assert all(picture.stat().st_size <= 200_000 for picture in pictures)


def test_the_changelog_begins_with_this_version():
    newest = re.search(r"^## (\S+)", DOCUMENTS[2].read_text(encoding="utf-8"), flags=re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert newest and newest[1] == project["version"]
