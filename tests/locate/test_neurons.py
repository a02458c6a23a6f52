"""Knowledge neurons against hand-written hooks, sums that must come out, and a planted neuron."""

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from labkit import plots
from labkit import pocket as pocket_world
from labkit.errors import EmptyTarget, FingerprintMismatch, InputError, NothingToTrace
from labkit.facts.fact import Fact
from labkit.facts.known import known_facts
from labkit.locate import (
    KnowledgeNeurons,
    KnowledgeNeuronsResult,
    RandomNeurons,
    neuron_tests,
)
from labkit.locate.neurons.many_facts import NeuronTests
from labkit.locate.neurons.switching import NeuronTest, switch
from labkit.models.loading import wrap
from labkit.stats import average
from tests.reference import full_logits, inputs_of

FACT = Fact(
    subject="cat", template="the {} is in", object=" of", paraphrases=("in the house a {} is",)
)
POSITIONS = ("last", "subject", "all")


@contextmanager
def key_hook(model, layer, change):
    """A hand-written hook on the input of an FFN's output projection."""
    proj = model.ffn_proj(layer)
    handle = proj.register_forward_pre_hook(lambda _module, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


class ByHand:
    """P(answer) of one prompt with FFN activations changed, in a full run."""

    def __init__(self, model, fact, positions):
        self.model, self.batch = model, model.tokens([fact.prompt])
        (self.answer,) = model.tokenizer(" of", add_special_tokens=False).input_ids
        span = model.span(fact.prompt, fact.subject)
        self.read = {
            "last": [self.batch.shape[1] - 1],
            "subject": list(span),
            "all": list(range(self.batch.shape[1])),
        }[positions]
        with ExitStack() as stack:
            seen = [
                stack.enter_context(inputs_of(model.ffn_proj(layer)))
                for layer in range(model.n_layers)
            ]
            full_logits(model, self.batch)
        self.key = [inputs[0] for inputs in seen]

    def probability(self, changes):
        with ExitStack() as stack:
            for layer, change in changes.items():
                stack.enter_context(key_hook(self.model, layer, change))
            return float(full_logits(self.model, self.batch)[0, -1].softmax(-1)[self.answer])

    def at(self, layer, scale, nudge=None):
        """P with the read activations of a block scaled, and one neuron of them nudged."""

        def change(_key):
            key = self.key[layer].clone()
            key[:, self.read] *= scale
            if nudge is not None:
                pos, neuron, step = nudge
                key[:, pos, neuron] += step
            return key

        return self.probability({layer: change})

    def attribution(self, layer, neuron, scales, step=1e-2):
        slopes = [
            self.key[layer][0, pos, neuron].item()
            * (
                self.at(layer, scale, (pos, neuron, step))
                - self.at(layer, scale, (pos, neuron, -step))
            )
            / (2 * step)
            for scale in scales
            for pos in self.read
        ]
        return sum(slopes) / len(scales)


# --- attribution -----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_an_attribution_is_activation_times_slope_on_the_way_up_from_zero(exact, positions):
    fact = replace(FACT, paraphrases=())
    result = KnowledgeNeurons(positions=positions, steps=2, max_steps=2)(exact, fact)
    hand = ByHand(exact, fact, positions)
    assert result.clean[0] == pytest.approx(hand.probability({}), rel=1e-4)
    largest = float(np.abs(result.attributions).max())
    assert largest > 1e-7
    for layer in range(exact.n_layers):
        neuron = int(np.abs(result.attributions[0, layer]).argmax())
        expected = hand.attribution(layer, neuron, (0.25, 0.75))
        found = result.attributions[0, layer, neuron]
        assert found == pytest.approx(expected, rel=0.02, abs=1e-2 * largest)
        assert result.removed[0, layer] == pytest.approx(hand.at(layer, 0.0), rel=1e-3)


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_attributions_of_a_block_add_up_to_what_it_brings(model, positions):
    result = KnowledgeNeurons(positions=positions, steps=200)(model, FACT)
    brings = result.clean[:, None] - result.removed
    np.testing.assert_allclose(
        result.attributions.sum(-1), brings, atol=5e-3 * np.abs(brings).max()
    )
    assert np.abs(brings).max() > 1e-5
    np.testing.assert_allclose(result.profile, brings.mean(0), atol=5e-3 * np.abs(brings).max())
    few = KnowledgeNeurons(positions=positions, steps=1, max_steps=1)(model, FACT)
    assert np.abs(few.incompleteness).max() > 2 * np.abs(result.incompleteness).max()


@pytest.mark.parametrize("positions", POSITIONS)
def test_prompts_of_different_lengths_do_not_disturb_each_other(model, positions):
    method = KnowledgeNeurons(positions=positions, steps=3)
    both = method(model, FACT)
    assert both.prompts == ("the cat is in", "in the house a cat is")
    for row, template in enumerate((FACT.template, *FACT.paraphrases)):
        alone = method(model, replace(FACT, template=template, paraphrases=())).attributions[0]
        np.testing.assert_allclose(both.attributions[row], alone, atol=1e-3 * np.abs(alone).max())
    small = replace(method, memory=1)(model, FACT)
    np.testing.assert_allclose(
        small.attributions, both.attributions, atol=1e-3 * np.abs(both.attributions).max()
    )


def test_points_are_added_until_the_sums_are_complete(tiny):
    """And those that are added make the same integral as if all had been there at once."""
    model = tiny("gpt2")
    coarse = KnowledgeNeurons(steps=1, max_steps=1, tolerance=1e-4)(model, FACT)
    assert coarse.gap.max() > 1e-4
    fine = KnowledgeNeurons(steps=1, max_steps=729, tolerance=1e-4)(model, FACT)
    assert fine.gap.max() <= 1e-4 and fine.steps.max() > 1 and fine.warning is None
    row, layer = np.unravel_index(fine.steps.argmax(), fine.steps.shape)
    n = int(fine.steps[row, layer])
    at_once = KnowledgeNeurons(steps=n, max_steps=n)(model, FACT)
    found, expected = fine.attributions[row, layer], at_once.attributions[row, layer]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_what_has_not_converged_is_said(tiny, caplog):
    model = tiny("gpt2")
    result = KnowledgeNeurons(steps=1, max_steps=2, tolerance=1e-6)(model, FACT)
    worst = int(result.gap.max(axis=0).argmax())
    assert "not converged in layer" in result.warning and str(worst) in result.warning
    assert f"{result.gap.max():.0%}" in result.warning
    assert result.warning in caplog.text
    assert result.warning in result.figure().layout.title.subtitle.text.replace("<br>", " ")
    assert np.allclose(result.gap * np.abs(result.clean[:, None] - result.removed).max(
        axis=1, keepdims=True), np.abs(result.incompleteness))  # fmt: skip


def test_the_answer_is_the_models_own_where_none_is_given(tiny):
    model = tiny("gpt2")
    result = KnowledgeNeurons(steps=1)(model, replace(FACT, object=None))
    top = full_logits(model, model.tokens([FACT.prompt]))[0, -1].softmax(-1).max(0)
    assert set(result.answer_ids) == {int(top.indices)}
    assert result.clean[0] == pytest.approx(top.values.item(), rel=1e-4)


# --- refining --------------------------------------------------------------------------------


def result_of(attributions, **config):
    attributions = np.float32(attributions)
    n_prompts, n_layers, _ = attributions.shape
    return KnowledgeNeuronsResult(
        fact=FACT,
        prompts=tuple(f"prompt {row}" for row in range(n_prompts)),
        answers=(" of",) * n_prompts,
        answer_ids=(7,) * n_prompts,
        clean=np.full(n_prompts, 0.5, dtype=np.float32),
        removed=np.full((n_prompts, n_layers), 0.1, dtype=np.float32),
        attributions=attributions,
        steps=np.full((n_prompts, n_layers), 20),
        model="by hand",
        fingerprint="0" * 64,
        config={"threshold": 0.2, "shared": 0.7, "positions": "last", "tolerance": 1.0} | config,
    )


def test_a_neuron_has_to_reach_the_threshold_in_enough_prompts(tmp_path):
    grid = np.zeros((10, 2, 4))
    grid[:, 0, 1] = 1.0  # the largest of each prompt
    grid[:7, 1, 2] = 0.21  # above the threshold in 7 of 10
    grid[:6, 1, 3] = 0.5  # in 6 of 10
    grid[:, 1, 0] = 0.19  # below it everywhere
    grid[:, 0, 0] = -3.0  # works against the answer
    grid *= np.linspace(0.01, 0.1, 10)[:, None, None]  # prompts differ in how sure they are
    result = result_of(grid)
    assert result.neurons == ((0, 1), (1, 2))
    assert result_of(grid, shared=0.6).neurons == ((0, 1), (1, 3), (1, 2))
    assert result_of(grid, threshold=0.18).neurons == ((0, 1), (1, 0), (1, 2))
    frame = result.to_frame()
    assert list(zip(frame.layer, frame.neuron, strict=True)) == [(0, 1), (1, 3), (1, 2)]
    assert frame.knowledge.tolist() == [True, False, True]
    assert frame.share.tolist() == pytest.approx([1, 0.6, 0.7])
    assert frame["mean"].tolist() == pytest.approx(grid.mean(0)[[0, 1, 1], [1, 3, 2]])
    assert (frame.low <= frame["mean"]).all() and (frame.high >= frame["mean"]).all()
    assert "2 of 8" in result.title and "10 prompts" in result.title
    again = KnowledgeNeuronsResult.load(result.save(tmp_path / "neurons"))
    assert again.neurons == result.neurons and again.fact == FACT
    assert result_of(-np.ones((2, 1, 3))).neurons == ()


# --- a planted neuron ------------------------------------------------------------------------


@pytest.mark.parametrize("planted_in", ["llama", "gpt2"])
def test_a_neuron_that_writes_the_answer_is_found_and_holds_it(tiny, planted_in):
    base = tiny(planted_in)
    layer, hf = 1, copy.deepcopy(base.hf)
    planted = wrap(hf, base.tokenizer, name="planted", check=False)
    (answer,) = base.tokenizer(" of", add_special_tokens=False).input_ids
    prompts = planted.tokens([FACT.prompt, FACT.paraphrases[0].format("cat")])
    with inputs_of(planted.ffn_proj(layer)) as seen:
        full_logits(planted, prompts)
    keys = seen[0][:, -1]
    neuron = int(keys.abs().min(dim=0).values.mul(keys[0] * keys[1] > 0).argmax())
    direction = planted.unembed.weight[answer] / planted.unembed.weight[answer].norm()
    with torch.no_grad():
        planted.ffn_out(layer)[neuron] = 20 * direction / keys[:, neuron].mean()
    planted = wrap(hf, base.tokenizer, name="planted", check=False)
    result = KnowledgeNeurons(steps=20)(planted, FACT)
    assert result.neurons == ((layer, neuron),)
    test = result.test(planted, [Fact(subject="dog", template="a {} on the", object=" is")])
    suppressed = test.change("this fact", "suppressed")
    assert suppressed.high < -0.5 < -0.3 < test.change("random neurons", "suppressed").low
    amplified = test.change("this fact", "amplified")
    assert amplified.mean > 0 and amplified.n == 2  # two prompts: no interval can exclude 0
    rows = test.cases[(test.cases["group"] == "this fact")]
    rows = rows[rows["intervention"] == "amplified"]
    assert len(rows) >= 2 and (rows["after"] > rows["before"]).all()


# --- switching -------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_switching_is_a_hand_written_hook(model, positions):
    fact, neurons = replace(FACT, paraphrases=()), [(1, 5), (2, 0), (1, 9)]
    other = Fact(subject="dog", template="a {} is", object=" of")
    three = RandomNeurons(draws=3)
    found = switch(model, neurons, fact, [other], positions=positions, random=three)
    for asked, group in ((fact, "this fact"), (other, "other facts")):
        hand = ByHand(model, asked, positions)
        for name, factor in (("suppressed", 0.0), ("amplified", 2.0)):

            def change(key, layer, hand=hand, factor=factor):
                key = key.clone()
                for at, neuron in neurons:
                    if at == layer:
                        key[:, hand.read, neuron] *= factor
                return key

            hooks = {at: lambda key, at=at: change(key, at) for at in (1, 2)}
            rows = found.cases[found.cases["group"] == group]
            row = rows[rows["intervention"] == name].iloc[0]
            assert row.after == pytest.approx(hand.probability(hooks), rel=1e-3)
            assert row.before == pytest.approx(hand.probability({}), rel=1e-3)
            assert abs(row.after / row.before - 1) > 1e-5
    random = found.cases.query("group == 'random neurons' and intervention == 'suppressed'")
    assert random.after.nunique() == 3 and random.draw.tolist() == [1, 2, 3]
    bound = RandomNeurons(draws=3, memory=1)
    small = switch(model, neurons, fact, [other], positions=positions, random=bound)
    np.testing.assert_allclose(small.cases.after, found.cases.after, rtol=1e-4)


def cases():
    rows = [
        ("this fact", 0, "suppressed", "a", 0.5, 0.25, True),
        ("this fact", 0, "suppressed", "b", 0.5, 0.1, False),
        ("random neurons", 1, "suppressed", "a", 0.5, 0.5, True),
        ("random neurons", 1, "suppressed", "b", 0.5, 0.4, True),
        ("random neurons", 2, "suppressed", "a", 0.5, 0.5, True),
        ("random neurons", 2, "suppressed", "b", 0.5, 0.5, False),
    ]
    rows += [(*row[:2], "amplified", row[3], 0.5, 0.75, True) for row in rows]
    columns = "group draw intervention prompt before after kept".split()
    return pd.DataFrame(rows, columns=columns).assign(answer=" of")


def test_changes_are_relative_with_prompts_and_draws_as_units(tmp_path):
    test = NeuronTest(
        subject="cat",
        neurons=((1, 2),),
        cases=cases(),
        model="by hand",
        fingerprint="0" * 64,
        seed=0,
    )
    change = test.change("this fact", "suppressed")
    assert (change.mean, change.n) == (pytest.approx(-0.65), 2)
    control = test.change("random neurons", "suppressed")
    assert (control.mean, control.n) == (pytest.approx(-0.05), 2)
    more = test.cases[test.cases["draw"] == 2].assign(draw=3)
    three = replace(test, cases=pd.concat([test.cases, more]))
    assert three.change("random neurons", "suppressed").n == 3
    assert three.kept("random neurons", "suppressed").n == 3
    assert test.change("random neurons", "amplified").mean == pytest.approx(0.5)
    assert test.kept("this fact", "suppressed").mean == 0.5
    with pytest.raises(InputError, match="other facts"):
        test.change("other facts", "suppressed")
    again = NeuronTest.load(test.save(tmp_path / "test"))
    pd.testing.assert_frame_equal(again.to_frame(), test.to_frame())
    assert "-65.0%" in again.title


# --- figures ---------------------------------------------------------------------------------


def test_every_neuron_is_a_dot_and_knowledge_neurons_stand_out():
    grid = np.zeros((10, 4, 5))
    grid[:, 3, 1], grid[:4, 0, 2] = 1.0, 0.9
    few, found = result_of(grid).figure().data
    assert (few.name, found.name) == ("in too few prompts", "knowledge neurons")
    assert (list(found.x), list(found.y)) == ([3], [1.0]) and found.customdata[0][0] == 1
    assert (list(few.x), list(few.y)) == ([0], [pytest.approx(0.36)])


def test_no_interval_of_relative_changes_goes_below_a_loss_of_everything():
    """Of facts that lose nearly all, one loses half: the interval ends where all is lost."""
    changes = [-0.99, -0.99, -0.98, -0.97, -0.5]
    table = pd.DataFrame({"n_neurons": 1, "this fact": changes})
    many = NeuronTests(
        model="by hand", fingerprint="0" * 64, table=table, unconverged=0, config={}, seed=0
    )
    change = many.change("this fact")
    assert change.mean == pytest.approx(sum(changes) / 5)
    assert -1 <= change.low < change.mean < change.high
    assert average(changes).low < -1  # without the bound it would


def test_the_bars_of_a_test_carry_change_and_interval():
    test = NeuronTest(
        subject="cat", neurons=((1, 2),), cases=cases(), model="m", fingerprint="0", seed=0
    )
    figure = test.figure()
    suppressed, amplified = figure.data
    frame = test.to_frame().query("intervention == 'suppressed'")
    assert list(suppressed.x) == ["this fact", "random neurons"]
    np.testing.assert_allclose(suppressed.y, frame["mean"])
    np.testing.assert_allclose(suppressed.y - suppressed.error_y.arrayminus, frame["low"])
    assert list(amplified.y) == pytest.approx([0.5, 0.5])
    with pytest.raises(InputError, match="kept"):
        plots.neuron_test_bars(frame.drop(columns="kept"))


def test_many_facts_are_each_found_and_tested_alone(pocket, pocket_facts):
    """One row per fact, equal to the test by hand; others are of the relation, not the object."""
    facts = pocket_facts[:2]
    method = KnowledgeNeurons(steps=4)
    two = RandomNeurons(draws=2)
    found = neuron_tests(pocket, facts, pocket_facts, method, n_others=3, random=two)
    for fact, row in zip(facts, found.table.to_dict("records"), strict=True):
        kin = [o for o in pocket_facts if o.relation == fact.relation and o.object != fact.object]
        alone = method(pocket, fact)
        test = alone.test(pocket, kin[:3], random=two)
        assert row["n_neurons"] == len(alone.neurons) and row["n_others"] == 3
        for group in ("this fact", "random neurons", "other facts"):
            assert row[group] == pytest.approx(test.change(group, "suppressed").mean)
    gap = found.table["other facts"] - found.table["this fact"]
    assert found.own.mean == pytest.approx(gap.mean()) and found.own.n == 2
    assert f"{found.table['other facts'].max():+.0%}" in found.title
    assert list(found.figure().data[1].x) == pytest.approx(list(found.table["this fact"]))
    with pytest.raises(InputError, match="no other fact"):
        neuron_tests(pocket, facts, facts[:1], method)


@pytest.fixture
def pocket_facts(pocket):
    facts = known_facts(pocket, pocket_world.facts()).facts
    relation = facts[0].relation
    return [fact for fact in facts if fact.relation == relation]


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"positions": "first"},
        {"steps": 0},
        {"steps": 30, "max_steps": 20},
        {"tolerance": 0.0},
        {"threshold": 0.0},
        {"shared": 1.5},
    ],
)
def test_a_configuration_that_means_nothing_is_refused(wrong, unchecked):
    with pytest.raises(InputError):
        KnowledgeNeurons(**wrong)


