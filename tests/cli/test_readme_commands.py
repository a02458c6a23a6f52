"""Every command line that README, CONTRIBUTING and docs show runs, on the pocket model.

The lines are taken as they stand, one after the other in one folder, since later ones read
what earlier ones wrote. Names of models, prompts and tasks are replaced by those of the
pocket model's world, and what takes long is made short by options behind the line.
"""

import re
import shlex
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import typer

from labkit import cli
from labkit.cli.command import ModelOptions
from labkit.course import build
from labkit.facts.fact import Case, Rewrite
from labkit.facts.records import write_jsonl
from labkit.pocket import demo_case, facts
from labkit.pocket.recipe import Recipe
from tests.cli.test_cli_probes import NOUNS, ROW, VERBS

ROOT = Path(__file__).resolve().parents[2]
CASE = demo_case()

INSTEAD = {  # what the documents name, and what stands for it in the pocket world
    "smollm2-135m": "pocket",
    "org/name": "pocket",
    "The Eiffel Tower is located in the city of": CASE.rewrite.prompt,
    "The Eiffel Tower is in the city of": CASE.rewrite.prompt,
    "Eiffel Tower": CASE.rewrite.subject,
    "Rome": str(CASE.rewrite.target_new),
    " Paris": " " + str(CASE.rewrite.target_true),
    "1120": "7",
    "25": "1",
    "capital": "city_river",
    "sentiment": "city_river",
    "topic": "city_river",
    "antonym": "city_river",
}
SHORT = {  # by command, what keeps it short
    "trace": "--samples 1",
    "neurons": "--draws 1",
    "probe": "--depths 0 --n-train 20",
    "probe map": "--tasks relation --depths 0 --n-train 20",
    "probe structural": "--depths 0 --n-train 20 --n-test 20 --rank 4",
    "cloze": "--limit 3",
    "icl": "--queries 4 --draws 1",
    "icl order": "--queries 2 --probes 2 --sets 1 --orders 2",
    "icl choice": "--queries 2 --draws 1 --k 1",
    "icl instruct": "--queries 2 --draws 1 --k 1 --proposals 0",
    "evaluate": "--limit 3 --tokens 0",
    "sweep": "--cases cases.json --n-cases 1 --layers 0 --no-keep",
}
BRIEF = {  # by method, fields that keep it short
    "rome": "rome:search.steps=3",
    "memit": "memit:search.steps=3",
    "alphaedit": "alphaedit:search.steps=3",
    "ft": "ft:training.steps=2",
}


@dataclass(frozen=True, kw_only=True)
class Brief(Recipe):
    """A training of two steps."""

    steps: int = 2


def lines():
    """The command lines of the documents, each in one piece and without its comment."""
    found = []
    for name in ("README.md", "CONTRIBUTING.md", "docs/guide/commands.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.S | re.M):
            whole = re.sub(r"\\\s*(#[^\n]*)?\n", " ", block)
            found += [line for line in whole.splitlines() if line.startswith("labkit ")]
    return list(dict.fromkeys(found))


def made_small(line):
    """A line of the documents as arguments that run in seconds."""
    words = [INSTEAD.get(word, word) for word in shlex.split(line, comments=True)[1:]]
    command, name = typer.main.get_command(cli.app), []
    for word in words:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        command, name = inner, [*name, word]
    options = {flag for param in command.params for flag in param.opts if flag.startswith("-")}
    if "--model" in options and "--model" not in words and name != ["undo"]:
        words += ["--model", "pocket"]
    for option in ("--method", "--methods"):
        if option in words:
            place = words.index(option) + 1
            asked = words[place].split(",")
            words[place] = ",".join(BRIEF.get(one, one) for one in asked)
    more = shlex.split(SHORT.get(" ".join(name), ""))
    pairs = zip(more[::2], more[1::2], strict=True) if "--no-keep" not in more else [more]
    for pair in pairs:
        if pair[0] not in words or pair[0] in ("--k", "--limit"):
            words += pair
    if name == ["lab"]:
        words += ["--json", "-"]
    return words


@pytest.fixture
def workshop(tmp_path, monkeypatch, own_cache, pocket):
    """A folder with the files that the documents name, and models that are opened once."""
    monkeypatch.chdir(tmp_path)
    found = [f for f in facts() if f.relation == "landmark_city"]
    others = [f for f in found if f.subject != CASE.rewrite.subject]
    new = str(CASE.rewrite.target_new)
    rewrites = [CASE.rewrite, *(Rewrite.from_fact(f, new) for f in others if f.object != new)][:3]
    write_jsonl("rewrites.jsonl", rewrites[:1])
    write_jsonl("many.jsonl", rewrites)
    cases = (Case(case_id=r.subject, rewrite=r, paraphrases=(), neighbours=()) for r in rewrites)
    write_jsonl("cases.json", [CASE, *list(cases)[1:]])
    write_jsonl("facts.jsonl", found[:3])
    for name in ("train", "test"):
        Path(f"{name}.conllu").write_text(treebank(NOUNS if name == "train" else NOUNS[:3]))
    rows = [
        f"{f.subject},{n % 60},{n % 90},{9_000_000 + n},{n % 4 == 0}"
        for n, f in enumerate(facts()[:60])
    ]
    build("handed-out", names=["01_hooks"])
    shutil.move("handed-out/exercises", "submissions")
    Path("places.csv").write_text(
        "\n".join(["name,latitude,longitude,page_views,is_test", *rows]) + "\n"
    )
    own = ModelOptions.load
    monkeypatch.setattr(
        ModelOptions, "load", lambda self: pocket if self.model == "pocket" else own(self)
    )
    monkeypatch.setattr("labkit.pocket.recipe.Recipe", Brief)
    return tmp_path


def treebank(nouns):
    """Sentences of six words in CoNLL-U."""
    blocks = []
    for noun, verb in product(nouns, VERBS):
        words = ("the", "DET", 2, "det"), (noun, "NOUN", 3, "nsubj"), (verb, "VERB", 0, "root")
        words += ("in", "ADP", 6, "case"), ("the", "DET", 6, "det"), ("town", "NOUN", 3, "obl")
        rows = (
            ROW.format(i=i, form=form, upos=upos, head=head, rel=rel)
            for i, (form, upos, head, rel) in enumerate(words, start=1)
        )
        blocks.append("\n".join([f"# text = the {noun} {verb} in the town", *rows]))
    return "\n\n".join(blocks) + "\n\n"


@pytest.mark.usefixtures("unchecked")
def test_they_all_run(labkit, workshop):
    asked = lines()
    assert len(asked) >= 20
    failed = {}
    for line in asked:
        status, _, err = labkit(*made_small(line))
        if status != 0:
            failed[line] = err.splitlines()[-1:]
    assert not failed, "\n".join(f"{line}: {said}" for line, said in failed.items())
