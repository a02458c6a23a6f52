"""Known answers give exact metrics, an edit of nothing changes nothing, a killed run resumes."""

import dataclasses
import importlib
import itertools
import math

import numpy as np
import pytest
import torch

from editing.edits.delta import LowRank, WeightDelta
from editing.evaluation.many_cases import Evaluation, evaluate
from editing.evaluation.one_edit import Audit, audit
from editing.evaluation.options import EvaluationOptions
from editing.readings.asking import METRICS, MORE_METRICS, Answer, questions
from labkit.errors import FingerprintMismatch, InputError
from labkit.facts.fact import Neighbour
from labkit.results.encoding import dumps
from labkit.results.result import RunDirectory
from labkit.running.reading import TextReading
from labkit.stats import Estimate, average, share
from tests.reference import full_logits

READINGS = importlib.import_module("editing.readings.asking")
UNEDITED = importlib.import_module("editing.readings.unedited")
EVEN, ONE_OF_TWO = torch.tensor([[0.25] * 4, [0.5, 0.5, 1e-12, 1e-12]]).log()
TEXTS = ("the cat is in the house of the king", "in the sea")


class Nothing:
    """An editor that changes nothing."""

    def __init__(self):
        self.edited = []

    def __call__(self, model, rewrites):
        self.edited.append(rewrites[0].subject)
        rows, columns = model.ffn_proj(1).weight.shape
        zero = LowRank(torch.zeros(rows, 1), torch.zeros(1, columns))
        return WeightDelta({model.ffn_out_name(1): zero}, model.fingerprint)


class Marking(Nothing):
    """An editor whose change the fake readings below can see."""

    def __call__(self, model, rewrites):
        delta = super().__call__(model, rewrites)
        ((name, zero),) = delta.changes.items()
        uneven = torch.linspace(0.5, 1.5, zero.left.shape[0])[:, None]
        mark = LowRank(uneven, torch.linspace(0.5, 1.5, zero.right.shape[1])[None])
        return dataclasses.replace(delta, changes={name: mark})


def three(case):
    """Three cases; the last has no neighbours, and alone an attribute."""
    return [
        case,
        dataclasses.replace(case, case_id="two", neighbours=case.neighbours[:2]),
        dataclasses.replace(case, case_id="three", neighbours=(), attributes=("the Pope is in",)),
    ]


# --- known answers ------------------------------------------------------------------------

# By state and case: the wanted object's NLL in the order of the questions (rewrite, two
# paraphrases, neighbours, attributes, distractors); rivals have 1.0.
WANTED = {
    ("before", "cat"): [2, 2, 2, 0, 0, 0, 2, 0, 0, 0, 2],
    ("after", "cat"): [0, 0, 2, 0, 0, 2, 2, 2, 2, 0, 2],
    ("before", "two"): [2, 2, 2, 0, 0, 2, 2],
    ("after", "two"): [0, 0, 0, 0, 0, 2, 0],
    ("before", "three"): [2, 2, 2, 0],
    ("after", "three"): [2, 0, 2, 0],
}


@pytest.fixture
def known(tiny, monkeypatch):
    """A model that gives these answers, edited or not."""
    model = tiny("llama")
    weight = model.ffn_out(1)
    unedited = weight[0, 0].item()

    def answers(model, cases, *, n_tokens, wording):
        state = "after" if weight[0, 0].item() != unedited else "before"
        return [
            [
                Answer(
                    question=question,
                    wanted_nll=float(nll),
                    rival_nll=1.0,
                    argmax=nll == 0 and question.metric != "paraphrase",
                    text=question.wanted if question.metric == "efficacy" else "silence",
                )
                for question, nll in zip(questions(case), WANTED[state, case.case_id], strict=True)
            ]
            for case in cases
        ]

    def read_text(model, texts, **more):
        nll = torch.tensor([1.0, 3.0]) + (0.5 if weight[0, 0].item() != unedited else 0.0)
        return TextReading(nll, EVEN.expand(2, -1), (0, 1))

    def essence(model, cases, **more):
        return (EVEN if weight[0, 0].item() == unedited else ONE_OF_TWO).expand(len(cases), -1)

    monkeypatch.setattr(READINGS, "ask_all", answers)
    monkeypatch.setattr(READINGS, "fluency", lambda words: 4.0)
    monkeypatch.setattr(UNEDITED, "read_text", read_text)
    monkeypatch.setattr(UNEDITED, "essence", essence)
    return model


