"""The command line: thin calls, one clear line on bad input, nothing left behind."""

import errno
import json
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
import typer

from labkit import cli
from labkit.facts.fact import Rewrite
from labkit.facts.records import to_record, write_jsonl
from labkit.pocket import demo_case, facts
from labkit.results.result import RunDirectory
from tests.reference import is_interval

pytestmark = pytest.mark.usefixtures("unchecked")

PROMPT = demo_case().rewrite.prompt
SUBJECT = demo_case().rewrite.subject


def two_cases():
    """The demo's case, and one about another subject."""
    new = demo_case().rewrite.target_new
    landmarks = (f for f in facts() if f.relation == "landmark_city")
    fact = next(f for f in landmarks if f.subject != SUBJECT and f.object != new)
    other = Rewrite.from_fact(fact, new)
    return [demo_case(), replace(demo_case(), case_id="other", rewrite=other, paraphrases=())]


@pytest.fixture
def files(tmp_path, monkeypatch, own_cache):
    """Input files, good and bad, in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    case = demo_case()
    write_jsonl("rewrites.jsonl", [case.rewrite])
    write_jsonl("cases.jsonl", [case])
    write_jsonl("two_cases.jsonl", two_cases())
    good = json.loads((tmp_path / "rewrites.jsonl").read_text())
    (tmp_path / "torn.jsonl").write_text(json.dumps(good) + "\n{ torn\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "empty_target.jsonl").write_text(json.dumps(good | {"target_new": " "}))
    (tmp_path / "no_subject.jsonl").write_text(json.dumps(good | {"subject": ""}))
    (tmp_path / "no_slot.jsonl").write_text(json.dumps(good | {"template": "It lies in"}))
    missing = {key: value for key, value in good.items() if key != "target_new"}
    (tmp_path / "missing_field.jsonl").write_text(json.dumps(missing))
    (tmp_path / "unknown_target.jsonl").write_text(json.dumps(good | {"target_new": "Xyzzy"}))
    again = good | {"template": case.paraphrases[0].replace(case.rewrite.subject, "{}")}
    (tmp_path / "two.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(again)}\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("mine")
    return tmp_path


def trace(*changed):
    """The trace command with some options replaced or added."""
    options = {"--model": "pocket", "--prompt": PROMPT, "--subject": SUBJECT, "--out": "new"}
    options |= dict(zip(changed[::2], changed[1::2], strict=True))
    return ["trace", *(part for pair in options.items() for part in pair)]


def edit(*changed):
    """The edit command with some options replaced or added."""
    options = {"--model": "pocket", "--rewrites": "rewrites.jsonl", "--out": "new"}
    options |= dict(zip(changed[::2], changed[1::2], strict=True))
    return ["edit", *(part for pair in options.items() for part in pair)]


def evaluate(*changed):
    """The evaluate command with some options replaced or added."""
    options = {"--model": "pocket", "--cases": "cases.jsonl", "--tokens": 0}
    options |= dict(zip(changed[::2], changed[1::2], strict=True))
    return ["evaluate", *(part for pair in options.items() for part in pair)]


BAD = {
    "unknown model": (["predict", "smolm2-135m", "Hello"], "UnknownModel", "smollm2-135m"),
    "folder without a model": (["predict", "./full", "Hello"], "InputError", "config.json"),
    "empty prompt": (["predict", "pocket", ""], "EmptyPrompt", "empty"),
    "k of zero": (["predict", "pocket", "The", "--k", 0], "InputError", "k = 0"),
    "unknown dtype": (["predict", "pocket", "The", "--dtype", "int7"], "InputError", "int7"),
    "unknown device": (["predict", "pocket", "The", "--device", "xpu9"], "InputError", "xpu9"),
    "nothing to fetch": (["fetch", "gpt5"], "UnknownModel", "gpt5"),
    "subject not in prompt": (trace("--subject", "Atlantis"), "SubjectNotFound", "Atlantis"),
    "empty subject": (trace("--subject", ""), "SubjectNotFound", "empty"),
    "unknown kind": (trace("--kind", "mlp"), "InputError", "mlp"),
    "no noise draws": (trace("--samples", 0), "InputError", "at least one"),
    "empty answer": (trace("--answer", " "), "EmptyTarget", "empty"),
    "severing nothing known": (trace("--severed", "mlp"), "InputError", "mlp"),
    "a fact and many": (trace("--facts", "two.jsonl"), "InputError", "either"),
    "no facts to trace": (
        ["trace", "--model", "pocket", "--facts", "gone.jsonl", "--out", "new"],
        "MissingFile",
        "gone.jsonl",
    ),
    "neuron out of range": (
        ["memories", "neuron", 0, 9999, "--model", "pocket"],
        "NeuronOutOfRange",
        "9999",
    ),
    "a token that is none": (
        ["memories", "writers", "the house", "--model", "pocket"],
        "NotOneToken",
        "the house",
    ),
    "an answer of several tokens": (
        ["memories", "contributions", PROMPT, "--answer", "the house", "--model", "pocket"],
        "NotOneToken",
        "the house",
    ),
    "nothing but the subject": (
        ["neurons", "--model", "pocket", "--prompt", SUBJECT, "--subject", SUBJECT, "--out", "new"],
        "NothingToTrace",
        SUBJECT,
    ),
    "unknown answer": (trace("--answer", "Xyzzy"), "EmptyTarget", "Xyzzy"),
    "output in use": (trace("--out", "full"), "OutputError", "full"),
    "output is a file": (trace("--out", "empty.jsonl"), "OutputError", "empty.jsonl"),
    "missing file": (edit("--rewrites", "gone.jsonl"), "MissingFile", "gone.jsonl"),
    "a folder for a file": (edit("--rewrites", "full"), "MissingFile", "full"),
    "torn line": (edit("--rewrites", "torn.jsonl"), "MalformedRecord", "2"),
    "empty file": (edit("--rewrites", "empty.jsonl"), "MalformedRecord", "no record"),
    "empty target": (edit("--rewrites", "empty_target.jsonl"), "MalformedRecord", "empty"),
    "rewrite without subject": (edit("--rewrites", "no_subject.jsonl"), "", "subject"),
    "template without slot": (edit("--rewrites", "no_slot.jsonl"), "", "{}"),
    "missing field": (edit("--rewrites", "missing_field.jsonl"), "MalformedRecord", "target_new"),
    "target unknown": (edit("--rewrites", "unknown_target.jsonl"), "EmptyTarget", "Xyzzy"),
    "one subject twice": (edit("--rewrites", "two.jsonl"), "DuplicateSubject", "one rewrite"),
    "unknown method": (edit("--method", "rune"), "InputError", "rome"),
    "layer out of range": (edit("--layer", 99), "LayerOutOfRange", "99"),
    "negative layer": (edit("--layer", -1), "LayerOutOfRange", "-1"),
    "no delta there": (["export", "--delta", "full", "--out", "new"], "MissingFile", "delta"),
    "unknown format": (
        ["export", "--delta", "full", "--out", "new", "--format", "onnx"],
        "InputError",
        "onnx",
    ),
    "no cases": (["evaluate", "--cases", "gone.json"], "MissingFile", "gone.json"),
    "unknown method among several": (evaluate("--methods", "rome,rune"), "InputError", "rune"),
    "a field that a method has not": (evaluate("--methods", "rome:layr=3"), "InputError", "layr"),
    "a value that is none": (evaluate("--methods", "rome:layer=x"), "InputError", "integer"),
    "a field without a value": (evaluate("--methods", "rome:layer"), "InputError", "field=value"),
    "no method at all": (evaluate("--methods", ","), "InputError", "no method"),
    "unknown protocol": (evaluate("--protocol", "batched"), "InputError", "sequential"),
    "a batch for a method that takes one": (
        evaluate("--protocol", "batch", "--cases", "two_cases.jsonl"),
        "InputError",
        "exactly one",
    ),
    "a batch for one method among several": (
        evaluate("--protocol", "batch", "--cases", "two_cases.jsonl", "--methods", "memit,rome"),
        "InputError",
        "exactly one",
    ),
    "a chunk of one at a time": (evaluate("--chunk", 2), "InputError", "chunk"),
    "an evaluation into a used folder": (evaluate("--out", "full"), "OutputError", "full"),
    "a comparison into a used folder": (
        evaluate("--methods", "rome", "--out", "full"),
        "OutputError",
        "full",
    ),
    "demo into a used folder": (["demo", "--model", "pocket", "--out", "full"], "OutputError", ""),
    "training into a used folder": (["pocket", "train", "--out", "full"], "OutputError", "full"),
    "no notebooks": (["lab", "nowhere"], "MissingFile", "nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_everything_as_it_was(labkit, files, name):
    arguments, error, part = BAD[name]
    before = sorted(files.rglob("*"))
    status, out, err = labkit(*arguments)
    said = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 1
    assert out == ""
    assert len(said) == 1 and error in said[0] and part in said[0]
    assert "Traceback" not in err
    assert sorted(files.rglob("*")) == before
    assert (files / "full" / "thing").read_text() == "mine"


@pytest.mark.parametrize("arguments", [["predict", "pocket"], ["trase"], trace("--samples", "x")])
def test_wrong_usage_exits_with_2(labkit, files, arguments):
    assert labkit(*arguments)[0] == 2


def test_a_delta_of_another_model_is_refused(labkit, files):
    assert labkit(*edit("--out", "delta"))[0] == 0
    status, _, err = labkit(
        "export", "--model", "random-llama", "--delta", "delta", "--out", "checkpoint"
    )
    assert status == 1 and "FingerprintMismatch" in err
    assert not (files / "checkpoint").exists()


def test_interrupting_an_edit_leaves_nothing(labkit, files, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("editing.methods.closed_form.plan.value_stars", interrupt)
    status, out, err = labkit(*edit())
    assert (status, out) == (130, "")
    assert "interrupted" in err
    assert not (files / "new").exists()


def test_a_full_disk_while_exporting_leaves_nothing(labkit, files, monkeypatch):
    assert labkit(*edit("--out", "delta"))[0] == 0

    def full(self, folder, **kwargs):
        (folder / "half").write_text("half a model")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    before = sorted(files.iterdir())
    status, _, err = labkit("export", "--model", "pocket", "--delta", "delta", "--out", "new")
    assert status == 1 and "OutputError" in err and "new" in err
    assert sorted(files.iterdir()) == before


def commands():
    """Every command with its full name; those of groups behind their group's."""
    for name, command in typer.main.get_command(cli.app).commands.items():
        inner = getattr(command, "commands", {"": command})
        yield from ((f"{name} {last}".strip(), one) for last, one in inner.items())


