"""The online code is the one that a hand computes, and is short where states tell."""

import numpy as np
import pytest

from labkit.errors import InputError
from probes.probing.description_length import PORTIONS, OnlineCode, online_code, portion_ends
from probes.probing.estimators import make

THREE = OnlineCode(portions=(0.25, 0.5, 1.0))


class Counts:
    """A probe that looks at no state: the shares of the classes that it was fitted to."""

    def get_params(self, deep=True):
        return {}

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.shares = counts / counts.sum()
        return self

    def predict_proba(self, X):
        return np.tile(self.shares, (len(X), 1))

    def predict(self, X):
        return np.repeat(self.classes_[self.shares.argmax()], len(X))


def test_the_code_of_eight_labels_by_hand():
    labels = np.array(list("aabaabab"))
    groups = np.arange(8)
    states = np.zeros((8, 1))
    code = online_code(Counts(), states, labels, groups, THREE, order=range(8))
    # Two labels at one bit each. Only "a" has come: a costs -log2((2 + .5) / 3), b what is left;
    # the portion is "ba". Then a 3, b 1 of 4, for "abab": (3 + .5) / 5 and (1 + .5) / 5.
    first = 2 * 1.0
    second = -np.log2(0.5 / 3) - np.log2(2.5 / 3)
    third = -2 * np.log2(3.5 / 5) - 2 * np.log2(1.5 / 5)
    assert [step.bits for step in code.portions] == pytest.approx([first, second, third])
    assert [(step.n_before, step.n) for step in code.portions] == [(0, 2), (2, 2), (4, 4)]
    assert code.bits.mean == pytest.approx(first + second + third)
    assert code.uniform == 8.0
    assert code.compression.mean == pytest.approx(8 / (first + second + third))


def test_states_that_tell_compress_and_others_do_not():
    draw = np.random.default_rng(0)
    labels = draw.integers(4, size=400)
    groups = np.arange(400) // 4
    noise = draw.normal(size=(400, 10))
    telling = noise + 4 * draw.normal(size=(4, 10))[labels]
    head = make("logistic", strength=0.1)[-1]
    codes = [
        online_code(head, states, labels, groups, OnlineCode(seed=1)) for states in (telling, noise)
    ]
    assert codes[0].compression.low > 3 and codes[1].compression.high < 1.1
    for code in codes:
        assert code.bits.low <= code.bits.mean <= code.bits.high
        assert code.compression.low <= code.compression.mean <= code.compression.high
        assert sum(step.n for step in code.portions) == 400
        assert sum(step.bits for step in code.portions) == pytest.approx(code.bits.mean)


def test_no_portion_cuts_a_group():
    groups = np.repeat(np.arange(7), [1, 5, 3, 8, 2, 9, 4])
    ends = portion_ends(groups, PORTIONS)
    borders = {int(np.flatnonzero(groups == g)[-1]) + 1 for g in range(7)}
    assert set(ends) <= borders and ends == sorted(set(ends)) and ends[-1] == len(groups)


def test_the_order_of_the_rows_within_their_groups_is_all_that_counts():
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=60).astype(str)
    groups = np.repeat([f"g{i}" for i in range(20)], 3)
    states = draw.normal(size=(60, 4))
    head = make("logistic")[-1]
    shuffled = np.concatenate([np.flatnonzero(groups == f"g{i}") for i in draw.permutation(20)])
    codes = [
        online_code(head, states[rows], labels[rows], groups[rows])
        for rows in (np.arange(60), shuffled)
    ]
    assert codes[0].bits.mean == pytest.approx(codes[1].bits.mean, rel=1e-6)


def test_the_curve_is_the_score_of_the_probe_of_each_portion():
    labels = np.array(list("aabaabab"))
    code = online_code(
        Counts(),
        np.zeros((8, 1)),
        labels,
        np.arange(8),
        THREE,
        order=range(8),
        score=lambda fitted: float(fitted.predict_proba(np.zeros((1, 1)))[0, 0]),
    )
    assert [step.score for step in code.portions] == [1.0, 0.75, 0.625]


@pytest.mark.parametrize(
    "portions", [(0.5, 0.25, 1.0), (0.5,), (0.0, 1.0), (), (float("nan"), 1.0)]
)
def test_portions_that_do_not_rise_to_the_whole_are_refused(portions):
    with pytest.raises(InputError, match="portions"):
        OnlineCode(portions=portions)


def test_a_probe_without_probabilities_is_refused():
    with pytest.raises(InputError, match="RidgeClassifier"):
        online_code(make("ridge")[-1], np.zeros((4, 1)), np.array(list("abab")), np.arange(4))
