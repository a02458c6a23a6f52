"""`labkit cloze`: what it shows, what it leaves, what it refuses."""

import json

import pytest

from labkit.cli.cloze import _chosen
from labkit.pocket import facts

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def labkit(labkit, monkeypatch, tmp_path, own_cache):
    """The command line, in a folder of its own that holds some facts."""
    monkeypatch.chdir(tmp_path)
    some = [fact for fact in facts() if fact.relation in ("city_river", "company_city")]
    records = [
        {
            "subject": fact.subject,
            "template": fact.template,
            "object": fact.object,
            "relation": fact.relation,
        }
        for fact in some[:6] + some[-6:]
    ]
    write = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "facts.jsonl").write_text(write)
    lre = {
        "name": "city river",
        "prompt_templates": ["{} lies on the river"],
        "samples": [{"subject": f.subject, "object": f.object} for f in some[:5]],
        "properties": {
            "relation_type": "factual",
            "domain_name": "city",
            "range_name": "river",
        },
    }
    (tmp_path / "lre").mkdir()
    (tmp_path / "lre" / "city_river.json").write_text(json.dumps(lre))
    asked = [
        {
            "input": f"{fact.prompt}",
            "output": json.dumps([fact.object]),
            "id": number,
            "s_pop": 10 ** (1 + number % 3),
            "o_pop": 5,
        }
        for number, fact in enumerate(some[:9])
    ]
    (tmp_path / "questions.json").write_text(json.dumps({"dev": asked, "test": []}))
    wrong = records[0] | {"object": records[-1]["object"]}
    (tmp_path / "unknown.jsonl").write_text(json.dumps(wrong))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("mine")
    return labkit


def test_it_reads_a_models_own_facts_and_tells_the_depths(labkit):
    status, out, _ = labkit("cloze", "--model", "pocket", "--limit", 40)
    assert status == 0
    assert "40 facts through the logit lens" in out and "40 of 40" in out
    assert "readable before said" in out


def test_it_leaves_a_run_that_is_resumed(labkit, tmp_path):
    command = ["cloze", "--model", "pocket", "--facts", "facts.jsonl", "--out", "run"]
    status, out, _ = labkit(*command, "--json", "-")
    summary = json.loads(out)
    assert status == 0 and summary["out"] == "run"
    assert len((tmp_path / "run" / "cases.jsonl").read_text().splitlines()) == 12
    assert "report.html" in {path.name for path in (tmp_path / "run").iterdir()}
    rows = [row for row in summary["precision"] if row["reading"] == "the answer"]
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
    (last,) = (row for row in rows if row["k"] == 1 and row["depth"] == 6)
    assert last["mean"] == 1.0 and last["n"] == 12
    before = (tmp_path / "run" / "cases.jsonl").read_text()
    assert labkit(*command)[0] == 0
    assert (tmp_path / "run" / "cases.jsonl").read_text() == before
    status, _, err = labkit(*command, "--seed", 1)
    assert status == 1 and "OutputError" in err


def test_it_reads_relations_with_the_translated_lens(labkit):
    command = ["cloze", "--model", "pocket", "--relations", "lre", "--lens", "translated"]
    status, out, _ = labkit(*command, "--json", "-")
    summary = json.loads(out)
    assert status == 0 and "5 facts through the translated lens" in summary["title"]
    assert {row["relation"] for row in summary["depths"]} == {"all", "city_river"}


def test_questions_are_read_against_the_popularity_of_their_subjects(labkit):
    command = ["cloze", "--model", "pocket", "--questions", "questions.json", "--all"]
    status, out, _ = labkit(*command, "--json", "-")
    rows = [row for row in json.loads(out)["popularity"] if row["k"] == 1]
    assert status == 0 and [row["n"] for row in rows] == [3, 3, 3]
    assert [row["popularity"] for row in rows] == pytest.approx([10, 100, 1000])
    assert "1,000" in labkit(*command)[1]


def test_views_stay_with_their_questions(pocket):
    asked = facts()[:40]
    views = list(range(1, 41))
    chosen, theirs = _chosen(pocket, asked, views, 25, 0, every=True)
    assert len(chosen) == 25 and chosen != asked[:25]
    assert [asked[number - 1] for number in theirs] == chosen


def test_unknown_facts_are_read_when_asked_for(labkit):
    command = ["cloze", "--model", "pocket", "--facts", "unknown.jsonl"]
    status, _, err = labkit(*command)
    assert status == 1 and "InputError" in err and "--all" in err
    status, out, _ = labkit(*command, "--all")
    assert status == 0 and "0 of 1" in out and "never" in out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--lens", "tuned"], "InputError"),
        (["--facts", "facts.jsonl", "--relations", "lre"], "InputError"),
        (["--facts", "gone.jsonl"], "MissingFile"),
        (["--relations", "full"], "MalformedRecord"),
        (["--relations", "facts.jsonl"], "MalformedRecord"),
        (["--out", "full"], "OutputError"),
        (["--model", "pockett"], "UnknownModel"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_leaves_nothing(labkit, tmp_path, arguments, error):
    before = sorted(tmp_path.rglob("*"))
    model = [] if "--model" in arguments else ["--model", "pocket"]
    status, out, err = labkit("cloze", *model, *arguments)
    assert status == 1 and f"error: {error}" in err and "Traceback" not in err
    assert not out and sorted(tmp_path.rglob("*")) == before