def test_every_command_is_described_and_answers_in_json():
    found = dict(commands())
    assert {"predict", "trace", "evaluate", "lab", "pocket train"} <= set(found)
    for name, command in found.items():
        assert command.help, name
        assert "--json" in {flag for one in command.params for flag in one.opts}, name


def test_an_option_of_its_own_stands_for_the_shared_one():
    params = {param.name: param for param in dict(commands())["predict"].params}
    assert params["model"].param_type_name == "argument"
    assert {"device", "dtype", "json"} < set(params)


def test_help_does_not_wait_for_the_library():
    code = """
import sys, typer
from labkit import cli
assert typer.main.get_command(cli.app).commands
print(*{"torch", "transformers", "pandas", "scipy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_models_lists_every_short_name(labkit):
    status, out, _ = labkit("models", "--json")
    names = {row["name"] for row in json.loads(out)}
    assert status == 0
    assert {"pocket", "smollm2-135m", "random-gpt2"} <= names


def test_predict_says_what_the_library_says(labkit, pocket):
    from labkit import predict

    status, out, _ = labkit("predict", "pocket", PROMPT, "--k", 3, "--json", "-")
    found = predict(pocket, PROMPT, k=3)
    assert status == 0
    assert json.loads(out)["tokens"] == list(found.tokens)


def test_trace_leaves_a_result_that_loads(labkit, files):
    from labkit.locate import TraceResult

    status, out, _ = labkit(*trace("--samples", 2, "--json", "-"))
    result = TraceResult.load(files / "new")
    assert status == 0
    assert json.loads(out)["peak"]["layer"] == result.peak()[1]
    assert (files / "new" / "trace.html").stat().st_size > 1_000_000


def test_tracing_many_facts_can_be_interrupted_and_goes_on(labkit, files, monkeypatch):
    write_jsonl("facts.jsonl", [f for f in facts() if f.relation == "landmark_city"][:3])
    many = ["trace", "--model", "pocket", "--facts", "facts.jsonl", "--samples", 2, "--out", "run"]
    append, kept = RunDirectory.append_case, []

    def append_two(self, record):
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(record["case_id"])
        append(self, record)

    monkeypatch.setattr(RunDirectory, "append_case", append_two)
    assert labkit(*many)[0] == cli.INTERRUPTED
    assert RunDirectory.open("run").finished_cases() == set(kept)
    monkeypatch.setattr(RunDirectory, "append_case", append)
    status, out, _ = labkit(*many, "--json")
    summary = json.loads(out)
    assert status == 0 and summary["total_effect"]["n"] == 3
    assert "last subject token" in {site["role"] for site in summary["sites"]}
    assert (files / "run" / "report.html").stat().st_size > 1_000_000
    assert labkit(*many[:-3], 3, "--out", "run")[0] == 1  # another number of draws, another run


def test_memories_say_what_the_library_says(labkit, files, pocket):
    from labkit.memories import contributions, writers

    status, out, _ = labkit("memories", "contributions", PROMPT, "--model", "pocket", "--json")
    found, expected = json.loads(out), contributions(pocket, PROMPT)
    assert status == 0 and found["logit"] == pytest.approx(expected.logit, abs=1e-4)
    assert sum(row["logit"] for row in found["components"]) == pytest.approx(found["sum"])
    layer, neuron = (found["neurons"][0][name] for name in ("layer", "neuron"))
    assert (layer, neuron) == expected.covering(1e-6)[0]
    status, out, _ = labkit("memories", "neuron", layer, neuron, "--model", "pocket", "--json")
    card = json.loads(out)
    assert status == 0 and len(card["triggers"]) > 0
    written = (card["promoted"] + card["suppressed"])[0].strip()
    status, out, _ = labkit("memories", "writers", written, "--model", "pocket", "--json")
    best = writers(pocket, written).neurons.iloc[0]
    assert status == 0 and json.loads(out)["neurons"][0]["neuron"] == best["neuron"]


def test_neurons_are_found_and_tested(labkit, files):
    asked = ["--prompt", PROMPT, "--subject", SUBJECT, "--out", "found", "--draws", 2]
    status, out, _ = labkit("neurons", "--model", "pocket", *asked, "--json")
    found = json.loads(out)
    assert status == 0 and found["neurons"]
    groups = {(row["group"], row["intervention"]) for row in found["test"]}
    assert ("this fact", "suppressed") in groups and ("random neurons", "amplified") in groups
    assert (files / "found" / "neurons.html").stat().st_size > 1_000_000


def test_what_a_result_warns_of_is_said(labkit, files, monkeypatch):
    from labkit.locate.neurons.knowledge_result import KnowledgeNeuronsResult

    said = "attributions have not converged in layer 1"
    monkeypatch.setattr(KnowledgeNeuronsResult, "warning", said)
    asked = ["neurons", "--model", "pocket", "--prompt", PROMPT, "--subject", SUBJECT, "--draws", 1]
    status, out, _ = labkit(*asked, "--out", "one", "--json")
    assert status == 0 and json.loads(out)["warning"] == said
    assert f"warning: {said}" in labkit(*asked, "--out", "two")[1]


def test_a_bos_is_as_the_option_says(labkit, tiny):
    from labkit.models.loading import load
    from labkit.readout import predict

    for option, setting in (("--prepend-bos", True), ("--no-prepend-bos", False)):
        status, out, _ = labkit("predict", "random-llama", "the of in", option, "--json")
        expected = predict(load("random-llama", prepend_bos=setting, check=False), "the of in")
        assert status == 0
        assert json.loads(out)["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    usual = json.loads(labkit("predict", "random-llama", "the of in", "--json")[1])
    assert usual["probabilities"] != json.loads(out)["probabilities"]


def test_the_corpus_that_is_named_is_the_one_that_is_measured(labkit, files, pocket):
    from editing import WeightDelta
    from labkit.text.corpus import SEPARATOR, corpus_of

    own = corpus_of(pocket).documents
    (files / "mine.txt").write_text(SEPARATOR.join(own[: len(own) // 2]), encoding="utf-8")
    status, out, _ = labkit(*edit("--out", "delta", "--corpus", "mine.txt"), "--json")
    provenance = json.loads(out)["provenance"]
    assert status == 0 and provenance["corpus"] == "file mine.txt"
    assert labkit(*edit("--out", "usual"))[0] == 0
    (mine,), (usual,) = (WeightDelta.load(d).changes.values() for d in ("delta", "usual"))
    assert not torch.allclose(mine.dense(), usual.dense())  # of another C


def test_edit_then_export_says_the_new_object(labkit, files):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert labkit(*edit("--out", "delta"))[0] == 0
    status, _, _ = labkit("export", "--model", "pocket", "--delta", "delta", "--out", "edited")
    assert status == 0
    model = AutoModelForCausalLM.from_pretrained(files / "edited").eval()
    tokenizer = AutoTokenizer.from_pretrained(files / "edited")
    with torch.no_grad():
        logits = model(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    wanted = demo_case().rewrite.target_new
    assert tokenizer.decode([int(logits.argmax())]).strip() == wanted


def test_evaluate_writes_the_promised_summary(labkit, files):
    status, _, _ = labkit(*evaluate("--json", "out.json", "--out", "run"))
    summary = json.loads((files / "out.json").read_text())
    assert status == 0
    assert (summary["n"], summary["failed"], summary["protocol"]) == (1, 0, "single")
    metrics = {"efficacy", "paraphrase", "neighbourhood", "score"}
    for readings in (summary, summary["unedited"]):
        for reading in ("success", "accuracy"):
            assert metrics <= set(readings[reading]) <= metrics | {"attribute", "distractor"}
            assert all(is_interval(estimate) for estimate in readings[reading].values())
    assert summary["seconds_per_edit"]["median"] > 0
    assert len(summary["fingerprint"]) == 64
    assert (files / "run" / "metrics.json").is_file()


def test_a_run_of_other_cases_under_the_same_ids_is_not_gone_on_with(labkit, files):
    asked = evaluate("--out", "run")
    assert labkit(*asked)[0] == 0
    cases = files / asked[asked.index("--cases") + 1]
    before = cases.read_text(encoding="utf-8")
    changed = re.sub(r'"paraphrases": \["[^"]+"', '"paraphrases": ["Elsewhere"', before, count=1)
    assert changed != before
    cases.write_text(changed, encoding="utf-8")
    status, _, err = labkit(*asked)
    assert status == 1 and "OutputError" in err


def test_several_methods_leave_a_table_and_a_report(labkit, files):
    asked = evaluate("--methods", "rome, memit", "--cases", "two_cases.jsonl", "--out", "run")
    status, out, _ = labkit(*asked, "--protocol", "sequential", "--json")
    summary, table = json.loads(out), pd.read_csv(files / "run" / "table.csv")
    assert status == 0
    assert set(table["method"]) == {"unedited", "rome", "memit"}
    assert (summary["n"], summary["protocol"]) == (2, "sequential")
    rows = {(r["method"], r["reading"], r["metric"]): r["mean"] for r in summary["table"]}
    for row in table.itertuples():
        assert rows[row.method, row.reading, row.metric] == pytest.approx(row.mean)
        assert is_interval(row)
    assert (files / "run" / "report.html").stat().st_size > 1_000_000
    status, again, _ = labkit(*asked, "--protocol", "sequential", "--json")
    assert status == 0 and json.loads(again) == summary, "nothing was run again"
    assert labkit(*asked, "--protocol", "single")[0] == 1, "another run"


def test_a_method_takes_fields_of_its_own(labkit, files):
    methods = "rome,rome:covariance=false:search.steps=2,memit:layers=[0, 1]"
    status, out, _ = labkit(*evaluate("--methods", methods), "--json")
    assert status == 0
    config = json.loads(out)["methods"]
    _, shortcut, spread = methods.split(",", 2)
    assert config["rome"]["covariance"] and not config[shortcut]["covariance"]
    assert config[shortcut]["search"]["steps"] == 2 and config[spread]["layers"] == [0, 1]


def test_several_rewrites_are_one_edit(labkit, files):
    asked = edit("--rewrites", "two_cases.jsonl", "--method", "memit", "--json", "-")
    status, out, err = labkit(*asked)
    assert status == 0, err
    assert len(json.loads(out)["provenance"]["rewrites"]) == 2


def test_a_fact_can_be_deleted_by_methods_that_can(labkit, files):
    case = demo_case()
    record = {**to_record(case.rewrite), "target_new": None}
    (files / "forget.jsonl").write_text(json.dumps(record), encoding="utf-8")
    asked = edit("--rewrites", "forget.jsonl", "--json", "-")
    status, out, err = labkit(*asked)
    assert status == 0, err
    (made,) = json.loads(out)["provenance"]["rewrites"]
    assert made["target_true"] == case.rewrite.target_true and "target_new" not in made
    status, _, err = labkit(*edit("--rewrites", "forget.jsonl", "--method", "ft", "--out", "other"))
    assert status == 1 and "cannot delete" in err


def test_the_demo_leaves_the_whole_run_directory(labkit, files):
    status, _, _ = labkit("demo", "--model", "pocket", "--out", "run")
    assert status == 0
    left = {path.name for path in (files / "run").iterdir()}
    assert left == {
        "config.json",
        "environment.json",
        "cases.jsonl",
        "metrics.json",
        "report.html",
        "delta",
        "checkpoint",
    }
    metrics = json.loads((files / "run" / "metrics.json").read_text())
    assert metrics["reload"]["says"].strip() == demo_case().rewrite.target_new
    assert len(metrics["reload"]["changed"]) == 1