def test_known_answers_give_exact_metrics(known, case):
    found = evaluate(known, Marking(), three(case), EvaluationOptions(held_out_texts=TEXTS))
    values = {
        (state, metric): found.values(state, "success", metric)
        for state in ("before", "after")
        for metric in (*METRICS, *MORE_METRICS)
    }
    assert values == {
        ("before", "attribute"): [1],
        ("after", "attribute"): [1],
        ("before", "distractor"): [0.75, 0],
        ("after", "distractor"): [0.25, 0.5],
        ("before", "efficacy"): [0, 0, 0],
        ("before", "paraphrase"): [0, 0, 0],
        ("before", "neighbourhood"): [0.75, 1],
        ("after", "efficacy"): [1, 1, 0],
        ("after", "paraphrase"): [0.5, 1, 0.5],
        ("after", "neighbourhood"): [0.5, 1],
    }
    assert found.values("after", "accuracy", "paraphrase") == [0, 0, 0]
    assert found.values("after", "generation", "efficacy") == [1, 1, 1]
    assert found.values("before", "drift", "essence") == [0, 0, 0]

    metrics = found.metrics()
    assert metrics["n"] == 3
    assert metrics["success"]["efficacy"]["mean"] == pytest.approx(2 / 3)
    assert metrics["success"]["paraphrase"]["mean"] == pytest.approx(2 / 3)
    assert metrics["success"]["neighbourhood"]["mean"] == pytest.approx(0.75)
    assert metrics["success"]["neighbourhood"]["n"] == 2, "the unit is the case"
    assert metrics["unedited"]["success"]["neighbourhood"]["mean"] == pytest.approx(0.875)
    # Cases with all three metrics: means 1, 0.75 and 0.75.
    harmonic = 3 / (1 / 1 + 1 / 0.75 + 1 / 0.75)
    assert metrics["success"]["score"]["mean"] == pytest.approx(harmonic)
    assert metrics["success"]["score"]["n"] == 2
    assert metrics["unedited"]["success"]["score"]["mean"] == 0
    assert metrics["generation"]["fluency"]["mean"] == 4.0
    # KL from an even choice of four to one of two: what is left out costs 0.25 ln(0.25 / 1e-12)
    # each, the others 0.25 ln(0.25 / 0.5).
    drift = 0.5 * math.log(0.25e12) + 0.5 * math.log(0.5)
    assert metrics["drift"]["essence"]["mean"] == pytest.approx(drift, rel=1e-5)
    assert (metrics["model"], metrics["fingerprint"]) == (known.name, known.fingerprint)
    for estimate in metrics["success"].values():
        known_ends = not math.isnan(estimate["low"])
        assert known_ends == (estimate["n"] > 1)
        assert not known_ends or estimate["low"] <= estimate["mean"] <= estimate["high"]


def test_intervals_are_over_cases(known, case):
    found = evaluate(known, Marking(), three(case), EvaluationOptions(held_out_texts=TEXTS, seed=7))
    assert found.estimate("after", "success", "paraphrase") == share([0.5, 1, 0.5])
    assert found.estimate("after", "success", "nothing of the kind") is None


def test_perplexity_has_intervals_over_texts_unedited_and_over_cases_edited(known, case):
    found = evaluate(known, Marking(), three(case), EvaluationOptions(held_out_texts=TEXTS, seed=7))
    perplexity = found.metrics()["perplexity"]
    unedited, edited = perplexity["unedited"], perplexity["edited"]
    pieces = average([1.0, 3.0])
    assert found.nll("before") == pieces and pieces.low < pieces.mean < pieces.high
    assert unedited["low"] == pytest.approx(math.exp(pieces.low))
    assert (unedited["mean"], unedited["n"]) == (pytest.approx(math.exp(2.0)), 2)
    assert (edited["mean"], edited["n"]) == (pytest.approx(math.exp(2.5)), 3)
    # Paired: texts differ by 2 nats, and every case changes them by the same half.
    assert perplexity["change_in_nats_per_token"] == Estimate.exact(0.5, 3).to_dict()
    units = perplexity["unit of intervals"]
    assert set(units) == set(perplexity) - {"unit of intervals"}
    assert "piece" in units["unedited"] and units["edited"].startswith("case")


