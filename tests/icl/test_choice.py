"""Chosen demonstrations are those that they should be, and stand where they should."""

from collections import Counter

import numpy as np
import pytest
import torch

from labkit.errors import ContextTooShort, InputError, PoolTooSmall
from labkit.icl import Choice, Demonstrations, Item, Task, task
from labkit.icl.behaviour.choice import WORDS
from labkit.icl.behaviour.nearness import bm25_scores, spread, state_vectors, varied
from labkit.icl.tasks.prompts import write
from tests.reference import shows

pytest.importorskip("bm25s")
TOPIC = task("topic")


def bm25_by_hand(query, texts, k1=1.5, b=0.75):
    """Lucene's variant: idf = ln(1 + (N - df + 0.5) / (df + 0.5))."""
    words = [text.lower().split() for text in texts]
    mean = np.mean([len(own) for own in words])
    scores = []
    for own in words:
        total = 0.0
        for word in query.lower().split():
            df = sum(word in other for other in words)
            tf = own.count(word)
            idf = np.log(1 + (len(words) - df + 0.5) / (df + 0.5))
            total += idf * tf / (tf + k1 * (1 - b + b * len(own) / mean))
        scores.append(total)
    return scores


def test_bm25_is_bm25():
    texts = ["the old cat sat", "the dog and the cat", "rain falls", "the the the"]
    for query in ("cat in the rain", "nothing here"):
        got = bm25_scores([query], texts)[0]
        assert got == pytest.approx(bm25_by_hand(query, texts), abs=1e-5)
    assert not bm25_scores(["!"], texts).any() and not bm25_scores(["a cat"], ["!", "?"]).any()


def test_the_nearest_state_of_an_input_is_its_own(model):
    texts = [item.input for item in TOPIC.items[:6]]
    queries, states = state_vectors(model, TOPIC, texts[:3], texts)
    scores = queries @ states.T
    assert scores[range(3), range(3)] == pytest.approx(1) and (scores < 1 + 1e-9).all()
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


def test_states_are_those_of_the_middle_around_their_mean(model):
    """Hugging Face's own hidden states, one prompt at a time."""
    texts = [item.input for item in TOPIC.items[:4]]
    _, states = state_vectors(model, TOPIC, texts[:1], texts)
    with torch.no_grad():
        hidden = [
            model.hf(
                torch.tensor([model.ids(write(TOPIC.template, (), text))]),
                output_hidden_states=True,
            ).hidden_states[(model.n_layers + 1) // 2][0, -1]
            for text in texts
        ]
    centred = torch.stack(hidden).double() - torch.stack(hidden).double().mean(dim=0)
    expected = (centred / centred.norm(dim=-1, keepdim=True)).numpy()
    assert states == pytest.approx(expected, abs=1e-4)


def test_far_from_each_other_is_the_greedy_cover():
    """Each point is the one whose nearest among those before it is farthest, by hand."""
    draw = np.random.default_rng(0)
    points = draw.normal(size=(12, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    alike = points @ points.T
    chosen = spread(alike, 6, 4)
    assert chosen[0] == 4 and len(set(chosen)) == 6
    for place in range(1, 6):
        distance = [
            min(np.linalg.norm(one - points[other]) for other in chosen[:place]) for one in points
        ]
        assert chosen[place] == int(np.argmax(distance))
    twins = np.array([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert spread(twins @ twins.T, 2, 0) == [0, 3]


def test_varied_is_near_to_the_query_and_unlike_what_is_there():
    query, texts = np.array([1.0, 0.3]), np.array([[1, 0], [1, 0.01], [0.5, 0.9], [-1, 0.0]])
    assert (texts @ query).argsort()[::-1].tolist() == [1, 0, 2, 3]
    # The second is the first again: 0.5 * (1.00 - 1.00) < 0.5 * (0.77 - 0.51).
    assert varied(texts @ query, texts @ texts.T, 4)[:2] == [1, 2]


def test_what_each_way_chooses(tiny):
    method = Choice(ks=(2, 4), draws=2)
    queries, pool = TOPIC.items[:5], TOPIC.items[5:]
    chosen = method.chosen(tiny("llama"), TOPIC, queries, pool)
    assert all(one == draw[0] for draw in chosen["random"] for one in draw)
    assert chosen["random"][0] != chosen["random"][1] and chosen["bm25"][0] == chosen["bm25"][1]
    scores = bm25_scores([q.input for q in queries], [p.input for p in pool])
    assert all(len(set(n)) == 4 for way in Choice().ways for d in chosen[way] for n in d)
    assert [d[0][0] for d in chosen["spread"]] == [d[0][0] for d in chosen["random"]]
    assert [n[0] for n in chosen["varied"][0]] == [n[0] for n in chosen["states"][0]]
    for row, numbers in zip(scores, chosen["bm25"][0], strict=True):
        assert row[numbers].tolist() == sorted(row, reverse=True)[:4]
    for near, alike in zip(chosen["bm25"][0], chosen["alike"][1], strict=True):
        assert [pool[n].label for n in near] == [pool[n].label for n in alike]
        assert not set(near) & set(alike) and max(Counter(alike).values()) == 1


def test_the_nearest_stands_last_and_random_is_what_demonstrations_draw(tiny, monkeypatch):
    items = [Item(input=f"number {n}", label="in" if n % 2 else "of") for n in range(9)]
    own = Task(name="t", items=tuple(items), source="s")
    asked = []
    monkeypatch.setattr(
        "labkit.icl.asking.queries.write",
        lambda template, shots, query, shown: (
            asked.append((shots, query)) or f"{shots} {query}"[:60]
        ),
    )
    near = lambda queries, texts: np.tile(-np.arange(len(texts)), (len(queries), 1)) * 1.0  # noqa: E731
    monkeypatch.setattr("labkit.icl.behaviour.choice.bm25_scores", near)
    method = Choice(ways=("bm25",), ks=(3,), draws=1, queries=2)
    found = method(tiny("gpt2"), own)
    queries, pool = Demonstrations(ks=(3,), queries=2).split(own)
    assert found.queries == tuple(q.input for q in queries)
    assert all([s.input for s in shots] == [p.input for p in pool[2::-1]] for shots, _ in asked)


def test_it_runs_and_repeats(pocket):
    own = task("country_continent", pocket)
    method = Choice(ks=(1, 3), draws=2, queries=6)
    found = method(pocket, own)
    assert found.conditions == tuple(WORDS.values())
    assert method(pocket, own).to_frame().equals(found.to_frame())
    assert set(found.comparisons(against=WORDS["random"])["condition"]) == set(WORDS.values()) - {
        WORDS["random"]
    }
    assert shows(found.figure(), found.to_frame().query("measure == 'accuracy'")["mean"])


def test_bad_input(pocket):
    for fields in ({"ways": ()}, {"ks": (0,)}, {"ks": ()}, {"draws": 0}, {"queries": 0}):
        with pytest.raises(InputError):
            Choice(**fields)
    with pytest.raises(PoolTooSmall):
        Choice(ks=(30,))(pocket, task("country_continent", pocket))
    with pytest.raises(PoolTooSmall):
        Choice(ks=(4,), pool=3)


def test_too_long_is_refused_before_states_are_read(tiny, no_forward):
    with pytest.raises(ContextTooShort):
        Choice(ks=(40,), ways=("states",))(tiny("gpt2"), TOPIC)
