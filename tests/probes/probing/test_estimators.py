"""Probes keep scikit-learn's rules, find what was planted, and are at chance where nothing was."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from labkit.errors import InputError
from probes.probing.estimators import ESTIMATORS, STRENGTHS, MeanDifference, choose_strength, make
from probes.probing.sparse import SparseProbe
from probes.trees.structural import StructuralProbe, tree_distances

CLASSIFIERS = sorted(ESTIMATORS)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([MeanDifference(), SparseProbe(k=2)])
def test_own_estimators_keep_scikit_learns_rules(estimator, check):
    check(estimator)


def two_classes(n=200, width=10, distance=4.0, seed=0):
    draw = np.random.default_rng(seed)
    direction = draw.normal(size=width)
    direction /= np.linalg.norm(direction)
    labels = draw.integers(2, size=n)
    states = draw.normal(size=(n, width)) + np.outer(labels - 0.5, distance * direction)
    return states, np.asarray(["a", "b"])[labels], direction


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_probe_finds_a_planted_direction_and_nothing_in_shuffled_labels(name):
    states, labels, _ = two_classes()
    train, test = slice(120), slice(120, None)
    assert make(name).fit(states[train], labels[train]).score(states[test], labels[test]) > 0.9
    draw = np.random.default_rng(1)
    chance = []
    for _ in range(12):  # a single permutation may by chance point along the planted direction
        shuffled = draw.permutation(labels[train])
        chance.append(make(name).fit(states[train], shuffled).score(states[test], labels[test]))
    assert abs(np.mean(chance) - 0.5) < 0.2


def test_the_mean_difference_points_from_one_mean_to_the_other():
    states, labels, direction = two_classes(n=4000)
    found = MeanDifference().fit(states, labels).coef_[0]
    assert found @ direction / np.linalg.norm(found) > 0.98
    assert np.linalg.norm(found) == pytest.approx(4.0, abs=0.2)  # in units of the states
    probe = MeanDifference().fit(states, labels)
    ends = np.stack([states[labels == label].mean(axis=0) for label in probe.classes_])
    at_one, at_other, between = probe.decision_function(np.stack([*ends, ends.mean(axis=0)]))
    assert at_one == pytest.approx(-at_other) and between == pytest.approx(0, abs=1e-9)


def test_a_sparse_probe_looks_at_the_neurons_that_differ():
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=300)
    states = draw.normal(size=(300, 20))
    states[:, [3, 11]] += 2.0 * labels[:, None]
    probe = SparseProbe(k=2).fit(states, labels)
    assert set(probe.selected_features_) == {3, 11}
    assert set(np.flatnonzero(probe.coef_[0])) == {3, 11}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_depth_of_the_probe_tells_what_is_there_from_what_can_be_computed():
    """A product of two coordinates is no direction: a hidden layer computes it, a line cannot."""
    draw = np.random.default_rng(0)
    states = draw.normal(size=(900, 2))
    labels = (states[:, 0] * states[:, 1] > 0).astype(str)
    scores = {
        name: make(name).fit(states[:600], labels[:600]).score(states[600:], labels[600:])
        for name in ("logistic", "mlp1", "mlp2")
    }
    assert scores["logistic"] < 0.65 and min(scores["mlp1"], scores["mlp2"]) > 0.85


def test_numbers_are_for_ridge_and_the_mlps():
    draw = np.random.default_rng(0)
    states = draw.normal(size=(300, 5))
    numbers = states @ np.arange(5.0)
    for name in ("ridge", "mlp1"):
        probe = make(name, numeric=True, strength=1.0 if name == "ridge" else None)
        assert probe.fit(states[:200], numbers[:200]).score(states[200:], numbers[200:]) > 0.9
    with pytest.raises(InputError, match="ridge"):
        make("logistic", numeric=True)
    with pytest.raises(InputError, match="logistic"):
        make("logit")


def test_the_strength_is_the_one_of_a_grid_search_over_grouped_folds():
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    labels = draw.integers(3, size=200)
    states = draw.normal(size=(200, 30)) + 0.4 * draw.normal(size=(3, 30))[labels]
    states += 2 * draw.normal(size=(40, 30))[groups]
    strengths = STRENGTHS["logistic"]
    search = GridSearchCV(
        make("logistic"), {"logisticregression__C": strengths}, cv=GroupKFold(n_splits=3)
    ).fit(states, labels, groups=groups)
    scores = dict(zip(strengths, search.cv_results_["mean_test_score"], strict=True))
    chosen = choose_strength("logistic", [states], labels, groups)
    assert len(set(scores.values())) > 1 and scores[chosen] == max(scores.values())
    assert choose_strength("centroid", [states], labels, groups) is None
    assert choose_strength("logistic", [states], labels, np.zeros(200)) is None


def test_no_fold_cuts_a_group(monkeypatch):
    seen, own = [], GroupKFold.split

    def split(self, X, y=None, groups=None):
        for train, test in own(self, X, y, groups):
            seen.append((train, test))
            yield train, test

    monkeypatch.setattr(GroupKFold, "split", split)
    groups, labels = np.repeat(np.arange(9), 4), np.tile([0, 1], 18)
    states = np.random.default_rng(0).normal(size=(36, 5))
    assert choose_strength("logistic", [states], labels, groups) in STRENGTHS["logistic"]
    assert len(seen) == 3 and not any(set(groups[a]) & set(groups[b]) for a, b in seen)


CHAIN, STAR = [-1, 0, 1, 2], [-1, 0, 0, 0]


def test_distances_in_a_tree():
    assert tree_distances(CHAIN).tolist() == [
        [0, 1, 2, 3],
        [1, 0, 1, 2],
        [2, 1, 0, 1],
        [3, 2, 1, 0],
    ]
    assert tree_distances(STAR)[1:, 1:].tolist() == [[0, 2, 2], [2, 0, 2], [2, 2, 0]]
    for heads in ([0, -1], [1, 0], [-1, -1]):
        with pytest.raises(InputError, match="tree"):
            tree_distances(heads)


def sentences(n, seed=0, width=16):
    """States that embed their trees: an arc is a step along a direction of its own."""
    draw = np.random.default_rng(seed)
    steps = 3.0 * np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0][:8]
    states, gold = [], []
    for _ in range(n):
        heads = [-1, *(int(draw.integers(i)) for i in range(1, 8))]
        at = np.zeros((8, width))
        for word in range(1, 8):
            at[word] = at[heads[word]] + steps[word]
        states.append(at + 0.05 * draw.normal(size=at.shape))
        gold.append(tree_distances(heads))
    return states, gold


def test_the_structural_probe_recovers_trees_that_are_there():
    states, gold = sentences(80)
    probe = StructuralProbe(rank=16, epochs=40).fit(states[:60], gold[:60])
    assert probe.score(states[60:], gold[60:]) > 0.95
    assert probe.uuas(states[60:], gold[60:]).mean() > 0.95
    mixed = [one[::-1] for one in states]
    assert (
        StructuralProbe(rank=16, epochs=40).fit(mixed[:60], gold[:60]).score(mixed[60:], gold[60:])
        < 0.7
    )
    with pytest.raises(InputError, match="sentence 0"):
        probe.fit(states, [one[:3, :3] for one in gold])
    # What fills a batch of sentences of different lengths up is no part of its loss.
    sizes = [3 + number % 6 for number in range(20)]
    short = [one[:n] for one, n in zip(states, sizes, strict=False)]
    trees = [one[:n, :n] for one, n in zip(gold, sizes, strict=False)]
    start = {"epochs": 1, "learning_rate": 1e-12, "rank": 8}
    together, alone = (
        StructuralProbe(batch=batch, **start).fit(short, trees).losses_[0] for batch in (20, 1)
    )
    assert together == pytest.approx(alone, rel=1e-5)