def test_the_table_the_frame_and_the_summary_say_the_same(known, case, random_delta):
    one = audit(known, random_delta(known), case, n_tokens=2, held_out_texts=TEXTS)
    for found in (
        one,
        evaluate(known, Marking(), three(case), EvaluationOptions(held_out_texts=TEXTS)),
    ):
        metrics, frame = found.metrics(), found.to_frame()
        assert set(metrics["drift"]) == {"essence"}
        assert set(frame.reading) <= {"success", "argmax accuracy", "generation"}
        for row in found.table().itertuples():
            reading = row.reading.removeprefix("argmax ")
            assert metrics[reading][row.metric] == row.edited.to_dict()
            assert metrics["unedited"][reading][row.metric] == row.unedited.to_dict()
            shown = frame[(frame.reading == row.reading) & (frame.metric == row.metric)]
            bars = dict(zip(shown.state, shown["mean"], strict=True))
            if row.metric in ("fluency", "essence"):
                assert bars == {}, "bits and nats are no shares"
            else:
                assert bars == {"unedited": row.unedited.mean, "edited": row.edited.mean}


def test_the_table_sets_unedited_beside_edited(known, case):
    frame = evaluate(
        known, Marking(), three(case), EvaluationOptions(held_out_texts=TEXTS)
    ).to_frame()
    row = frame.query("reading == 'success' and metric == 'paraphrase' and state == 'edited'")
    assert row["mean"].item() == pytest.approx(2 / 3)
    assert set(frame.state) == {"unedited", "edited"}
    assert set(frame.reading) == {"success", "argmax accuracy", "generation"}


def test_an_evaluation_comes_back_as_it_was_saved(known, case, tmp_path):
    found = evaluate(known, Marking(), three(case), EvaluationOptions(held_out_texts=TEXTS))
    again = Evaluation.load(found.save(tmp_path / "evaluation"))
    assert dumps(again.metrics()) == dumps(found.metrics())


# --- an edit of nothing -------------------------------------------------------------------


def test_an_edit_of_nothing_changes_nothing(model, case):
    found = evaluate(
        model, Nothing(), three(case), EvaluationOptions(held_out_texts=TEXTS, n_tokens=4)
    )
    for record in found.records:
        assert record["before"] == record["after"]
        assert record["nll_after"] == found.nll_before.mean()
        assert {"success", "accuracy", "generation"} <= set(record["before"])
    assert found.nll_change == Estimate.exact(0.0, 3)
    assert found.perplexity("before").mean == pytest.approx(found.perplexity("after").mean)


def test_an_edit_is_judged_while_it_is_applied_and_undone_before_the_next(
    model, case, weights, changed
):
    before = weights(model)
    found = evaluate(
        model, Marking(), three(case), EvaluationOptions(held_out_texts=TEXTS, n_tokens=0)
    )
    assert changed(model, before) == set()
    assert all(record["nll_after"] != found.nll_before.mean() for record in found.records)
    # The cases share a rewrite: edited alone, each from the same weights, they read the same.
    assert len({str(record["after"]["success"]["efficacy"]) for record in found.records}) == 1
    assert "generation" not in found.records[0]["before"] or set(
        found.records[0]["before"]["generation"]
    ) <= {"fluency"}


# --- interrupted, and resumed -------------------------------------------------------------


def test_a_killed_run_goes_on_where_it_was(tiny, case, tmp_path):
    model, cases = tiny("gpt2"), three(case)
    whole = evaluate(model, Nothing(), cases, EvaluationOptions(held_out_texts=TEXTS, n_tokens=0))

    class Killed(Nothing):
        def __call__(self, model, rewrites):
            if len(self.edited) == 2:
                raise KeyboardInterrupt
            return super().__call__(model, rewrites)

    run = RunDirectory.create(tmp_path / "run", {"cases": 3}, model)
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            model, Killed(), cases, EvaluationOptions(held_out_texts=TEXTS, n_tokens=0), run=run
        )
    assert run.finished_cases() == {"cat", "two"}

    again = RunDirectory.create(tmp_path / "run", {"cases": 3}, model, resume=True)
    rest = Nothing()
    found = evaluate(
        model, rest, cases, EvaluationOptions(held_out_texts=TEXTS, n_tokens=0), run=again
    )
    assert len(rest.edited) == 1
    assert [record["case_id"] for record in found.records] == ["cat", "two", "three"]
    for ours, theirs in zip(found.records, whole.records, strict=True):
        assert (ours["before"], ours["after"]) == (theirs["before"], theirs["after"])


