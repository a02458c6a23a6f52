"""Protocols: what is in effect when, what one case gives in each, and what a resumed run gives."""

import dataclasses
import json

import pytest
import torch

from editing import METHODS
from editing.edits.applying import applied
from editing.edits.delta import LowRank, WeightDelta
from editing.evaluation.evaluation_result import Evaluation
from editing.evaluation.many_cases import evaluate
from editing.evaluation.options import PROTOCOLS, EvaluationOptions
from editing.evaluation.protocols import Step
from editing.readings.asking import read
from editing.readings.collapse import CollapseCurve, Thresholds, checkpoints, growth
from editing.readings.side_effects import SideEffects
from labkit.errors import AlreadyTrue, InputError, NonFiniteLoss
from labkit.facts.fact import Rewrite
from labkit.results.encoding import dumps
from labkit.results.result import RunDirectory
from tests.editing.conftest import FAST
from tests.reference import full_logits

TEXTS = ("the cat is in the house of the king", "in the sea")


class Editing:
    """An editor with a change of its own for each rewrite; it notes what it was called with.

    Attributes:
        scale: How large the changes are.
        asked: By call, the subjects, the delta that was in effect, and the logits that the
            model then gave.
    """

    def __init__(self, scale=0.3, fails=(), refuses=()):
        self.scale, self.fails, self.refuses, self.asked = scale, fails, refuses, []

    def __call__(self, model, rewrites, *, after=None):
        subjects = [rewrite.subject for rewrite in rewrites]
        self.asked.append((subjects, after, full_logits(model, model.tokens(["the cat"]))))
        if set(subjects) & set(self.fails):
            raise NonFiniteLoss("the loss is nan")
        if refused := [r.prompt for r in rewrites if r.subject in self.refuses]:
            raise AlreadyTrue("the model says so already", refused)
        rows, columns = model.ffn_proj(1).weight.shape
        draw = torch.Generator().manual_seed(sum(map(ord, "".join(subjects))))
        change = LowRank(
            self.scale * torch.randn(rows, 1, generator=draw),
            torch.randn(1, columns, generator=draw),
        )
        on_top_of = None if after is None else after.digest
        return WeightDelta(
            {model.ffn_out_name(1): change}, model.fingerprint, {"n": len(rewrites)}, on_top_of
        )


@pytest.fixture
def cases(case):
    """Five cases about five subjects."""

    def about(subject):
        rewrite = Rewrite(
            subject=subject, template="the {} is in", target_new="Rome", target_true="the house"
        )
        near = tuple(n for n in case.neighbours if subject not in n.prompt)[:2]
        return dataclasses.replace(case, case_id=subject, rewrite=rewrite, neighbours=near)

    return [about(subject) for subject in ("cat", "dog", "hen", "ship", "king")]


def without_seconds(found):
    """All that an evaluation says, but for how long it took."""
    metrics = {k: v for k, v in found.metrics().items() if k != "seconds_per_edit"}
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in found.records]
    return json.loads(json.dumps([metrics, records], default=float))


# --- what is in effect when ---------------------------------------------------------------


def test_each_sequential_call_is_made_on_top_of_the_ones_before(model, cases):
    method = Editing()
    evaluate(
        model,
        method,
        cases,
        EvaluationOptions(protocol="sequential", held_out_texts=TEXTS, n_tokens=0),
    )
    total = None
    for number, (subjects, after, said) in enumerate(method.asked):
        assert subjects == [cases[number].rewrite.subject]
        assert (after is None) == (number == 0)
        with applied(model, *([] if total is None else [total])):
            assert torch.equal(said, full_logits(model, model.tokens(["the cat"])))
        increment = Editing()(model, [cases[number].rewrite], after=total)
        total = increment if total is None else total.then(increment)


@pytest.mark.parametrize("protocol", ["batch", "sequential"])
def test_every_case_is_read_on_the_final_state(model, cases, protocol):
    found = evaluate(
        model,
        Editing(),
        cases,
        EvaluationOptions(protocol=protocol, held_out_texts=TEXTS, n_tokens=2),
    )
    total = None
    for call in [cases] if protocol == "batch" else [[case] for case in cases]:
        increment = Editing()(model, [case.rewrite for case in call], after=total)
        total = increment if total is None else total.then(increment)
    with applied(model, total):
        expected = read(model, cases, n_tokens=2)
    for record, reading in zip(found.records, expected, strict=True):
        drift = record["after"].pop("drift")
        assert record["after"] == reading and drift["essence"] > 0
    assert found.text_units["edited"] == found.text_units["unedited"], "one state: over pieces"
    assert found.nll("after").n == len(found.nll_before)


