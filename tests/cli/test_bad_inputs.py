"""Whatever a person hands in wrong has a name, says what to do, and leaves everything as it was.

A table: what is done wrong, the error it gives, and a part of what the error says. After
each, the model, the cache and the output folder are as before. Files of facts and cases
have a table of their own (`test_records`), fetching too (`test_fetch`).
"""

import dataclasses
import errno
import gzip
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from editing import ROME, WeightDelta, applied, evaluate, export_hf
from editing.edits.delta import LowRank
from editing.evaluation.many_cases import Evaluation
from editing.methods.closed_form.value_search import ValueSearch
from labkit.direct_attribution import direct_logit_attribution
from labkit.errors import (
    DuplicateSubject,
    EmptyPrompt,
    EmptyTarget,
    FetchError,
    FingerprintMismatch,
    InputError,
    LabkitError,
    LayerOutOfRange,
    MalformedRecord,
    MissingFile,
    NonFiniteLoss,
    OutputError,
    SingularSystem,
    SubjectNotFound,
    UnknownModel,
)
from labkit.facts.fact import Case, Fact, Rewrite
from labkit.facts.known import known_facts
from labkit.facts.records import read_cases
from labkit.locate import CausalTrace
from labkit.models.in_effect import fingerprint
from labkit.models.loading import load
from labkit.readout import logit_lens, predict
from labkit.results.result import RunDirectory
from labkit.running.activations import capture
from labkit.running.execute import Execution, freeze
from labkit.running.logits import next_token_logits
from labkit.text.corpus import Corpus
from labkit.text.moments import second_moments
from labkit.text.streams import ReadingOptions
from tests.reference import n_hooks

REWRITE = Rewrite(subject="cat", template="the {} is in", target_new="Rome")
DOG = dataclasses.replace(REWRITE, subject="dog")
CASE = Case(case_id="a", rewrite=REWRITE, paraphrases=(), neighbours=())
FAST = ROME(layer=1, n_contexts=2, search=ValueSearch(steps=3))
TEXT = Corpus(documents=("The baker sees the farmer in the mill. " * 60,), source="one sentence")


