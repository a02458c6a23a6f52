"""What is done to demonstrations is what it says; numbers follow from the scores."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from labkit.errors import (
    AmbiguousLabels,
    ContextTooShort,
    EmptyTarget,
    InputError,
    PoolTooSmall,
)
from labkit.icl import CONDITIONS, Demonstrations, DemonstrationsResult, Item, Task, Template, task
from labkit.icl.behaviour.conditions import Surroundings, flipped, shots_of
from labkit.icl.tasks.prompts import write
from labkit.stats import numpy_generator
from tests.reference import shows

TOPIC = task("topic")
SURROUNDINGS = Surroundings(words=tuple("many plain words without any news in them".split()))


def shots(condition, k=12, own=TOPIC, seed=0):
    draw = partial(numpy_generator, seed, condition)
    return shots_of(condition, own, own.items[:16], k, surroundings=SURROUNDINGS, draw=draw)


def labels(condition, k=12, seed=0):
    return [shot.label for shot in shots(condition, k, seed=seed)]


GOLD = [item.label for item in TOPIC.items[:12]]


@pytest.mark.parametrize("k", range(1, 17))
def test_permuted_labels_keep_the_marginals_exactly(k):
    gold = [item.label for item in TOPIC.items[:k]]
    seen = [labels("permuted", k, seed) for seed in range(8)]
    assert all(Counter(own) == Counter(gold) for own in seen)
    assert k < 3 or any(own != gold for own in seen)


@pytest.mark.parametrize("condition", [*CONDITIONS, "correct-50"])
def test_inputs_are_the_items_own(condition):
    inputs = [shot.input for shot in shots(condition)]
    expected = [item.input for item in TOPIC.items[:12]]
    if condition == "foreign":
        assert not set(inputs) & set(expected)
        assert all(set(text.split()) <= set(SURROUNDINGS.words) for text in inputs)
        many = len(SURROUNDINGS.words)
        for text, own in zip(inputs, expected, strict=True):
            assert len(text.split()) == min(many, len(own.split()))
    else:
        assert inputs == expected


@pytest.mark.parametrize("condition", ["gold", "foreign", "no-format", "inputs-only"])
def test_labels_that_are_kept(condition):
    assert labels(condition) == GOLD


def test_labels_that_are_changed():
    flip = dict(zip(GOLD, labels("flipped"), strict=True))
    assert all(flip[gold] == label for gold, label in zip(GOLD, labels("flipped"), strict=True))
    assert set(flip) == set(flip.values()) and all(a != b for a, b in flip.items())
    assert not set(labels("out-of-space")) & set(TOPIC.labels)
    assert len(set(labels("out-of-space"))) <= len(TOPIC.labels)
    drawn = Counter(label for seed in range(200) for label in labels("random", seed=seed))
    assert set(drawn) == set(TOPIC.labels) and min(drawn.values()) > 0.9 * 200 * 12 / 4
    for share, right in ((0, 0), (25, 3), (50, 6), (100, 12)):
        assert sum(a == b for a, b in zip(labels(f"correct-{share}"), GOLD, strict=True)) == right
    assert labels("random", 5) == labels("random", 12)[:5]
    two = Task(name="two", items=TOPIC.items[:2], source="s")
    assert flipped(two, np.random.default_rng(0)) == dict(
        zip(two.labels, two.labels[::-1], strict=True)
    )


@pytest.fixture(scope="module")
def result(pocket):
    method = Demonstrations(
        conditions=("gold", "random", "labels-only"), ks=(0, 1, 4), draws=2, queries=8
    )
    return method, method(pocket, task("country_continent", pocket))


def test_scores_are_those_of_the_prompts(pocket, result):
    """One cell by hand: the very prompt, through Hugging Face's own model."""
    import torch

    method, found = result
    own = task("country_continent", pocket)
    queries, pool = method.split(own)
    assert not {i.input for i in queries} & {i.input for i in pool}
    sets = method.sets(pocket, own, pool)
    assert [sets[one, 4, 1][1] for one in method.conditions] == [None, None, "{label}"]
    for place, condition in enumerate(method.conditions):
        demonstrations, shown = sets[condition, 4, 1]
        text = write(own.template, demonstrations, queries[2].input, shown=shown)
        with torch.no_grad():
            logits = pocket.hf(torch.tensor([pocket.ids(text)])).logits[0, -1]
        for number, label in enumerate(own.labels):
            assert len(pocket.ids(label)) == 2  # the BOS and one word
            expected = logits.log_softmax(dim=-1)[pocket.ids(label)[1]].item()
            got = found.log_probs[place, 2, 1, 2, number]
            assert got == pytest.approx(expected, abs=1e-4)


def test_without_demonstrations_all_conditions_are_one(result):
    _, found = result
    none = found.log_probs[:, 0]
    assert (none == none[0, 0]).all()


