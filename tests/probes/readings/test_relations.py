"""Operators: exact derivatives, a planted linear relation recovered, honest controls."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from labkit import plots
from labkit import pocket as world
from labkit.errors import EmptyTarget, FingerprintMismatch, InputError, LayerOutOfRange
from labkit.facts.fact import Fact
from labkit.running.scoring import logits_of
from probes.relations import relation_scores
from probes.relations.linear import BETAS, LinearRelation
from probes.relations.relation_operator import LinearOperator, pseudo_inverse
from probes.relations.relation_result import OPERATOR, OTHER, RelationScores
from probes.relations.relation_scores import ScoreRelations, regression
from probes.relations.relation_states import SubjectRun, demonstrations
from tests.reference import full_run, output_hook

FACT = Fact(subject="the inner house", template="of {} is in a", object="the", relation="r")
CONTEXT = "of the is in a of\n"
QUICK = LinearRelation(n_examples=4, n_selection=3)


def position(model):
    return model.span(CONTEXT + FACT.prompt, FACT.subject, at=len(CONTEXT) + 3).last


@torch.no_grad()
def test_states_and_outputs_are_those_of_the_full_run(exact):
    batch = exact.tokens([CONTEXT + FACT.prompt])
    run = SubjectRun.open(exact, FACT, CONTEXT)
    hidden = full_run(exact, batch, output_hidden_states=True)
    for depth in range(exact.n_layers):
        wanted = hidden.hidden_states[depth][0, position(exact)]
        torch.testing.assert_close(run.states[depth], wanted, rtol=0, atol=1e-9)
    logits = logits_of(exact, run.output[None])[0]
    torch.testing.assert_close(logits, hidden.logits[0, -1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_replaced_state_does_what_a_hand_written_hook_does(exact):
    batch, place = exact.tokens([CONTEXT + FACT.prompt]), position(exact)
    run = SubjectRun.open(exact, FACT, CONTEXT)
    new = run.states[2] + torch.randn(2, exact.d_model, dtype=torch.float64)
    found = logits_of(exact, run.outputs_from(2, new))
    for row in range(2):

        def put(out, row=row):
            out = out.clone()
            out[0, place] = new[row]
            return out

        with output_hook(exact.blocks[1], put):
            wanted = full_run(exact, batch).logits[0, -1]
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-5)


def test_jacobians_are_finite_differences_at_every_depth(exact, family):
    # Root-mean-square norms are computed in float32 whatever the model's dtype.
    step, tolerance = (1e-6, 1e-6) if family.startswith("gpt") else (1e-3, 1e-3)
    run = SubjectRun.open(exact, FACT, CONTEXT)
    jacobians = run.jacobians()
    direction = torch.randn(exact.d_model, dtype=torch.float64)
    for depth in range(exact.n_layers + 1):
        both = run.states[depth] + step * torch.stack([direction, -direction])
        up, down = run.outputs_from(depth, both)
        wanted = (up - down) / (2 * step)
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(
            jacobians[depth] @ direction, wanted, rtol=0, atol=tolerance * scale
        )
    assert jacobians[0].abs().max() > 0 and not jacobians[-1].any()


def test_a_subject_at_the_very_end_is_its_own_output(exact):
    fact = Fact(subject="a man", template="the thing of {}", object="is")
    run = SubjectRun.open(exact, fact)
    assert torch.equal(run.jacobians()[-1], torch.eye(exact.d_model, dtype=torch.float64))


class Planted:
    """Subjects whose outputs are an affine map of their states, in place of a model's prompt."""

    def __init__(self, model, d=32, n=40, seed=0):
        draw = torch.Generator().manual_seed(seed)
        self.model, self.d = model, d
        # Along d orthonormal directions: the map turns subjects' codes into outputs'.
        self.map = torch.linalg.qr(torch.randn(d, d, generator=draw))[0] * 0.4
        self.shift = torch.randn(d, generator=draw)
        self.codes = torch.randn(n, d, generator=draw)
        self.facts = [
            Fact(subject=f"s{i}", template="{} is", object=f"o{i}", relation="planted")
            for i in range(n)
        ]

    def open(self, model, fact, context=""):
        code = self.codes[int(fact.subject[1:])]
        made = self

        class Run(SubjectRun):
            states = code.repeat(model.n_layers, 1)
            output = made.map @ code + made.shift

            def jacobians(self):
                return made.map.repeat(model.n_layers, 1, 1)

            def outputs_from(self, depth, states):
                return states @ made.map.T + made.shift

        return object.__new__(Run)


@pytest.fixture
def planted(tiny, monkeypatch):
    made = Planted(tiny("llama"))
    monkeypatch.setattr("probes.relations.linear.SubjectRun", made)
    monkeypatch.setattr("probes.relations.relation_scores.SubjectRun", made)
    return made


