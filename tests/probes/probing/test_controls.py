"""Controls are what they say: blind baselines, one label per word type, untrained weights."""

import numpy as np
import pytest

from labkit.running.logits import next_token_logits
from labkit.stats import Estimate, holm
from probes.probing.by_depth import probe_features
from probes.probing.controls import (
    bag,
    baselines,
    control_labels,
    no_selectivity,
    random_twin,
    recurring,
    shuffled_labels,
)
from probes.probing.depths import arrival, expected, gravity, order_test, reach
from probes.probing.scores import Scorer, ratio, sign_flips
from probes.tasks.task import Example, Task
from tests.probes.toys import features, planted, task


def test_baselines_by_hand():
    labels = ["n", "n", "v", "v", "v", "n", "v", "n", "n", "v"]
    items = ["run", "run", "run", "go", "go", "run", "go", "sun", "run", "go"]
    toy = task(labels, items, held_out=(5, 6, 7, 8, 9))
    answers = baselines(toy, toy.split())
    assert answers["majority"].tolist() == ["v"] * 5  # 3 of 5
    assert answers["form"].tolist() == ["n", "v", "v", "n", "v"]  # "sun" is new: the majority
    assert "bag" not in answers
    numbers = task([1, 3, 5, 9, 9, 0, 0, 0, 0, 0], items, numeric=True, held_out=(5, 6, 7, 8, 9))
    answers = baselines(numbers, numbers.split())
    assert answers["majority"].tolist() == [5.4] * 5
    assert answers["form"].tolist() == [3, 9, 5.4, 3, 9]


def test_a_bag_of_words_reads_up_to_the_word_and_no_further():
    draw = np.random.default_rng(0)
    words, texts, examples = ["good", "bad"], [], []
    for number in range(80):
        label, other = draw.integers(2), draw.integers(2)
        text = f"a {words[label]} day and a {words[other]} night"
        texts.append(text)
        for name, stop in (("here", text.index(" and")), ("end", len(text))):
            examples.append((name, number, stop, words[label], words[other]))
    for name, answer in (("here", 3), ("end", 4)):
        mine = tuple(
            Example(text=e[1], span=(e[2] - 3, e[2]), label=e[answer], group=str(e[1]), item="x")
            for e in examples
            if e[0] == name
        )
        toy = Task(name=name, family="semantic", texts=tuple(texts), examples=mine, source="toy")
        split = toy.split()
        right = (bag(toy, split) == toy.labels[split.test]).mean()
        assert right == 1.0 if name == "here" else right < 1.0


def test_a_control_task_has_one_label_a_word_type_drawn_from_the_labels():
    draw = np.random.default_rng(0)
    labels = draw.choice(["a", "b", "c"], p=[0.7, 0.2, 0.1], size=2000)
    items = draw.integers(1000, size=2000)
    toy = task(labels, items)
    control = control_labels(toy, toy.split(), seed=3)
    for item in set(items.tolist()):
        assert len(set(control[items == item])) == 1
    assert (control == "a").mean() == pytest.approx(0.7, abs=0.05)
    assert (control_labels(toy, toy.split(), seed=3) == control).all()
    assert (control_labels(toy, toy.split(), seed=4) != control).any()


def test_shuffled_labels_are_the_same_labels():
    toy, _ = planted()
    split = toy.split()
    mixed = shuffled_labels(toy, split)
    assert sorted(mixed) == sorted(toy.labels[split.train])
    assert (mixed != toy.labels[split.train]).any()


def test_a_probe_that_memorises_is_not_selective():
    """States are random vectors of word types: any labelling of them is learned alike."""
    draw = np.random.default_rng(0)
    items = draw.integers(40, size=600)
    of_item = draw.choice(list("abc"), size=40)
    states = draw.normal(size=(40, 100))[items] + 0.01 * draw.normal(size=(600, 100))
    toy = task(of_item[items], items)
    memorised = probe_features(toy, features(states), model="toy").best
    assert memorised.score.mean > 0.95 and memorised.control.mean > 0.9
    assert abs(memorised.selectivity.mean) < 0.1
    toy, states = planted()
    read = probe_features(toy, states, model="toy").at(1)
    assert read.score.mean > 0.9 and read.selectivity.low > 0.3


def test_no_selectivity_where_no_word_type_recurs():
    toy, states = planted()
    alone = task(toy.labels, range(len(toy)))
    assert not recurring(alone, alone.split()).any()
    found = probe_features(alone, states, model="toy")
    assert found.best.selectivity is None and found.best.control is None
    assert "0 of" in found.no_selectivity and "word type" in found.no_selectivity
    assert no_selectivity(toy, toy.split()) is None


def test_the_twin_has_the_shape_and_none_of_the_weights(model):
    twin = random_twin(model, seed=1)
    own, others = dict(model.hf.named_parameters()), dict(twin.hf.named_parameters())
    assert {n: p.shape for n, p in own.items()} == {n: p.shape for n, p in others.items()}
    assert twin.fingerprint != model.fingerprint and twin.tokenizer is model.tokenizer
    assert (twin.dtype, twin.device) == (model.dtype, model.device)
    again = random_twin(model, seed=1)
    assert again.fingerprint == twin.fingerprint != random_twin(model, seed=2).fingerprint
    assert next_token_logits(twin, ["the in"]).isfinite().all()