@pytest.mark.parametrize("moment", ["while editing", "while reading the edited model"])
def test_ctrl_c_in_a_case_leaves_the_model_as_it_was(
    model, case, weights, changed, monkeypatch, moment
):
    before, said = weights(model), full_logits(model, model.tokens(["the cat"]))
    count = itertools.count()
    real = UNEDITED.read_text

    def stopped(*args, **more):
        if next(count) == 1:  # the first is of the unedited model
            assert changed(model, before)
            raise KeyboardInterrupt
        return real(*args, **more)

    class Stopped(Marking):
        def __call__(self, model, rewrites):
            raise KeyboardInterrupt

    if moment == "while editing":
        method = Stopped()
    else:
        method = Marking()
        monkeypatch.setattr(UNEDITED, "read_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, method, [case], EvaluationOptions(held_out_texts=TEXTS, n_tokens=0))
    assert changed(model, before) == set()
    assert torch.equal(full_logits(model, model.tokens(["the cat"])), said)


def test_every_case_is_looked_at_before_any_work(tiny, case):
    method = Nothing()
    unwritable = Neighbour(prompt="the dog is in", object="\ud800")
    wrong = dataclasses.replace(case, case_id="wrong", neighbours=(unwritable,))
    with pytest.raises(InputError, match="surrogate"):
        evaluate(tiny("llama"), method, [case, wrong], EvaluationOptions(held_out_texts=TEXTS))
    with pytest.raises(InputError, match="no cases"):
        evaluate(tiny("llama"), method, [])
    assert method.edited == []


# --- the audit of one edit ----------------------------------------------------------------


def test_an_audit_reads_the_same_prompts_twice(model, case, random_delta, weights, changed):
    before = weights(model)
    found = audit(model, random_delta(model), case, n_tokens=3, held_out_texts=TEXTS)
    assert changed(model, before) == set()
    nothing = Nothing()(model, [case.rewrite])
    same = audit(model, nothing, case, n_tokens=3, held_out_texts=TEXTS)
    assert same.before == same.after == found.before != found.after
    assert same.written_before == same.written_after
    assert np.array_equal(same.nll_before, same.nll_after)
    assert same.nll_change.mean == 0 != found.nll_change.mean
    assert len(found.prompts()) == len(questions(case))


def test_an_audit_counts_prompts(known, case, monkeypatch):
    module = importlib.import_module("editing.evaluation.one_edit")
    monkeypatch.setattr(module, "text_nll", lambda *a, **m: UNEDITED.read_text(*a).nll)
    delta = Marking()(known, [case.rewrite])
    found = audit(known, delta, case, held_out_texts=TEXTS)
    after = found.estimate("after", "success", "neighbourhood")
    assert (after.mean, after.n) == (0.5, 4)
    assert found.estimate("before", "success", "neighbourhood").mean == 0.75
    assert found.metrics()["success"]["paraphrase"]["mean"] == 0.5
    assert found.perplexity("after").mean == pytest.approx(math.exp(2.5))
    assert isinstance(found.nll_change, Estimate) and found.nll_change.mean == 0.5


def test_an_audit_comes_back_as_it_was_saved(tiny, case, random_delta, tmp_path):
    model = tiny("llama")
    found = audit(model, random_delta(model), case, n_tokens=2, held_out_texts=TEXTS)
    again = Audit.load(found.save(tmp_path / "audit"))
    assert again.metrics() == found.metrics()
    assert again.case == case and again.after == found.after


def test_an_audit_refuses_the_change_of_another_model(tiny, case, random_delta):
    with pytest.raises(FingerprintMismatch):
        audit(tiny("llama"), random_delta(tiny("qwen2")), case, held_out_texts=TEXTS)