def test_an_exactly_linear_relation_is_recovered(planted):
    method = LinearRelation(n_examples=5, n_selection=8, depth=1, beta=1.0)
    found = method(planted.model, planted.facts)
    torch.testing.assert_close(found.weight, planted.map)
    torch.testing.assert_close(found.bias, planted.shift, rtol=0, atol=1e-5)
    outputs = planted.codes @ planted.map.T + planted.shift
    torch.testing.assert_close(found(planted.codes), outputs, rtol=0, atol=1e-5)
    assert found.to_frame()["faithful"].tolist() == [1.0]


def test_the_choice_is_the_most_faithful_then_the_most_probable(planted):
    found = LinearRelation(n_examples=5, n_selection=8)(planted.model, planted.facts)
    table = found.to_frame()
    best = table[table["faithful"] == table["faithful"].max()]
    chosen = best.loc[best["log_prob"].idxmax()]
    assert (found.depth, found.beta) == (chosen["depth"], chosen["beta"])
    assert len(table) == planted.model.n_layers * len(BETAS)


def test_an_edit_of_a_linear_relation_reaches_the_other_output(planted):
    found = LinearRelation(n_examples=5, n_selection=8, depth=1)(planted.model, planted.facts)
    ranks = found.selection_of_rank.set_index("rank")
    assert ranks.loc[32, "causal"] == 1.0 > ranks.loc[2, "causal"]
    found = replace(found, rank=32)
    change = torch.randn(3, 32)
    torch.testing.assert_close(found.edit(change) @ found.weight.T, change, rtol=1e-4, atol=1e-4)


def test_the_pseudo_inverse_of_full_rank_is_the_inverse_and_a_smaller_one_projects():
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pseudo_inverse(weight, 6), weight.inverse(), rtol=1e-3, atol=1e-3)
    two = pseudo_inverse(weight, 2)
    assert int(torch.linalg.matrix_rank(two)) == 2
    torch.testing.assert_close(two, torch.linalg.pinv(_cut(weight, 2)), rtol=1e-3, atol=1e-3)


def _cut(weight, rank):
    u, s, vh = torch.linalg.svd(weight)
    return u[:, :rank] @ s[:rank].diag() @ vh[:rank]


def test_regression_goes_through_its_examples():
    draw = torch.Generator().manual_seed(1)
    states, outputs = torch.randn(5, 9, generator=draw), torch.randn(5, 4, generator=draw)
    torch.testing.assert_close(regression(states, outputs, states), outputs, rtol=0, atol=1e-4)
    far = states.mean(0) + torch.linalg.qr((states - states.mean(0)).T, mode="complete")[0][:, -1]
    torch.testing.assert_close(
        regression(states, outputs, far[None])[0], outputs.mean(0), rtol=0, atol=1e-4
    )


@pytest.fixture(scope="module")
def facts():
    return [f for f in world.facts() if f.relation in ("person_profession", "person_instrument")]


@pytest.fixture(scope="module")
def scores(pocket, facts):
    return ScoreRelations(method=LinearRelation(n_examples=5, n_selection=4), limit=12)(
        pocket, facts
    )


def test_an_operator_is_the_mean_expansion_of_its_examples(pocket, facts):
    some = [fact for fact in facts if fact.relation == "person_profession"]
    method = LinearRelation(n_examples=3, n_selection=2, depth=4, beta=1.0, rank=8)
    train, further = method.drawn(some)
    found = method(pocket, some)
    weights, biases = [], []
    for fact in train:
        run = SubjectRun.open(pocket, fact, demonstrations([f for f in train if f is not fact]))
        weights.append(run.jacobians()[4])
        biases.append(run.output - weights[-1] @ run.states[4])
    torch.testing.assert_close(found.weight, torch.stack(weights).mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.bias, torch.stack(biases).mean(0), rtol=1e-3, atol=1e-3)
    assert (found.depth, found.beta, found.rank) == (4, 1.0, 8)
    assert found.subjects == tuple(f.subject for f in train)
    assert found.context == demonstrations(train)
    assert not set(found.subjects) & set(found.chosen_on) and len(found.chosen_on) == 2
    assert len(further) == 2


def test_on_pocket_operators_beat_every_baseline_on_subjects_they_never_saw(scores, pocket):
    assert scores.score("faithfulness").low > 0.5
    for baseline in ("logit lens", "translation", "mean output", OTHER):
        assert scores.score("faithfulness", baseline).high < scores.score("faithfulness").low
        gain, p = scores.gain("faithfulness", baseline)
        assert gain.low > 0 and p < 0.01
    assert scores.score("causality").low > scores.score("causality", "random move").high
    assert scores.operators["known"].max() <= 12