def test_one_case_is_the_same_in_every_protocol(model, case):
    alone, *others = (
        evaluate(
            model,
            Editing(),
            [case],
            EvaluationOptions(protocol=p, held_out_texts=TEXTS, n_tokens=3),
        )
        for p in PROTOCOLS
    )
    for other in others:
        for state in ("before", "after"):
            assert other.records[0][state] == alone.records[0][state]
        assert other.nll_after.mean() == alone.records[0]["nll_after"]
        assert other.kl_after.mean() == alone.records[0]["kl"] > 0
        assert other.perplexity("after").mean == pytest.approx(alone.perplexity("after").mean)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_edit_of_nothing_changes_exactly_nothing(model, cases, protocol):
    found = evaluate(
        model,
        Editing(scale=0.0),
        cases,
        EvaluationOptions(protocol=protocol, held_out_texts=TEXTS, n_tokens=2),
    )
    assert all(record["before"] == record["after"] for record in found.records)
    for unchanged in (found.estimate("after", "drift", "essence"), found.nll_change, found.kl):
        assert unchanged.mean == 0 and not unchanged.has_interval
    if found.collapse is not None:
        frame = found.collapse.to_frame().set_index("quantity")
        assert (frame.loc["perplexity", "mean"] == 1).all()
        assert (frame.loc["norm growth", "mean"] == 0).all()


def test_a_chunk_is_edited_in_one_call(tiny, cases):
    method = Editing()
    found = evaluate(
        tiny("gpt2"),
        method,
        cases,
        EvaluationOptions(protocol="sequential", chunk=2, held_out_texts=TEXTS, n_tokens=0),
    )
    assert [subjects for subjects, _, _ in method.asked] == [
        ["cat", "dog"],
        ["hen", "ship"],
        ["king"],
    ]
    assert [p["edits"] for p in found.collapse.points] == [2, 5]
    assert found.records[0]["seconds"] == found.records[1]["seconds"]


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        (
            "emmet",
            {
                "contexts",
                "search_steps",
                "lowest_target_probability_in_search",
                "distance_in_norms",
            },
        ),
        ("ft", {"training_steps", "loss", "probability"}),
    ],
)
def test_a_record_keeps_the_numbers_of_its_edit(tiny, cases, corpus, name, reported):
    model, method = tiny("llama"), METHODS[name](**FAST[name])
    prepared = method.prepare(model, corpus=corpus)
    delta = method(model, [cases[0].rewrite], prepared=prepared)
    numbers = Step(0, tuple(cases[:1]), delta, delta, 1.0, {}).record(cases[0])["edit"]
    assert set(numbers) == reported
    assert all(delta.provenance[key] in (value, [value]) for key, value in numbers.items())


def test_a_record_of_many_keeps_the_numbers_of_the_call(tiny, cases):
    found = (
        evaluate(
            tiny("llama"),
            Editing(),
            cases,
            EvaluationOptions(protocol=p, held_out_texts=TEXTS, n_tokens=0),
        )
        for p in PROTOCOLS
    )
    assert [each.records[1]["edit"] for each in found] == [{"n": 1}, {"n": 5}, {"n": 1}]


# --- failures -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["single", "sequential"])
def test_a_failed_edit_counts_as_the_model_that_it_leaves(model, cases, protocol):
    method = Editing(fails=("dog",))
    found = evaluate(
        model, method, cases, EvaluationOptions(protocol=protocol, held_out_texts=TEXTS, n_tokens=0)
    )
    assert len(method.asked) == len(found.records) == 5
    assert list(found.failures) == ["dog"] and "nan" in found.failures["dog"]
    assert found.metrics()["failed"] == 1
    if protocol == "single":
        assert found.records[1]["after"] == found.records[1]["before"]
        assert found.records[1]["kl"] == 0
    else:
        others = [case for case in cases if case.case_id != "dog"]
        spared = evaluate(
            model,
            Editing(),
            others,
            EvaluationOptions(protocol=protocol, held_out_texts=TEXTS, n_tokens=0),
        )
        assert (found.nll_after == spared.nll_after).all(), "the others were made regardless"


def test_a_batch_that_fails_is_no_evaluation(tiny, cases):
    with pytest.raises(NonFiniteLoss):
        evaluate(tiny("llama"), Editing(fails=("dog",)), cases, EvaluationOptions(protocol="batch"))