def test_questions_without_an_answer_are_refused(tiny):
    model, method = tiny("gpt2"), KnowledgeNeurons(steps=1)
    with pytest.raises(NothingToTrace, match="one token"):
        method(model, Fact(subject="the", template="{}", object=" of"))
    with pytest.raises(NothingToTrace, match="whole prompt"):
        method(model, replace(FACT, paraphrases=("{}",)))
    with pytest.raises(EmptyTarget):
        Fact(subject="cat", template="the {} is in", object=" ")


def test_tests_without_neurons_or_controls_are_refused(tiny):
    model = tiny("gpt2")
    result = replace(result_of(np.ones((2, 3, 64))), fingerprint=model.fingerprint)
    with pytest.raises(InputError, match="other neurons"):
        result.test(model)  # every neuron is one of them: nothing is left to compare with
    with pytest.raises(FingerprintMismatch):
        result.test(tiny("llama"))
    with pytest.raises(InputError, match="no neuron"):
        switch(model, [], FACT)
    with pytest.raises(InputError, match="draws 0"):
        RandomNeurons(draws=0)
    with pytest.raises(InputError, match="neuron 64"):
        switch(model, [(0, 64)], FACT)
    with pytest.raises(InputError, match="layer 3"):
        switch(model, [(3, 0)], FACT)
    with pytest.raises(InputError, match="its own controls"):
        switch(model, [(0, 0)], FACT, [FACT])


# --- the model that knows --------------------------------------------------------------------


def test_in_the_pocket_model_knowledge_neurons_matter_more_than_random_ones(pocket):
    from labkit import pocket as world

    fact, *others = world.facts()[:300:30]
    others = [other for other in others if other.object != fact.object]
    test = KnowledgeNeurons()(pocket, fact).test(pocket, others)
    found = test.change("this fact", "suppressed")
    assert found.high < test.change("random neurons", "suppressed").low
    others_change = test.change("other facts", "suppressed")
    assert found.high < min(0, others_change.mean) and found.mean < others_change.mean