def test_subjects_of_an_operator_are_never_scored(pocket, facts):
    some = [fact for fact in facts if fact.relation == "person_profession"][:30]
    operator = QUICK(pocket, some)
    asked, rows = ScoreRelations(method=QUICK, limit=1000).test(pocket, operator, some)
    scored = {row["subject"] for row in rows}
    assert scored and not scored & {*operator.subjects, *operator.chosen_on}
    assert asked == len({f.subject for f in some}) - 7
    assert {row["method"] for row in rows} >= {OPERATOR, "mean output"}
    assert OTHER not in {row["method"] for row in rows}


def test_what_the_model_does_not_answer_does_not_count(pocket, facts):
    some = [fact for fact in facts if fact.relation == "person_profession"]
    operator = QUICK(pocket, some)
    objects = sorted({fact.object for fact in some})
    wrong = [
        replace(fact, object=next(o for o in objects if o != fact.object))
        for fact in some
        if fact.subject not in operator.chosen_on
    ]
    asked, rows = ScoreRelations(method=QUICK, limit=6).test(pocket, operator, wrong)
    assert asked == 6 and rows == []


def test_the_placebo_is_as_long_as_the_move(pocket, facts, monkeypatch):
    some = [fact for fact in facts if fact.relation == "person_profession"]
    operator = replace(QUICK(pocket, some), depth=3)
    moved = []
    real = SubjectRun.outputs_from

    def spy(self, depth, states):
        moved.append((states - self.states[depth]).norm(dim=-1))
        return real(self, depth, states)

    monkeypatch.setattr(relation_scores.SubjectRun, "outputs_from", spy)
    ScoreRelations(method=QUICK, limit=4).test(pocket, operator, some, other=operator)
    for own, placebo, _state, other in moved:
        assert float(placebo) == pytest.approx(float(own), rel=1e-3)
        assert float(other) == pytest.approx(float(own), rel=1e-3)


def test_scores_are_shares_with_intervals_saved_and_drawn(scores, tmp_path):
    table = scores.to_frame().set_index(["relation", "measure", "method"])
    own = scores.cases.query("measure == 'faithfulness' and method == @OPERATOR")
    assert table.loc[("all", "faithfulness", OPERATOR), "mean"] == own["success"].mean()
    assert table.loc[("all", "faithfulness", OPERATOR), "n"] == len(own)
    loaded = RelationScores.load(scores.save(tmp_path / "scores"))
    assert loaded.to_frame().equals(scores.to_frame())
    lines = {data.name: data for data in scores.figure().data}
    assert lines[OPERATOR].x[0] == pytest.approx(own["success"].mean())
    assert {data.name for data in scores.figure_causality().data} >= {"random move", OTHER}
    with pytest.raises(InputError, match="no beauty"):
        scores.score("beauty")


def test_an_operator_is_saved_drawn_and_bound_to_its_model(pocket, tiny, facts, tmp_path):
    operator = QUICK(pocket, [f for f in facts if f.relation == "person_profession"])
    loaded = LinearOperator.load(operator.save(tmp_path / "operator"))
    assert torch.equal(loaded.weight, operator.weight) and loaded.title == operator.title
    heatmap, chosen = operator.figure().data
    assert heatmap.z.shape == (8, pocket.n_layers) and chosen.x == (operator.depth,)
    with pytest.raises(FingerprintMismatch):
        ScoreRelations().test(tiny("llama"), operator, facts)


def test_every_family_has_operators(model):
    words = "the house of man is sea hill dog cat sun moon tree".split()
    facts = [
        Fact(subject=word, template="so {} is the", object=words[i - 1], relation="r")
        for i, word in enumerate(words)
    ]
    found = LinearRelation(n_examples=2, n_selection=2)(model, facts)
    assert found.weight.isfinite().all() and np.isfinite(found.selection["log_prob"]).all()


def test_bad_input_is_refused_before_any_work(pocket, facts):
    some = [fact for fact in facts if fact.relation == "person_profession"]
    with pytest.raises(InputError, match="3 subjects"):
        QUICK(pocket, [*some[:3], some[0]])
    with pytest.raises(InputError, match="several"):
        QUICK(pocket, facts)
    with pytest.raises(InputError, match="one object"):
        QUICK(pocket, [replace(fact, object="baker") for fact in some])
    with pytest.raises(EmptyTarget):
        QUICK(pocket, [replace(some[0], object=None), *some])
    with pytest.raises(LayerOutOfRange):
        replace(QUICK, depth=6)(pocket, some)
    with pytest.raises(InputError, match="rank 999"):
        replace(QUICK, rank=999)(pocket, some)
    for wrong in ({"n_examples": 1}, {"beta": 0.0}, {"rank": 0}):
        with pytest.raises(InputError):
            LinearRelation(**wrong)
    with pytest.raises(InputError, match="none of 2 relations"):
        ScoreRelations(method=LinearRelation(n_examples=500))(pocket, facts)
    with pytest.raises(InputError, match="no rows"):
        plots.operator_selection(
            pd.DataFrame(columns=["depth", "beta", "faithful", "log_prob"]), depth=0, beta=1.0
        )
