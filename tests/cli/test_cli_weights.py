"""Export, diff and undo at the command line: round trips, and one clear line on bad input."""

import dataclasses
import json

import pytest
import torch

from editing.edits.change import Dense
from editing.edits.delta import WeightDelta
from labkit.models.loading import load
from labkit.pocket import demo_case
from labkit.stats import generator

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def files(tmp_path, monkeypatch, own_cache, pocket, random_delta):
    """Deltas of the pocket model and of another, in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    asked = [dataclasses.asdict(demo_case().rewrite)]
    one = dataclasses.replace(
        random_delta(pocket, 0, seed=1, scale=0.01),
        provenance={"method": "one", "rewrites": asked},
    )
    two = dataclasses.replace(
        random_delta(pocket, 1, seed=2, scale=0.01),
        provenance={"method": "two"},
        on_top_of=one.digest,
    )
    one.save("one")
    two.save("two")
    one.then(two).save("total")
    ((name, change),) = one.changes.items()
    WeightDelta({name: Dense(change.dense())}, one.base).save("dense")
    random_delta(load("random-llama")).save("foreign")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("mine")
    (tmp_path / "text.gguf").write_text("no such format")
    (tmp_path / "torn.json").write_text("{")
    return tmp_path


@pytest.fixture
def random_delta():
    def make(model, layer=1, scale=0.1, seed=0):
        from editing.edits.change import LowRank

        draw = generator(seed, "delta")
        rows, columns = model.ffn_proj(layer).weight.shape
        factors = LowRank(
            scale * torch.randn(rows, 2, generator=draw), torch.randn(2, columns, generator=draw)
        )
        return WeightDelta({model.ffn_out_name(layer): factors}, model.fingerprint)

    return make


def export(*changed):
    """The export command with some options replaced or added."""
    options = {"--model": "pocket", "--delta": "one", "--out": "new"}
    options |= dict(zip(changed[::2], changed[1::2], strict=True))
    return ["export", *(part for pair in options.items() for part in pair)]


def undo(*options):
    return ["undo", "--delta", "one", "--out", "new", *options]


def diff(*options):
    return ["diff", "--model", "pocket", "--out", "new", *options]


BAD = {
    "unknown format": (export("--format", "onnx"), "InputError", "onnx"),
    "no delta there": (export("--delta", "full"), "MissingFile", "delta"),
    "delta of another model": (export("--delta", "foreign"), "FingerprintMismatch", "load"),
    "unknown model": (export("--model", "pockets"), "UnknownModel", "pocket"),
    "output in use": (export("--out", "full"), "OutputError", "full"),
    "unknown dtype": (export("--dtype", "int7"), "InputError", "int7"),
    "edits in the wrong order": (
        [*export("--delta", "two"), "--delta", "one", "--delta", "two"],
        "FingerprintMismatch",
        "order",
    ),
    "made in another format": (export("--load-dtype", "bfloat16"), "FingerprintMismatch", "load"),
    "dense as an adapter": (
        export("--delta", "dense", "--format", "peft"),
        "InputError",
        "--rank",
    ),
    "dtype of an adapter": (
        export("--format", "peft", "--dtype", "float16"),
        "InputError",
        "dtype",
    ),
    "base of a checkpoint": (export("--base", "text.gguf"), "InputError", "GGUF"),
    "no file to write into": (export("--format", "gguf"), "InputError", "--base"),
    "no GGUF file": (
        export("--format", "gguf", "--base", "text.gguf"),
        "InputError",
        "text.gguf",
    ),
    "GGUF file gone": (export("--format", "gguf", "--base", "x.gguf"), "MissingFile", "x.gguf"),
    "quantised as integers": (
        export("--format", "gguf", "--base", "text.gguf", "--dtype", "int4"),
        "InputError",
        "int4",
    ),
    "no audit": (export("--audit", "gone.json"), "MissingFile", "gone.json"),
    "torn audit": (export("--audit", "torn.json"), "MalformedRecord", "torn.json"),
    "diff with nothing": (diff("--edited", "full"), "InputError", "full"),
    "diff with another family": (diff("--edited", "random-gpt2"), "FingerprintMismatch", "gpt2"),
    "diff with itself": (diff("--edited", "pocket"), "InputError", "same weights"),
    "diff with a negative tolerance": (
        diff("--edited", "random-llama", "--tolerance", -1),
        "InputError",
        "tolerance",
    ),
    "undo of no checkpoint": (undo("--model", "full"), "MissingFile", "labkit.json"),
    "undo of nothing": (undo(), "InputError", "--total"),
    "undo of both": (undo("--model", "full", "--total", "total"), "InputError", "either"),
    "undo of what is not there": (undo("--total", "dense"), "InputError", "not among"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_everything_as_it_was(labkit, files, name):
    arguments, error, part = BAD[name]
    before = sorted(files.rglob("*"))
    status, out, err = labkit(*arguments)
    said = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 1 and out == ""
    assert len(said) == 1 and error in said[0] and part in said[0]
    assert "Traceback" not in err
    assert sorted(files.rglob("*")) == before


def test_an_edit_goes_out_and_is_taken_back(labkit, files, pocket):
    status, out, _ = labkit(*export("--delta", "one"), "--delta", "two")
    assert status == 0 and "100.00% of the change" in out and "exported" in out
    assert load("new").fingerprint != pocket.fingerprint
    status, out, _ = labkit("undo", "--model", "new", "--delta", "one", "--out", "left")
    assert status == 0 and "bit for bit" in out and "to be audited again: two" in out
    status, out, _ = labkit(
        "undo", "--model", "left", "--delta", "two", "--out", "base", "--json", "-"
    )
    found = json.loads(out)
    assert found["exact"] and found["remaining"] == 0
    assert load("base").fingerprint == pocket.fingerprint


def test_an_edit_is_found_again_in_a_checkpoint(labkit, files):
    assert labkit(*export("--out", "checkpoint"))[0] == 0
    status, out, _ = labkit(*diff("--edited", "checkpoint", "--out", "found", "--json", "-"))
    ((name, stated),) = json.loads(out)["weights"].items()
    assert status == 0 and stated["rank"] == 2 and stated["relative_error"] < 1e-5
    one, found = WeightDelta.load("one"), WeightDelta.load("found")
    torch.testing.assert_close(
        found.changes[name].dense(), one.changes[name].dense(), rtol=0, atol=1e-6
    )


def test_an_edit_is_taken_out_of_a_composition(labkit, files):
    status, out, _ = labkit("undo", "--total", "total", "--delta", "two", "--out", "left")
    assert status == 0 and "1 edit(s) are left" in out
    assert WeightDelta.load("left").digest == WeightDelta.load("one").digest


def test_formats_and_what_they_keep(labkit, files):
    (files / "audit.json").write_text('{"drop": {"mean": 0.25, "low": 0.125, "high": 0.5}}')
    runs = {
        "rounded": ("--dtype", "bfloat16", "--audit", "audit.json"),
        "adapter": ("--format", "peft", "--delta", "dense", "--rank", 2),
    }
    for out, options in runs.items():
        status, text, _ = labkit(*export("--out", out, "--json", "-", *options))
        kept = json.loads(text)["check"]["weights"][0]["kept"]
        assert status == 0 and kept == pytest.approx(1, abs=0.01)
    assert "| drop | 0.2500 [0.1250, 0.5000] |" in (files / "rounded" / "README.md").read_text()
    assert (files / "adapter" / "adapter_config.json").exists()
    assert labkit(*export("--out", "bare"), "--no-originals")[0] == 0
    assert not (files / "bare" / "undo").exists()
