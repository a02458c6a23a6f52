"""Orders: every one is scored as it stands, and biases that are planted are found."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from labkit.errors import InputError, PoolTooSmall
from labkit.icl import Orders, OrdersResult, task
from labkit.stats import numpy_generator
from tests.reference import shows

LABELS = ("a", "b", "c")


def made(log_probs, probes=None, *, shown=(("a", "b", "a"),), gold=None):
    """A result of given scores `[set, order, query, label]` behind all orders of three."""
    log_probs = np.asarray(log_probs, dtype=np.float32)
    n = log_probs.shape[2]
    return OrdersResult(
        model="m", fingerprint="f", task="t", source="s", labels=LABELS, gold=gold or ("a",) * n,
        shown=shown, orders=np.array(list(permutations(range(3)))), seed=0, log_probs=log_probs,
        probe_log_probs=log_probs if probes is None else np.asarray(probes, dtype=np.float32),
    )  # fmt: skip


def test_every_order_is_shown_and_scored(pocket):
    own = task("country_continent", pocket)
    method = Orders(k=3, orders=6, sets=2, queries=4, probes=3)
    found = method(pocket, own)
    assert sorted(map(tuple, found.orders.tolist())) == sorted(permutations(range(3)))
    assert found.log_probs.shape == (2, 6, 4, len(own.labels))
    assert len(np.unique(found.log_probs[0, :, 0, 0])) == 6
    frame = found.to_frame()
    assert len(frame) == 12 and method(pocket, own).to_frame().equals(frame)
    assert not replace(method, seed=1)(pocket, own).to_frame().equals(frame)
    assert shows(found.figure(), frame["mean"])


@pytest.mark.parametrize("k", [5, 9])
def test_sampled_orders_are_different_orders(k):
    orders = Orders(k=k, orders=30).listed(numpy_generator(0, "t"))
    assert len({tuple(order) for order in orders.tolist()}) == 30
    assert all(sorted(order) == list(range(k)) for order in orders.tolist())


def test_a_planted_recency_is_found():
    """A model that says the label shown last."""
    orders = list(permutations(range(3)))
    last = [LABELS.index("aba"[order[-1]]) for order in orders]
    scores = np.full((1, 6, 4, 3), -9.0)
    scores[0, np.arange(6), :, last] = 0.0
    means = made(scores).by_position().set_index("position")["mean"]
    assert means[3] == pytest.approx(1, abs=1e-3)
    assert means[1] == means[2] == pytest.approx(1 / 3, abs=1e-3)  # a stands behind a
    assert made(scores).recency()[0].mean == pytest.approx(2 / 3, abs=1e-3)


def test_a_planted_majority_is_found():
    scores = np.broadcast_to(np.log([0.7, 0.2, 0.1]), (1, 6, 6, 3))
    found = made(scores, gold=tuple("abcabc")).by_count().set_index("count")["mean"]
    expected = {0: 0.1 - 1 / 3, 1: 0.2 - 1 / 3, 2: 0.7 - 1 / 3}
    assert found.to_dict() == pytest.approx(expected, abs=1e-6)


def test_entropies_are_those_of_the_answers():
    certain = np.log([[0.98, 0.01, 0.01]] * 3)
    spread = np.log([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]])
    unsure = np.log([[0.4, 0.3, 0.3]] * 3)
    probes = np.stack([certain, spread, unsure, certain, certain, certain])[None]
    found = made(np.zeros((1, 6, 4, 3)), probes)
    assert found.entropies("global")[0, :3] == pytest.approx([0, np.log(3), 0])
    local = found.entropies("local")[0]
    assert local[0] == pytest.approx(local[1]) and local[2] == pytest.approx(1.0889, abs=1e-3)
    assert found.preferred("global")[0].tolist() == [False, True, *[False] * 4]
    assert found.preferred("local")[0].argmax() == 2


def test_spread_by_luck_does_not_carry_over_and_a_good_order_does():
    draw = np.random.default_rng(0)
    lucky = np.log(draw.dirichlet([1, 1, 1], size=(40, 6, 30)))
    shown = (("a", "b", "a"),) * 40
    luck = made(lucky, shown=shown)
    assert luck.spread().low > 0.1
    assert luck.best_on_new_queries().low < 0 < luck.best_on_new_queries().high
    good = lucky.copy()
    good[:, 2, :, 0] = 9.0  # the third order gets everything right
    better = made(good, shown=shown)
    assert better.best_on_new_queries().low > 0.4
    gain, p = made(good, good, shown=shown).gain_of_entropy("local")
    assert gain.mean < 0 and p < 0.01  # where the good order is the certain one, entropy misleads


def test_bad_input(pocket):
    for fields in ({"k": 1}, {"orders": 1}, {"queries": 1}, {"sets": 0}, {"probes": 0}):
        with pytest.raises(InputError):
            Orders(**fields)
    with pytest.raises(PoolTooSmall):
        Orders()(pocket, task("country_continent", pocket))