def test_the_same_seed_gives_the_same_table_and_another_another(pocket, result, tmp_path):
    method, found = result
    own = task("country_continent", pocket)
    assert method(pocket, own).to_frame().equals(found.to_frame())
    assert not replace(method, seed=1)(pocket, own).to_frame().equals(found.to_frame())
    found.save(tmp_path / "r")
    loaded = DemonstrationsResult.load(tmp_path / "r")
    assert loaded.to_frame().equals(found.to_frame()) and loaded.title == found.title


def made(right, *, conditions=("gold", "random"), ks=(0, 2)):
    """A result whose right answers are given: `[condition, k, query]`, one draw."""
    right = np.asarray(right, dtype=bool)
    scores = np.where(right, np.log(0.5), np.log(0.125))
    other = np.where(right, np.log(0.125), np.log(0.5))
    n = right.shape[-1]
    log_probs = np.stack([scores, other], axis=-1)[:, :, None].astype(np.float32)
    free = np.zeros((*right.shape[:2], 1, 1, 2), dtype=np.float32)
    return DemonstrationsResult(
        model="m", fingerprint="f", task="t", source="s", labels=("a", "b"),
        queries=tuple(map(str, range(n))), gold=("a",) * n, conditions=conditions, ks=ks,
        tokens="all", seed=0, log_probs=log_probs, content_free=free,
    )  # fmt: skip


def test_numbers_follow_from_the_scores():
    none, gold, random = [1, 0] * 8, [1] * 16, [1, 1, 1, 0] * 4
    found = made([[none, gold], [none, random]])
    assert found.accuracy("gold", 0).mean == 0.5 and found.accuracy("random", 2).mean == 0.75
    assert found.estimate("mass", "gold", 2).mean == pytest.approx(0.625)
    assert found.estimate("gold", "gold", 2).mean == pytest.approx(0.5)
    assert found.label_effect(2).mean == pytest.approx(0.5)
    assert found.label_effect(2).low < 0.5 < found.label_effect(2).high
    (row,) = found.comparisons().itertuples()
    assert (row.condition, row.k, row.mean) == ("random", 2, -0.25)
    # Of 16 signs only those of 4 differences count: two-sided 2 / 2**4.
    assert row.p == pytest.approx(0.125, abs=0.02) and row.p_holm == row.p
    assert found.difference("gold", "random", 2)[0].mean == 0.25
    gains = found.gains().set_index("condition")
    assert gains.loc["gold", "mean"] == 0.5 and gains.loc["random", "p_holm"] > 0.05
    assert shows(found.figure(), [0.5, 1.0, 0.75])


def test_calibration_takes_out_what_is_said_about_nothing():
    """A model that always prefers b by the same factor is right once that is divided out."""
    found = made([[[0, 0, 0, 0]] * 2] * 2)
    shift = np.float32(np.log(4) + 0.1)
    free = found.content_free + np.array([0.0, shift], dtype=np.float32)
    fixed = replace(found, content_free=free)
    assert found.values("calibrated").mean() == 0.0 and fixed.values("calibrated").mean() == 1.0
    assert fixed.values("accuracy").mean() == 0.0


def small(n=8, labels=("of", "in"), **fields):
    items = tuple(Item(input=f"word {i}", label=labels[i % len(labels)]) for i in range(n))
    return Task(name="small", items=items, source="s", **fields)


@pytest.mark.parametrize(
    ("fields", "own", "error"),
    [
        ({"ks": (0, 8)}, small(), PoolTooSmall),
        ({"ks": (0, 30)}, small(40), ContextTooShort),
        ({"ks": (0,), "tokens": "first"}, small(labels=("the a", "the b")), AmbiguousLabels),
        ({"ks": (0,)}, small(labels=("in", "in the")), AmbiguousLabels),
    ],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, fields, own, error):
    model = tiny("llama")
    with pytest.raises(error):
        Demonstrations(**fields)(model, own)


def test_a_label_that_no_token_stands_for(pocket):
    template = Template(demonstration="{input} makes {label}")
    with pytest.raises(EmptyTarget):
        Demonstrations(ks=(0,))(pocket, small(labels=("candles", "xyzzy"), template=template))


@pytest.mark.parametrize(
    "fields",
    [
        {"conditions": ()},
        {"conditions": ("gold", "gold")},
        {"conditions": ("golden",)},
        {"conditions": ("correct-101",)},
        {"ks": ()},
        {"ks": (2, 1)},
        {"ks": (-1,)},
        {"draws": 0},
        {"queries": 0},
    ],
)
def test_impossible_settings(fields):
    with pytest.raises(InputError):
        Demonstrations(**fields)


def test_what_was_not_measured_is_named(result):
    _, found = result
    for ask in (
        lambda: found.accuracy("flipped", 1),
        lambda: found.accuracy("gold", 3),
        lambda: found.comparisons(against="flipped"),
        lambda: made([[[1, 1], [0, 1]]] * 2).label_effect(2),
    ):
        with pytest.raises(InputError):
            ask()
