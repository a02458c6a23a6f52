"""`labkit probe` and `labkit probe map`: thin, resumable, one clear line on bad input."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("unchecked", "own_cache")

# Two kinds of sentences, enough of each for a split by sentence.
ROW = "{i}\t{form}\t{form}\t{upos}\t_\t_\t{head}\t{rel}\t_\t_"
NOUNS = "dog cat king door boat bird ship tree road song".split()
VERBS = "runs sleeps sings falls grows".split()


@pytest.fixture(scope="module")
def treebank(tmp_path_factory):
    path = tmp_path_factory.mktemp("treebank") / "toy.conllu"
    blocks = []
    for noun in NOUNS:
        for verb in VERBS:
            words = [
                ("the", "DET", 2, "det"),
                (noun, "NOUN", 3, "nsubj"),
                (verb, "VERB", 0, "root"),
            ]
            rows = [
                ROW.format(i=i, form=form, upos=upos, head=head, rel=rel)
                for i, (form, upos, head, rel) in enumerate(words, start=1)
            ]
            blocks.append("\n".join([f"# text = the {noun} {verb}", *rows]))
    path.write_text("\n\n".join(blocks) + "\n\n")
    return path


def test_one_task_with_its_controls_as_json(labkit, treebank):
    status, out, _ = labkit(
        "probe", "--model", "random-llama", "--task", "upos", "--data", treebank, "--json", "-"
    )
    found = json.loads(out)
    assert status == 0 and found["task"] == "upos" and found["measure"] == "accuracy"
    assert [row["depth"] for row in found["depths"]] == [0, 1, 2, 3]
    assert {"majority", "form"} <= set(found["baselines"])
    assert {"control", "selectivity", "shuffled", "twin", "compression"} <= set(found["depths"][0])
    assert found["score"]["low"] <= found["score"]["mean"] <= found["score"]["high"]
    assert sum(step["bits"] for step in found["sample_size_curve"]) > 0


def test_one_task_for_people(labkit, treebank):
    status, out, _ = labkit(
        *("probe", "--model", "random-gpt2", "--task", "deprel", "--data", treebank),
        *("--site", "ffn_out", "--depths", "0-1", "--estimator", "centroid", "--no-controls"),
    )
    assert status == 0 and "deprel" in out and "majority" in out


def test_the_map_leaves_a_run_and_goes_on_with_it(labkit, treebank, tmp_path):
    command = ["probe", "map", "--model", "random-llama", "--data", treebank]
    command += ["--tasks", "upos,deprel", "--depths", "0,3", "--out", tmp_path / "run"]
    status, out, _ = labkit(*command)
    assert status == 0 and "upos" in out and "report.html" in out
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "cases.jsonl", "metrics.json", "report.html"} <= files
    assert "two tasks" in (tmp_path / "run" / "report.html").read_text()  # no order to test
    before = (tmp_path / "run" / "cases.jsonl").read_text()
    status, out, _ = labkit(*command, "--json", "-")
    assert status == 0 and {row["task"] for row in json.loads(out)["tasks"]} == {"upos", "deprel"}
    assert (tmp_path / "run" / "cases.jsonl").read_text() == before
    status, _, err = labkit(*command, "--seed", 1)
    assert status == 1 and "OutputError" in err and "seed" in err


BAD = {
    "no task": ([], "--task"),
    "an unknown task": (["--task", "nothing", "--model", "pocket"], "nothing"),
    "an unknown probe": (["--task", "upos", "--estimator", "logit"], "logistic"),
    "an unknown site": (
        ["--task", "upos", "--data", "{data}", "--model", "random-gpt2", "--where", "mlp"],
        "resid",
    ),
    "a depth too deep": (
        ["--task", "upos", "--data", "{data}", "--model", "random-gpt2", "--depths", "9"],
        "0..3",
    ),
    "depths that are none": (["--task", "upos", "--depths", "3-"], "--depths"),
    "a test without data": (["--task", "upos", "--test", "{data}"], "--data"),
    "a file that is not there": (["--task", "upos", "--data", "gone.conllu"], "gone.conllu"),
    "a task that the treebank lacks": (["--task", "tense", "--data", "{data}"], "tense"),
    "options before map": (["--model", "pocket", "map", "--out", "x"], "after map"),
    "a map of nothing": (["map", "--tasks", ",", "--out", "x"], "--tasks"),
    "a map of what is not there": (
        ["map", "--tasks", "upos,nothing", "--data", "{data}", "--out", "x"],
        "nothing",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_named_line(case, labkit, treebank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, word = BAD[case]
    status, out, err = labkit("probe", *(str(treebank) if a == "{data}" else a for a in arguments))
    assert status == 1 and out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert word in line
    assert list(tmp_path.iterdir()) == []


def test_trees_are_probed_and_kept(labkit, treebank, tmp_path):
    command = ["probe", "structural", "--model", "random-llama", "--depths", "0,2"]
    command += ["--n-train", "20", "--n-test", "10"]
    status, out, _ = labkit(*command, "--out", tmp_path / "trees", "--json", "-")
    found = json.loads(out)
    assert status == 0 and {row["depth"] for row in found["depths"]} == {0, 2}
    assert found["uuas"]["low"] <= found["uuas"]["mean"] <= found["uuas"]["high"]
    assert (tmp_path / "trees" / "structural.html").is_file()
    status, out, _ = labkit(*command)
    assert status == 0 and "each word on the one before" in out
    for error, more in (
        ("EmptySplit", ("--data", treebank)),  # its sentences have three words
        ("InputError", ("--test", treebank)),
        ("InputError", ("--depths", "99")),
        ("MissingFile", ("--data", tmp_path / "nothing.conllu")),
        ("OutputError", ("--out", tmp_path / "trees")),
    ):
        status, _, err = labkit(*command, *more)
        assert status == 1 and error in err