def test_scores_are_ratios_over_groups():
    scorer = Scorer.of(
        np.array(list("aabba")), np.array(list("xxyyz")), np.array(["a"]), numeric=False
    )
    answers = np.array(list("abbba"))
    assert scorer.by_group(scorer.credits(answers)).tolist() == [1, 2, 1]
    assert scorer.score(answers).mean == 0.8 and scorer.score(answers).n == 3
    assert scorer.score(answers, among=np.array([0, 1, 1, 0, 0], bool)).mean == 0.5
    numbers = Scorer.of(np.array([0.0, 4.0]), np.array(["x", "y"]), np.array([2.0]), numeric=True)
    assert numbers.score(np.array([2.0, 2.0])).mean == 0.0  # the mean of the training side
    assert numbers.score(np.array([1.0, 4.0])).mean == pytest.approx(1 - 1 / 8)


def test_intervals_are_over_groups_and_not_over_examples():
    """A hundred copies of each group are no more evidence than one."""
    draw = np.random.default_rng(0)
    right = draw.integers(2, size=30).astype(float)
    once, copied = ratio(right, np.ones(30)), ratio(100 * right, np.full(30, 100.0))
    assert copied == once
    width = once.high - once.low
    assert width == pytest.approx(2 * 1.96 * right.std() / np.sqrt(30), rel=0.2)
    twos = np.full(30, 2.0)
    assert ratio(twos, twos, share=True).low == pytest.approx(0.886, abs=1e-3)  # Wilson
    assert not ratio(twos, twos).has_interval
    scorer = Scorer.of(np.array(list("ab" * 15)), np.arange(30), np.array(["a"]), numeric=False)
    assert scorer.score(np.array(list("ab" * 15))) == ratio(twos, twos, share=True)
    names = np.repeat([f"group {n}" for n in range(6)], 5)
    five = Scorer.of(np.tile(list("ab"), 15), names, np.array(["a"]), numeric=False)
    assert five.n_groups == 6 and five.score(five.labels).n == 6
    same = scorer.difference(scorer.labels, scorer, scorer.labels)
    assert same.mean == 0 and not same.has_interval


def test_p_values_are_uniform_where_nothing_is_and_small_where_something_is():
    draw = np.random.default_rng(0)
    p = [sign_flips(draw.normal(size=20), seed=i) for i in range(300)]
    assert np.mean(np.asarray(p) <= 0.1) == pytest.approx(0.1, abs=0.05)
    assert sign_flips(np.ones(20)) == 0.001 and sign_flips(-np.ones(20)) == 1.0
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_centres_by_hand():
    depths, curve = np.arange(4.0), np.array([0.5, 0.5, 0.75, 0.75])
    assert gravity(curve, depths, 0.25) == 2.5
    assert expected(curve, depths, 0.25) == 2.0
    assert arrival(curve, depths, 0.25) == 1.0  # half of the gain over the majority at depth 0
    # 0.2 are gained at depth 1, 0.2 at depth 3; the dip between them is no loss of anything.
    assert expected(np.array([0.5, 0.7, 0.6, 0.9]), depths, 0.25) == pytest.approx(2.0)
    falling = np.array([0.5, 0.4, 0.3, 0.2])
    assert np.isnan(gravity(falling, depths, 0.25)) and np.isnan(expected(falling, depths, 0.25))
    assert arrival(falling, depths, 0.25) == 0.0 and np.isnan(arrival(falling, depths, 0.5))
    nothing = reach(np.array([[4.0, 4.0], [3.0, 3.0]]), np.array([5.0, 5.0]), (0, 1), floor=0.9)
    assert nothing.gravity is nothing.expected is nothing.arrival is None
    credit = np.tile([[0.0], [0.0], [1.0], [1.0]], (1, 30))
    found = reach(credit, np.ones(30), (0, 4, 8, 12), floor=0.0)
    assert found.expected == found.arrival == Estimate.exact(8.0, 30)  # no group differs
    assert found.gravity is not None and found.gravity.mean == 10.0


def test_the_order_of_families():
    draw = np.random.default_rng(0)

    def around(centre):
        return centre, centre + 0.1 * draw.normal(size=1000)

    measured = {f"low {i}": around(2 + i / 10) for i in range(5)}
    measured |= {f"high {i}": around(8 + i / 10) for i in range(5)}
    low, high = [n for n in measured if "low" in n], [n for n in measured if "high" in n]
    found = order_test(measured, low, high, measure="gravity")
    assert found.difference.mean == pytest.approx(6)
    assert (
        5.5 < found.difference.low < 6 < found.difference.high < 6.5
        and found.p == pytest.approx(1 / 252)
    )
    assert order_test(measured, high, low, measure="gravity").p == 1.0
    mixed = order_test(measured, low[:2] + high[:2], low[2:] + high[2:], measure="gravity")
    assert mixed.p > 0.1
