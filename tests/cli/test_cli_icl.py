"""`labkit icl`: what it shows, what it leaves, what it refuses."""

import json
import zipfile

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
    with zipfile.ZipFile(tmp_path / "lines.zip", "w") as archive:
        for name in ("neg", "pos"):
            archive.writestr(f"set.{name}", "".join(f"{name} {n}\n" for n in range(20)))
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


def test_order_shows_the_spread_and_what_explains_it(labkit, tmp_path):
    command = ["icl", "order", "--model", "pocket", "--task", "country_continent", "--k", 2]
    command += ["--queries", 4, "--probes", 3, "--sets", 2]
    status, out, _ = labkit(*command, "--out", "run", "--json", "-")
    summary = json.loads(out)
    assert status == 0 and len(summary["orders"]) == 4 and (tmp_path / "run/icl.html").exists()
    assert summary["spread"]["n"] == 2 and [r["position"] for r in summary["by_position"]] == [1, 2]
    status, out, _ = labkit(*command)
    assert status == 0 and "best order - worst" in out and "global entropy" in out


def test_choice_compares_ways_with_the_first(labkit, tmp_path):
    command = ["icl", "choice", "--model", "random-gpt2", "--file", "lines.zip", "--k", "1,2"]
    command += ["--queries", 3, "--draws", 1, "--ways", "random,spread,bm25"]
    status, out, _ = labkit(*command, "--out", "run", "--json", "-")
    summary = json.loads(out)
    assert status == 0 and summary["title"].startswith("lines") and summary["out"] == "run"
    assert summary["against"] == "drawn at random"
    assert {row["condition"] for row in summary["comparisons"]} == {
        "far from each other",
        "nearest by BM25",
    }
    assert (tmp_path / "run" / "icl.html").exists()


def test_instruct_tells_shows_and_lets_the_model_propose(labkit, tmp_path):
    command = ["icl", "instruct", "--k", 2, "--queries", 3, "--draws", 1, "--development", 2]
    command += ["--proposals", 2, "--model"]
    own = ["random-gpt2", "--file", "lines.zip", "--instruction", "Judge it."]
    status, out, _ = labkit(*command, *own, "--out", "run", "--json", "-")
    summary = json.loads(out)
    assert status == 0 and summary["instructions"] == ["Judge it."]
    arms = {row["arm"] for row in summary["measures"]}
    assert {"neither", "instruction", "demonstrations", "both", "another's"} <= arms
    assert len(summary["candidates"]) <= 2 and (tmp_path / "run" / "icl.html").exists()
    status, out, _ = labkit(*command, "pocket", "--task", "city_river")
    assert status == 0 and "another's - neither" in out


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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--k", 2, "order"], "InputError"),
        (["order", "--k", 1], "InputError"),
        (["order", "--orders", 1], "InputError"),
        (["order", "--task", "nothing"], "InputError"),
        (["order", "--out", "full"], "OutputError"),
        (["order", "--tokens", "last"], "InputError"),
        (["choice", "--ways", "random,nearest"], "InputError"),
        (["choice", "--k", "0,1"], "InputError"),
        (["choice", "--pool", 2], "PoolTooSmall"),
        (["choice", "--file", "gone.zip"], "MissingFile"),
        (["instruct", "--k", 0], "InputError"),
        (["instruct", "--file", "lines.zip"], "InputError"),
        (["instruct", "--instruction", " "], "InputError"),
        (["instruct", "--file", "pairs.json", "--out", "full"], "OutputError"),
        (["instruct", "--tokens", "last"], "InputError"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_a_model_is_opened(labkit, monkeypatch, arguments, error):
    monkeypatch.setattr("labkit.models.loading.load", None)
    status, out, err = labkit("icl", *arguments)
    assert status == 1 and not out and f"error: {error}" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["order", "--sets", 1, "--queries", 20, "--probes", 20],
        ["choice", "--k", 30],
        ["instruct", "--k", 15, "--development", 10],
    ],
    ids=str,
)
def test_a_pool_that_is_too_small_is_refused_before_any_forward(
    labkit, monkeypatch, pocket, no_forward, arguments
):
    monkeypatch.setattr("labkit.cli.command.ModelOptions.load", lambda options: pocket)
    own = ["--model", "pocket", "--task", "country_continent"]
    status, _, err = labkit("icl", arguments[0], *own, *arguments[1:])
    assert status == 1 and "error: PoolTooSmall" in err


@pytest.fixture
def opened(tiny, monkeypatch):
    """The model that a command opens: opening it runs the self-check, which is no question."""
    model = tiny("gpt2")
    monkeypatch.setattr("labkit.cli.command.ModelOptions.load", lambda options: model)
    return model


FEW = {
    "": ["--queries", 2, "--draws", 1],
    "order": ["--queries", 2, "--probes", 2, "--sets", 1, "--orders", 2],
    "choice": ["--queries", 2, "--draws", 1],
    "instruct": ["--queries", 2, "--draws", 1],
}


@pytest.mark.parametrize("command", FEW)
@pytest.mark.parametrize(
    ("labels", "fields", "error"),
    [
        (("the a", "the b"), ["--tokens", "first"], "AmbiguousLabels"),
        (("of", ""), [], "MalformedRecord"),
        (("of", "in"), ["--k", 40], "ContextTooShort"),
        ((), [], "MalformedRecord"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused_before_any_forward(
    labkit, tmp_path, opened, no_forward, command, labels, fields, error
):
    pairs = [{"input": f"word {n}", "output": labels[n % 2]} for n in range(120)] if labels else []
    (tmp_path / "own.json").write_text(json.dumps(pairs))
    told = ["--instruction", "Do it."] if command == "instruct" else []
    own = ["--model", "random-gpt2", "--file", "own.json", *told, *FEW[command], *fields]
    status, out, err = labkit("icl", *([command] if command else []), *own)
    assert status == 1 and not out and f"error: {error}" in err