def test_what_cannot_be_evaluated_is_named_before_any_work(tiny, cases, unchecked):
    class Single(Editing):
        def require(self, rewrites):
            if len(rewrites) > 1:
                raise InputError("one at a time")

    method = Single()
    for more, said in (
        ({"protocol": "batched"}, "single, batch, sequential"),
        ({"protocol": "batch"}, "one at a time"),
        ({"protocol": "sequential", "chunk": 2}, "one at a time"),
        ({"protocol": "batch", "chunk": 2}, "chunk"),
        ({"protocol": "sequential", "chunk": 0}, "chunk"),
        ({"protocol": "sequential", "chunk": 1.5}, "chunk 1.5"),
        ({"n_tokens": -1}, "n_tokens -1"),
        ({"held_out_texts": "the cat"}, "list of texts"),
        ({"held_out_texts": [" "]}, "list of texts"),
        ({"side_effects": SideEffects}, "side_effects: SideEffects"),
        ({"chains": ()}, "chains: Chains"),
        ({"corpus": "the cat"}, "corpus: Corpus"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate(tiny("llama"), method, cases, EvaluationOptions(**more))
    for how in ("batch", EvaluationOptions, {"protocol": "batch"}):
        with pytest.raises(InputError, match="EvaluationOptions"):
            evaluate(tiny("llama"), method, cases, how)
    with pytest.raises(InputError, match="case_id"):
        evaluate(tiny("llama"), method, [cases[0], cases[0]])
    assert method.asked == []


# --- killed, and resumed ------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_progress_never_goes_back(tiny, cases, protocol):
    class Prepared(Editing):
        def prepare(self, model, *, progress):
            progress("measuring", 0.5)
            progress("measuring", 1.0)

        def __call__(self, model, rewrites, *, after=None, prepared=None):
            return super().__call__(model, rewrites, after=after)

    shares = []
    how = EvaluationOptions(protocol=protocol, n_tokens=0)
    evaluate(
        tiny("llama"), Prepared(), cases, how, progress=lambda what, share: shares.append(share)
    )
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] <= 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_result(tiny, cases, tmp_path, protocol):
    model = tiny("llama")
    how = EvaluationOptions(protocol=protocol, held_out_texts=TEXTS, n_tokens=2)
    moments = []
    whole = evaluate(
        model, Editing(), cases, how, progress=lambda what, share: moments.append(share)
    )
    assert len(moments) >= (2 if protocol == "batch" else 5)
    for last in sorted({*range(0, len(moments), 3), len(moments) - 1}):
        told = iter(range(len(moments)))

        def stop(what, share, told=told, last=last):
            if next(told) == last:
                raise Killed

        folder = tmp_path / f"{protocol}-{last}"
        first, second = Editing(), Editing()
        with pytest.raises(Killed):
            run = RunDirectory.create(folder, {}, model)
            evaluate(model, first, cases, how, run=run, progress=stop)
        run = RunDirectory.create(folder, {}, model, resume=True)
        found = evaluate(model, second, cases, how, run=run)
        assert without_seconds(found) == without_seconds(whole)
        n_calls = {"single": 5, "batch": 1, "sequential": 5}[protocol]
        assert len(first.asked) + len(second.asked) == n_calls, "no edit is made twice"


def test_a_finished_run_is_read_from_its_folder(tiny, cases, tmp_path):
    model = tiny("llama")
    run = RunDirectory.create(tmp_path / "run", {}, model)
    how = EvaluationOptions(protocol="sequential", held_out_texts=TEXTS, n_tokens=0)
    found, again = (evaluate(model, Editing(), cases, how, run=run) for _ in range(2))
    assert dumps(found.metrics()) == dumps(again.metrics()), "to the second"
    copy = Evaluation.load(found.save(tmp_path / "evaluation"))
    assert dumps(copy.metrics()) == dumps(found.metrics())


# --- the curve ----------------------------------------------------------------------------


def test_a_curve_is_read_at_round_numbers_of_edits():
    assert checkpoints(1) == [1]
    assert checkpoints(5) == [1, 2, 5]
    assert checkpoints(120) == [1, 2, 5, 10, 20, 50, 100, 120]
    with pytest.raises(InputError):
        checkpoints(0)


def test_a_point_says_what_is_left_of_the_edits_so_far(model, cases):
    found = evaluate(
        model,
        Editing(),
        cases,
        EvaluationOptions(protocol="sequential", held_out_texts=TEXTS, n_tokens=0),
    )
    assert [p["edits"] for p in found.collapse.points] == [1, 2, 5]
    last = found.collapse.points[-1]
    assert last["success"] == [r["after"]["success"]["efficacy"] for r in found.records]
    assert last["accuracy"] == [r["after"]["accuracy"]["efficacy"] for r in found.records]
    ((name, ratio),) = last["norms"].items()
    total = sum(Editing()(model, [case.rewrite]).changes[name].dense().double() for case in cases)
    weight = dict(model.hf.named_parameters())[name].double()
    assert ratio == pytest.approx((total.norm() / weight.norm()).item(), rel=1e-5)
    assert growth(model, None) == {}


def curve(success, norms, nll):
    """A curve with these readings at 1, 2, 5... edits."""
    points = tuple(
        {
            "edits": edits,
            "success": [1] * int(share * 10) + [0] * (10 - int(share * 10)),
            "accuracy": [1] * 10,
            "nll": [1.0 + more, 2.0 + more],
            "kl": [0.1, 0.2],
            "norms": {"w": norm},
        }
        for edits, share, norm, more in zip((1, 2, 5, 10), success, norms, nll, strict=True)
    )
    return CollapseCurve(
        points=points,
        nll_before=(1.0, 2.0),
        thresholds=Thresholds(norm_growth=0.2, perplexity=1.1, success=0.9),
        method="Editing",
        model="random",
    )


def test_a_sign_is_early_if_it_was_seen_at_fewer_edits():
    found = curve((1.0, 1.0, 1.0, 0.5), (0.1, 0.1, 0.2, 0.3), (0.0, 0.0, 0.05, 0.2)).warnings()
    norm, text = found.to_dict(orient="records")
    assert (norm["crossed_at"], norm["fell_at"], norm["early"]) == (5, 10, True)
    assert (text["crossed_at"], text["fell_at"], text["early"]) == (10, 10, False)
    calm = curve((1.0,) * 4, (0.1, 0.1, 0.2, 0.2), (0.0,) * 4).warnings()
    assert calm["fell_at"].tolist() == calm["early"].tolist() == [None, None]
    assert calm["crossed_at"].tolist() == [5, None]


def test_a_curve_shows_and_saves_its_numbers(tmp_path):
    found = curve((1.0, 1.0, 1.0, 0.5), (0.1, 0.1, 0.2, 0.3), (0.0, 0.0, 0.05, 0.2))
    frame = found.to_frame()
    last = frame[frame["edits"] == 10].set_index("quantity")
    assert last.loc["success", "mean"] == 0.5 and last.loc["success", "n"] == 10
    assert last.loc["perplexity", "mean"] == pytest.approx(2.718281828**0.2)
    assert CollapseCurve.load(found.save(tmp_path / "curve")).to_frame().equals(frame)
    drawn = {trace.name: list(trace.y) for trace in found.figure().data if trace.name}
    assert drawn["norm growth"] == [0.1, 0.1, 0.2, 0.3]


# --- what cannot be made --------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["batch", "sequential"])
def test_what_cannot_be_edited_is_left_out_and_the_others_are_made(tiny, cases, protocol, tmp_path):
    model, method = tiny("llama"), Editing(refuses=["hen"])
    chunk = 5 if protocol == "sequential" else 1
    how = EvaluationOptions(protocol=protocol, chunk=chunk, held_out_texts=TEXTS, n_tokens=0)
    run = RunDirectory.create(tmp_path / "run", {}, model)
    found = evaluate(model, method, cases, how, run=run)
    assert list(found.failures) == ["hen"] and "AlreadyTrue" in found.failures["hen"]
    assert [subjects for subjects, *_ in method.asked][-1] == ["cat", "dog", "ship", "king"]
    others = [case for case in cases if case.case_id != "hen"]
    alone = evaluate(model, Editing(), others, how)
    assert [r["after"] for r in found.records if r["case_id"] != "hen"] == [
        record["after"] for record in alone.records
    ]
    (tmp_path / "run" / "cases.jsonl").unlink()  # killed while it read
    n_calls = len(method.asked)
    run = RunDirectory.create(tmp_path / "run", {}, model, resume=True)
    assert without_seconds(evaluate(model, method, cases, how, run=run)) == without_seconds(found)
    assert len(method.asked) == n_calls


def test_a_batch_of_which_nothing_is_left_is_refused(tiny, cases):
    method = Editing(refuses=[case.rewrite.subject for case in cases])
    with pytest.raises(AlreadyTrue):
        evaluate(
            tiny("llama"),
            method,
            cases,
            EvaluationOptions(protocol="batch", held_out_texts=TEXTS, n_tokens=0),
        )