def delta_of(model, value=0.1, base=None):
    change = LowRank(torch.full((32, 1), value), torch.ones(1, 64))
    return WeightDelta({"model.layers.1.mlp.down_proj.weight": change}, base or model.fingerprint)


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def saved(model, folder):
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def cut_weights(model, folder):
    path = saved(model, folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return str(folder)


def cut_delta(model, folder):
    path = delta_of(model).save(folder / "delta") / "delta.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    return path.parent


def stopped(*args, **more):
    raise KeyboardInterrupt


def stopped_while_edited(model):
    with applied(model, delta_of(model)):
        raise KeyboardInterrupt


def without_a_weight(model, folder):
    path = saved(model, folder) / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    return str(folder)


def full_disk(*args, **more):
    raise OSError(errno.ENOSPC, "No space left on device")


# By what is done wrong: (what is done, with the model and a folder), error, what it says.
WRONG = {
    # opening a model
    "unknown name": (lambda m, d: load("gpt5"), UnknownModel, "Registered: pocket"),
    "slip of the pen": (lambda m, d: load("smollm-135m"), UnknownModel, "did you mean smollm2"),
    "unknown dtype": (lambda m, d: load("random-gpt2", dtype="fp8"), InputError, "float32"),
    "no such device": (lambda m, d: load("random-gpt2", device="abacus"), InputError, "abacus"),
    "device not here": (lambda m, d: load("random-gpt2", device="cuda:99"), InputError, "cuda"),
    "no hub": (lambda m, d: load("nobody/nothing"), FetchError, "Without a hub"),
    "an empty folder": (lambda m, d: load(str(d)), InputError, "config.json"),
    "a file for a model": (lambda m, d: load(str(written(d, "m.bin", "x"))), InputError, "a file"),
    "weights cut short": (lambda m, d: load(cut_weights(m, d / "m")), InputError, "damaged"),
    "a weight is missing": (
        lambda m, d: load(without_a_weight(m, d / "m")),
        InputError,
        "layers.1.mlp.down_proj.weight",
    ),
    "config that is no JSON": (
        lambda m, d: load(str(written(saved(m, d / "m"), "config.json", "{").parent)),
        InputError,
        "no JSON",
    ),
    # prompts, subjects, targets
    "no prompt": (lambda m, d: m.tokens([]), EmptyPrompt, "nothing to run"),
    "empty prompt": (lambda m, d: next_token_logits(m, ["fine", " "]), EmptyPrompt, "one word"),
    "prompt beyond the context": (
        lambda m, d: predict(m, "the " * 400),
        InputError,
        "256",
    ),
    "subject not in the prompt": (
        lambda m, d: Fact.from_prompt("the cat is in", "dog"),
        SubjectNotFound,
        "'dog'",
    ),
    "subject inside a word": (lambda m, d: m.span("the cattle are", "cat"), SubjectNotFound, "cat"),
    "empty subject": (lambda m, d: m.span("the cat is in", " "), SubjectNotFound, "empty"),
    "template without a place": (
        lambda m, d: Rewrite(subject="cat", template="the cat is in", target_new="Rome"),
        InputError,
        "exactly one",
    ),
    "empty target": (
        lambda m, d: dataclasses.replace(REWRITE, target_new=" "),
        EmptyTarget,
        "target",
    ),
    # layers, sites, ranges
    "layer too large": (lambda m, d: m.ffn_out(3), LayerOutOfRange, r"0\.\.2"),
    "negative layer": (lambda m, d: m.ffn_out_name(-1), LayerOutOfRange, r"0\.\.2"),
    "layer that is no number": (lambda m, d: m.ffn_out("1"), LayerOutOfRange, "layer '1'"),
    "unknown site": (lambda m, d: capture(m, ["mlp"]).__enter__(), InputError, "resid_pre"),
    "blocks that are not there": (
        lambda m, d: Execution(m, m.tokens(["the"])).forward(stop=4),
        InputError,
        "3 blocks",
    ),
    "resuming from nothing": (
        lambda m, d: Execution(m, m.tokens(["the"])).forward(start=1),
        InputError,
        "needs the stream",
    ),
    "freezing nothing": (
        lambda m, d: freeze(m, m.tokens(["the cat"]), length=0),
        InputError,
        "cannot freeze 0",
    ),
    # reading
    "no next token asked for": (lambda m, d: predict(m, "the", k=0), InputError, "k = 0"),
    "empty answer": (lambda m, d: logit_lens(m, "the", answer=""), EmptyTarget, "empty"),
    "unknown unit": (
        lambda m, d: direct_logit_attribution(m, "the", "cat", unit="neuron"),
        InputError,
        "component, head",
    ),
    "no facts": (lambda m, d: known_facts(m, []), InputError, "no facts"),
    "unknown kind of trace": (lambda m, d: CausalTrace(kind="mlp"), InputError, "resid, ffn, attn"),
    "trace without noise": (lambda m, d: CausalTrace(noise=0.0), InputError, "noise above 0"),
    "window of hidden states": (lambda m, d: CausalTrace(window=5), InputError, "window"),
    # text for statistics
    "empty corpus": (lambda m, d: Corpus(documents=("",), source="x"), EmptyPrompt, "no text"),
    "no corpus file": (lambda m, d: Corpus.from_file(d / "no.txt"), MissingFile, "no.txt"),
    "binary corpus file": (
        lambda m, d: Corpus.from_file(written(d, "a.txt", b"\xff\xfe\x00")),
        MissingFile,
        "text file",
    ),
    "corpus file cut short": (
        lambda m, d: Corpus.from_file(written(d, "a.gz", gzip.compress(b"text " * 99)[:-12])),
        MissingFile,
        "a.gz",
    ),
    "no keys asked for": (
        lambda m, d: second_moments(m, [0], TEXT, ReadingOptions(min_tokens=0)),
        InputError,
        "at least one token",
    ),
    "too little text for contexts": (
        lambda m, d: FAST.prepare(m, corpus=Corpus(documents=("word",), source="a word")),
        SingularSystem,
        "a word.*too few",
    ),
    # editing
    "no rewrite": (lambda m, d: FAST(m, []), InputError, "exactly one"),
    "two rewrites": (lambda m, d: FAST(m, [REWRITE, DOG]), InputError, "not 2"),
    "two about one subject": (lambda m, d: FAST(m, [REWRITE, REWRITE]), DuplicateSubject, "share"),
    "editing a layer that is not there": (
        lambda m, d: ROME(layer=7)(m, [REWRITE]),
        LayerOutOfRange,
        r"0\.\.2",
    ),
    "weight that is no share": (lambda m, d: ROME(bare_weight=1.5), InputError, "0 to 1"),
    "search without steps": (lambda m, d: ValueSearch(steps=0), InputError, "step"),
    "search without a step size": (lambda m, d: ValueSearch(lr=-0.5), InputError, "lr"),
    "search that runs away": (
        lambda m, d: dataclasses.replace(FAST, search=ValueSearch(decay=1e39))(
            m, [REWRITE], prepared=FAST.prepare(m, corpus=TEXT)
        ),
        NonFiniteLoss,
        "untouched",
    ),
    "ctrl-c in the middle of an edit": (
        lambda m, d: FAST(m, [REWRITE], prepared=FAST.prepare(m, corpus=TEXT), progress=stopped),
        KeyboardInterrupt,
        None,
    ),
    "ctrl-c while edited": (
        lambda m, d: stopped_while_edited(m),
        KeyboardInterrupt,
        None,
    ),
    "change of another model": (
        lambda m, d: applied(m, delta_of(m, base="0" * 64)).__enter__(),
        FingerprintMismatch,
        "load the model",
    ),
    "change that is no number": (lambda m, d: delta_of(m, float("nan")), InputError, "finite"),
    "no change there": (lambda m, d: WeightDelta.load(d / "delta"), MissingFile, "no delta"),
    "change cut short": (
        lambda m, d: WeightDelta.load(cut_delta(m, d)),
        MalformedRecord,
        "damaged",
    ),
    # judging, keeping
    "no cases": (lambda m, d: evaluate(m, FAST, []), InputError, "no cases"),
    "no file of cases": (lambda m, d: read_cases(d / "no.jsonl"), MissingFile, "no.jsonl"),
    "line that is no JSON": (
        lambda m, d: read_cases(written(d, "c.jsonl", "\n{]\n")),
        MalformedRecord,
        "line 2",
    ),
    "result of another kind": (
        lambda m, d: Evaluation.load(
            written(d, "r/result.json", json.dumps({"kind": "TraceResult", "format": 1})).parent
        ),
        MalformedRecord,
        "TraceResult",
    ),
    "run of another model": (
        lambda m, d: [
            RunDirectory.create(d / "run", {}, dataclasses.replace(m, fingerprint=f), resume=True)
            for f in ("0" * 64, "1" * 64)
        ],
        FingerprintMismatch,
        "not with",
    ),
    "exporting into a folder in use": (
        lambda m, d: export_hf(m, delta_of(m), written(d, "out/mine.txt", "x").parent),
        OutputError,
        "not an empty folder",
    ),
    "exporting the change of another model": (
        lambda m, d: export_hf(m, delta_of(m, base="0" * 64), d / "out"),
        FingerprintMismatch,
        "load the model",
    ),
    "full disk while exporting": (
        lambda m, d: export_hf(m, delta_of(m), d / "deep" / "out"),
        OutputError,
        "No space left",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_it_has_a_name_and_leaves_everything_as_it_was(
    tiny, tmp_path, own_cache, monkeypatch, unchecked, what
):
    do, error, says = WRONG[what]
    model = tiny("llama")
    if what.startswith("full disk"):
        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full_disk)
    FAST.prepare(model, corpus=TEXT)  # so that the cache holds something to be left alone
    cached = listing(own_cache)

    with pytest.raises(error, match=says) as caught:
        do(model, tmp_path)

    assert issubclass(error, LabkitError) or error is KeyboardInterrupt
    assert "\n" not in str(caught.value).strip(), "the command line shows one line"
    assert fingerprint(model.hf, model.tokenizer) == model.fingerprint
    assert n_hooks(model) == 0
    assert listing(own_cache) == cached
    left = {path for path, _ in listing(tmp_path)}
    assert not any(path.endswith(".tmp") for path in left)
    if what.startswith(("full disk", "exporting the change", "no ", "unknown")):
        assert left == set()


def test_the_table_is_long_enough():
    assert len(WRONG) >= 25


def listing(folder):
    """Every file below a folder, with its size."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted((str(path.relative_to(folder)), path.stat().st_size) for path in files)
