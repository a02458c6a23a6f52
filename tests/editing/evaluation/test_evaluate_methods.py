"""Methods side by side: a table of what each evaluation says; tests paired and corrected."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from editing.edits.delta import LowRank, WeightDelta
from editing.evaluation.many_cases import evaluate
from editing.evaluation.method_comparison import UNEDITED, MethodComparison
from editing.evaluation.options import EvaluationOptions
from editing.evaluation.pairs import paired_tests
from editing.evaluation.several_methods import compare_methods
from editing.readings.asking import read
from editing.readings.portability_result import portability
from editing.readings.side_effects import SideEffects
from labkit.errors import InputError, NonFiniteLoss, OutputError
from labkit.facts.fact import Rewrite
from labkit.facts.worlds import chains_of
from labkit.pocket import demo_case
from labkit.results.encoding import dumps
from labkit.stats import holm, paired_difference

TEXTS = ("the cat is in the house of the king", "in the sea")
FEW = SideEffects(n_facts=0, n_pairs=0, n_openings=1, n_tokens=2)


@dataclasses.dataclass(frozen=True)
class Noise:
    """An editor whose change is drawn, and as large as `scale`; it may fail on a subject."""

    scale: float = 0.3
    fails: str | None = None

    def __call__(self, model, rewrites, *, after=None):
        subject = "".join(rewrite.subject for rewrite in rewrites)
        if self.fails is not None and self.fails in subject:
            raise NonFiniteLoss("the loss is nan")
        rows, columns = model.ffn_proj(1).weight.shape
        draw = torch.Generator().manual_seed(sum(map(ord, subject)))
        left, right = torch.randn(rows, 1, generator=draw), torch.randn(1, columns, generator=draw)
        return WeightDelta(
            {model.ffn_out_name(1): LowRank(self.scale * left, right)}, model.fingerprint
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """Text in front of every prompt."""

    base: str
    front: str = "One finds "
    provenance: dict = dataclasses.field(default_factory=dict)

    def prompt(self, prompt):
        return self.front + prompt

    def then(self, other):
        return dataclasses.replace(self, front=self.front + other.front)


@dataclasses.dataclass(frozen=True)
class Saying:
    """An editor of prompts; it puts its words, or the new fact, in front."""

    front: str | None = "One finds "

    def __call__(self, model, rewrites, *, after=None):
        fact = f"{rewrites[0].prompt} {rewrites[0].target_new}. "
        return Said(base=model.fingerprint, front=self.front or fact)


@pytest.fixture
def cases(case):
    """Four cases about four subjects."""

    def about(subject):
        rewrite = Rewrite(
            subject=subject, template="the {} is in", target_new="Rome", target_true="the house"
        )
        return dataclasses.replace(case, case_id=subject, rewrite=rewrite)

    return [about(subject) for subject in ("cat", "dog", "hen", "ship")]


def compare(model, methods, cases, *, out=None, progress=None, **how):
    options = EvaluationOptions(**{"held_out_texts": TEXTS, "n_tokens": 0} | how)
    return compare_methods(model, methods, cases, options, out=out, progress=progress)


# --- the table ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["single", "sequential"])
def test_the_table_says_what_each_evaluation_says(tiny, cases, protocol):
    model = tiny("llama")
    methods = {"small": Noise(0.01), "large": Noise(1.0), "said": Saying()}
    found = compare(model, methods, cases, protocol=protocol)
    assert found.methods == list(methods)
    for name, method in methods.items():
        alone = evaluate(
            model,
            method,
            cases,
            EvaluationOptions(protocol=protocol, held_out_texts=TEXTS, n_tokens=0),
        )
        for reading, metric, states in alone.estimates():
            shown = "argmax accuracy" if reading == "accuracy" else reading
            assert found.estimate(name, shown, metric) == states["edited"]
            assert found.estimate(UNEDITED, shown, metric) == states["unedited"]
        assert found.estimate(name, "text", "perplexity") == alone.perplexity("after")
        assert found.estimate(name, "text", "KL, nats per token") == alone.kl
    assert found.estimate("small", "text", "KL, nats per token").mean < (
        found.estimate("large", "text", "KL, nats per token").mean
    )
    assert {name: curve.method for name, curve in found.collapse.items()} == (
        {name: name for name in methods} if protocol != "single" else {}
    )
    assert found.estimate("small", "no such reading", "efficacy") is None
    wide = found.wide()
    assert list(wide.columns) == [UNEDITED, *methods] and "score" in wide.loc["success"].index
    expected = found.estimate("large", "text", "perplexity")
    assert wide.loc[("text", "perplexity"), "large"] == expected
    for name, line in zip(methods, found.verdict, strict=True):
        took = found.estimate(name, "argmax accuracy", "efficacy").mean
        assert line.startswith(f"{name}: the edited prompt says the new object in {took:.0%}")
    assert found.table["unit"].str.len().min() > 0


def test_a_text_edit_is_read_as_its_prompts_are(tiny, cases):
    """One edit of prompts: the edited model is the unedited one, asked in other words."""
    model = tiny("llama")
    found = evaluate(
        model, Saying(), cases[:1], EvaluationOptions(held_out_texts=TEXTS, n_tokens=2)
    )
    (record,) = found.records
    (expected,) = read(model, cases[:1], n_tokens=2, wording=lambda prompt: f"One finds {prompt}")
    assert record["after"] | {"drift": None} == expected | {"drift": None} != record["before"]
    assert record["kl"] > 0 and record["nll_after"] != found.nll_before.mean()
    assert record["after"]["drift"]["essence"] > 0
    together = evaluate(
        model, Saying(), cases, EvaluationOptions(protocol="sequential", held_out_texts=TEXTS)
    )
    assert together.collapse.points[-1]["norms"] == {}
    assert "norm growth" not in set(together.collapse.to_frame()["quantity"])


def test_side_effects_are_of_the_final_state_or_of_every_edit(tiny, cases):
    model = tiny("llama")
    noise = {"noise": Noise(), "nothing": Noise(0.0)}
    for protocol in ("single", "batch"):
        found = compare(model, noise, cases, protocol=protocol, side_effects=FEW)
        kl = {name: found.estimate(name, "side effects", "kl") for name in (*noise, UNEDITED)}
        assert kl["noise"].mean > 0
        assert kl["nothing"].mean == kl[UNEDITED].mean == 0
        assert not kl["nothing"].has_interval and not kl[UNEDITED].has_interval
        assert kl["noise"].n == (len(cases) if protocol == "single" else len(TEXTS))


@pytest.mark.parametrize("method", [Noise(), Saying(front=None)])
@pytest.mark.parametrize("protocol", ["single", "sequential"])
def test_what_follows_is_asked_before_after_and_of_the_truth(pocket, protocol, method):
    """As `editing.readings.consequences` asks it by itself, with the same edit in effect."""
    case, chains = demo_case(), chains_of(pocket)
    found = evaluate(
        pocket,
        method,
        [case],
        EvaluationOptions(protocol=protocol, chains=chains, n_tokens=2, held_out_texts=TEXTS),
    )
    edit = method(pocket, [case.rewrite])
    alone = portability(pocket, edit, [case.rewrite], chains=chains, n_tokens=2)
    (ours,), (theirs,) = found.portability.cases, alone.cases
    assert ours.after != ours.before != ours.control
    assert dataclasses.replace(ours, case_id="") == dataclasses.replace(theirs, case_id="")
    table = compare(pocket, {"noise": method}, [case], protocol=protocol, chains=chains)
    metric = found.portability.metrics[0]
    for method, state, named in (
        ("noise", "after", metric),
        (UNEDITED, "before", metric),
        (UNEDITED, "control", f"{metric}, of the truth"),
    ):
        expected = alone.estimate(state, "success", metric)
        assert table.estimate(method, "success", named) == expected
    assert metric in set(table.tests["metric"])


def test_a_comparison_comes_back_as_it_was_saved(tiny, cases, tmp_path):
    found = compare(tiny("llama"), {"a": Noise(), "b": Noise(0.1)}, cases, protocol="batch")
    again = MethodComparison.load(found.save(tmp_path / "comparison"))
    assert dumps(again.metrics()) == dumps(found.metrics())  # NaN equals itself there
    assert again.table.equals(found.table) and again.title == found.title
    named = {trace.name for trace in found.figure().data}
    assert named == {"a", "b"}
    shown = [x for trace in found.metrics_figure().data for x in trace.x]
    assert len(shown) == len(
        found.table[found.table["reading"].isin(("success", "argmax accuracy"))]
    )
    assert "a, b" in found._repr_html_()


# --- failures -----------------------------------------------------------------------------


def test_a_method_that_fails_altogether_does_not_stop_the_others(tiny, cases):
    model = tiny("llama")
    methods = {"fails": Noise(fails="dog"), "works": Noise()}
    found = compare(model, methods, cases, protocol="batch")
    assert found.methods == ["works"] and "nan" in found.failed["fails"]["*"]
    alone = compare(model, methods, cases)
    assert alone.methods == list(methods)
    assert list(alone.failed) == ["fails"] and list(alone.failed["fails"]) == ["dog"]
    with pytest.raises(NonFiniteLoss):
        compare(model, {"fails": Noise(fails="dog")}, cases, protocol="batch")


@pytest.mark.parametrize("name", ["", "unedited", "a/b", ".."])
def test_a_name_is_a_row_and_a_folder(tiny, cases, name):
    with pytest.raises(InputError, match="name"):
        compare(tiny("llama"), {name: Noise()}, cases)


# --- killed, and resumed ------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("protocol", "shares"), [("single", (0, 0.5, 1)), ("batch", (0.5,)), ("sequential", (0.8,))]
)
def test_a_killed_comparison_goes_on_to_the_same_table(tiny, cases, tmp_path, protocol, shares):
    model, methods = tiny("gpt2"), {"a": Noise(), "b": Noise(0.1)}
    common = {"protocol": protocol, "n_tokens": 2, "side_effects": FEW}
    whole = compare(model, methods, cases, **common)
    moments = []
    compare(model, methods, cases, progress=lambda *told: moments.append(told), **common)
    for share in shares:
        last = max(1, round(share * (len(moments) - 1)))
        count = itertools.count()

        def stop(what, share, count=count, last=last):
            if next(count) == last:
                raise Killed

        out = tmp_path / str(last)
        with pytest.raises(Killed):
            compare(model, methods, cases, out=out, progress=stop, **common)
        found = compare(model, methods, cases, out=out, **common)
        for ours, theirs in ((found.table, whole.table), (found.tests, whole.tests)):
            kept = [frame[frame.get("reading") != "cost"] for frame in (ours, theirs)]
            pd.testing.assert_frame_equal(*kept, check_exact=True)
    left = pd.read_csv(out / "table.csv")
    assert left["mean"].tolist() == pytest.approx(found.table["mean"].tolist())
    assert json.loads((out / "metrics.json").read_text())["n"] == len(cases)
    assert "<table" in (out / "report.html").read_text()


def test_another_comparison_is_refused_the_folder(tiny, cases, tmp_path):
    model = tiny("llama")
    compare(model, {"a": Noise()}, cases, out=tmp_path / "run")
    for methods, more in (
        ({"a": Noise(0.1)}, {}),
        ({"b": Noise()}, {}),
        ({"a": Noise()}, {"n_tokens": 1}),
        ({"a": Noise()}, {"protocol": "batch"}),
        ({"a": Noise()}, {"seed": 1}),
        ({"a": Noise()}, {"held_out_texts": TEXTS[:1]}),
        ({"a": Noise()}, {"side_effects": FEW}),
    ):
        with pytest.raises(OutputError, match="another config"):
            compare(model, methods, cases, out=tmp_path / "run", **more)
    changed = [dataclasses.replace(cases[0], paraphrases=()), *cases[1:]]
    with pytest.raises(OutputError, match="cases_digest"):
        compare(model, {"a": Noise()}, changed, out=tmp_path / "run")


def test_two_evaluations_have_different_records_and_equal_ones_the_same(pocket, case, corpus):
    chains = chains_of(pocket)
    fewer = dataclasses.replace(chains, facts=chains.facts[1:])
    others = (
        {"protocol": "batch"},
        {"protocol": "sequential"},
        {"protocol": "sequential", "chunk": 2},
        {"seed": 1},
        {"n_tokens": 0},
        {"held_out_texts": TEXTS},
        {"side_effects": FEW},
        {"side_effects": dataclasses.replace(FEW, n_tokens=3)},
        {"chains": chains},
        {"chains": fewer},
        {"corpus": corpus},
        {"corpus": dataclasses.replace(corpus, documents=corpus.documents[1:])},
    )
    named = {field for other in others for field in other}
    assert named == {field.name for field in dataclasses.fields(EvaluationOptions)}
    records = [dumps(EvaluationOptions(**how).record(pocket, [case])) for how in ({}, *others)]
    assert len(set(records)) == len(records)
    own = EvaluationOptions(held_out_texts=EvaluationOptions().texts(pocket))
    assert dumps(own.record(pocket, [case])) == records[0], "the default, written out"
    assert dumps(EvaluationOptions(chains=chains_of(pocket)).record(pocket, [case])) in records
    changed = dataclasses.replace(case, paraphrases=())
    assert dumps(EvaluationOptions().record(pocket, [changed])) != records[0]


# --- tests between methods ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_holm_rejects_what_the_step_down_procedure_rejects(seed):
    draw = np.random.default_rng(seed)
    p = np.round(draw.uniform(0, 0.2, size=int(draw.integers(1, 9))), 2).tolist()
    corrected = holm(p)
    for alpha in (0.01, 0.05, 0.1, 0.2, 0.5, 0.99):
        rejected, rest = set(), sorted(range(len(p)), key=lambda i: p[i])
        for place, number in enumerate(rest):
            if p[number] > alpha / (len(p) - place) + 1e-12:
                break
            rejected.add(number)
        assert {i for i, value in enumerate(corrected) if value <= alpha + 1e-12} == rejected
    assert all(c >= raw for c, raw in zip(corrected, p, strict=True))


def test_pairs_are_compared_on_the_cases_that_both_have():
    values = {
        "a": {"1": 1.0, "2": 0.5, "3": 0.0, "4": 1.0},
        "b": {"4": 0.0, "2": 0.0, "1": 0.5},
        "c": {"9": 1.0},
    }
    (row,) = paired_tests(values, seed=3).to_dict(orient="records")
    expected, p = paired_difference([1.0, 0.5, 1.0], [0.5, 0.0, 0.0], seed=3)
    assert (row["first"], row["second"], row["n"]) == ("a", "b", 3)
    assert (row["difference"], row["low"], row["high"]) == (
        expected.mean,
        expected.low,
        expected.high,
    )
    assert row["p"] == row["p_holm"] == p


def test_equal_methods_do_not_differ(tiny, cases):
    found = compare(tiny("llama"), {"a": Noise(), "same": Noise(), "other": Noise(1.0)}, cases)
    twins = found.tests[(found.tests["first"] == "a") & (found.tests["second"] == "same")]
    assert (twins["difference"] == 0).all() and (twins["p_holm"] == 1).all()
    drift = found.tests[(found.tests["reading"] == "drift") & (found.tests["first"] == UNEDITED)]
    assert (drift["difference"] < 0).all()
    assert set(found.tests["p_holm"] >= found.tests["p"]) == {True}
