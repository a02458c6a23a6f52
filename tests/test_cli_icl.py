"""`labkit icl`: what it shows, what it leaves, what it refuses."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("unchecked")

SMALL = ["icl", "--model", "pocket", "--task", "country_continent", "--queries", 6, "--draws", 2]


@pytest.fixture
def labkit(labkit, monkeypatch, tmp_path, own_cache):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("mine")
    pairs = [{"input": f"word {n}", "output": "of" if n % 2 else "in"} for n in range(12)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return labkit


def test_it_shows_accuracy_by_number_and_condition(labkit, tmp_path):
    status, out, _ = labkit(*SMALL, "--k", "0,2", "--out", "run", "--json", "-")
    summary = json.loads(out)
    assert status == 0 and summary["labels"] == 5 and summary["out"] == "run"
    rows = [row for row in summary["measures"] if row["measure"] == "accuracy"]
    assert {(row["condition"], row["k"]) for row in rows} == {
        (condition, k) for condition in ("gold", "random", "permuted") for k in (0, 2)
    }
    assert all(0 <= row["low"] <= row["mean"] <= row["high"] <= 1 for row in rows)
    assert {row["condition"] for row in summary["comparisons"]} == {"random", "permuted"}
    assert (tmp_path / "run" / "icl.html").exists()
    status, out, _ = labkit(*SMALL, "--k", "0,2")
    assert status == 0 and "k = 2" in out and "chance 0.20" in out and "Holm" in out


def test_it_reads_a_file(labkit):
    command = ["icl", "--model", "random-gpt2", "--file", "pairs.json", "--k", "0,1"]
    status, out, _ = labkit(*command, "--queries", 4, "--draws", 1, "--json", "-")
    assert status == 0 and json.loads(out)["title"].startswith("pairs in context")


def test_labels_of_one_first_token_are_left_out_unless_it_is_asked_for(labkit):
    command = ["icl", "--model", "random-gpt2", "--task", "capital", "--k", "0", "--queries", 2]
    status, out, _ = labkit(*command, "--draws", 1, "--json", "-")
    # The tiny tokenizer begins nearly every word with a bare space.
    assert status == 1 and not out
    status, _, err = labkit(*command, "--tokens", "first")
    assert status == 1 and "AmbiguousLabels" in err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--k", "0,many"], "InputError"),
        (["--k", "0,-1"], "InputError"),
        (["--k", "0,20"], "PoolTooSmall"),
        (["--conditions", "golden"], "InputError"),
        (["--tokens", "last"], "InputError"),
        (["--task", "sentiment"], "InputError"),
        (["--file", "gone.json"], "MissingFile"),
        (["--file", "full"], "MalformedRecord"),
        (["--out", "full"], "OutputError"),
        (["--model", "pockett", "--task", "nothing"], "InputError"),
        (["--model", "pockett", "--task", "capital"], "UnknownModel"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_leaves_nothing(labkit, tmp_path, arguments, error):
    before = sorted(tmp_path.rglob("*"))
    status, out, err = labkit(*SMALL, *arguments)
    assert status == 1 and f"error: {error}" in err and "Traceback" not in err
    assert not out and sorted(tmp_path.rglob("*")) == before
