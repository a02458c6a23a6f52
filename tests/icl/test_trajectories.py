"""At the last depth the lens is the model; in between it is labkit's own lens."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit import logit_lens
from labkit.errors import AmbiguousLabels, InputError, PoolTooSmall
from labkit.icl import Item, Shot, Task, task, write
from labkit.icl.asking.queries import drawn_shots
from labkit.icl.inside.trajectories import Trajectories, TrajectoriesResult
from tests.reference import shows

METHOD = Trajectories(ks=(0, 1, 4), draws=2, queries=6)


@pytest.fixture(scope="module")
def found(pocket):
    return METHOD(pocket, task("person_company", pocket))


def prompt_of(pocket, found, k, draw, query):
    """The text of one cell, from the method's own draw."""
    own = task("person_company", pocket)
    queries, pool = own.queries_and_pool(METHOD.queries, 4, seed=0)
    items = drawn_shots(pool, 4, 0, "icl depths", own.name, draw)
    assert queries[query].input == found.queries[query]
    shots = [Shot(input=item.input, label=item.label) for item in items[:k]]
    return write(own.template, shots, queries[query].input)


@pytest.mark.parametrize(("k", "draw"), [(0, 0), (1, 1), (4, 1)])
def test_at_the_last_depth_the_lens_is_the_model(pocket, found, k, draw):
    for query in range(METHOD.queries):
        ids = torch.tensor([pocket.ids(prompt_of(pocket, found, k, draw, query))])
        with torch.no_grad():
            log_probs = pocket.hf(input_ids=ids).logits[0, -1].log_softmax(dim=-1)
        right = pocket.ids(found.gold[query])[1]
        labels = [pocket.ids(label)[1] for label in task("person_company", pocket).labels]
        gold, wrong, rank, mass = found.readings[:, METHOD.ks.index(k), draw, -1, query]
        assert gold == pytest.approx(log_probs[right].item(), abs=1e-4)
        assert rank == (log_probs > log_probs[right]).sum().item()
        assert mass == pytest.approx(log_probs[labels].exp().sum().item(), abs=1e-4)
        others = [log_probs[token].item() for token in labels if token != right]
        assert min(abs(wrong - other) for other in others) < 1e-4


def test_in_between_it_is_the_labs_own_lens(pocket, found):
    lens = logit_lens(pocket, prompt_of(pocket, found, 4, 0, 2), answer=found.gold[2])
    gold, _, rank, _ = found.readings[:, 2, 0, :, 2]
    np.testing.assert_allclose(np.exp(gold), lens.answer_probability[:, -1], atol=1e-5)
    np.testing.assert_array_equal(rank, lens.answer_rank[:, -1])


def test_of_every_family_the_last_depth_is_the_output(model):
    words = "rain sun moon red blue day night sea".split()
    items = tuple(Item(input=word, label=("of", "in")[i % 2]) for i, word in enumerate(words))
    own = Task(name="small", items=items, source="s")
    result = Trajectories(ks=(0, 2), draws=1, queries=3)(model, own)
    for query, gold in zip(result.queries, result.gold, strict=True):
        ids = model.ids(own.template.query.replace("{input}", query))
        full = model.ids(own.template.query.replace("{input}", query) + f" {gold}")
        with torch.no_grad():
            log_probs = model.hf(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)
        got = result.readings[0, 0, 0, -1, result.queries.index(query)]
        assert got == pytest.approx(log_probs[full[len(ids)]].item(), abs=1e-4)


def test_numbers_follow_from_the_readings(found):
    assert np.array_equal(found.readings[:, 0, 0], found.readings[:, 0, 1])  # nothing to draw
    frame = found.to_frame().set_index(["reading", "k", "layer"])
    own = found.readings[0, 1, :, 2].mean()
    assert frame.loc[("gold", 1, 2), "mean"] == pytest.approx(own)
    ranks = np.exp(np.log1p(found.readings[2, 1, :, 2]).mean())
    assert frame.loc[("rank", 1, 2), "mean"] == pytest.approx(ranks)
    apart = found.readings[0, 2, :, -1].mean() - found.readings[1, 2, :, -1].mean()
    assert found.parting(4)["mean"].iloc[-1] == pytest.approx(apart)
    assert found.at_last("gold", 4).mean == pytest.approx(found.readings[0, 2, :, -1].mean())
    with pytest.raises(InputError):
        found.values("gold", 3)
    with pytest.raises(InputError):
        found.values("silver", 4)


def test_the_same_seed_gives_the_same_table_and_another_another(pocket, found, tmp_path):
    own = task("person_company", pocket)
    assert METHOD(pocket, own).to_frame().equals(found.to_frame())
    assert not replace(METHOD, seed=1)(pocket, own).to_frame().equals(found.to_frame())
    found.save(tmp_path / "r")
    loaded = TrajectoriesResult.load(tmp_path / "r")
    assert loaded.to_frame().equals(found.to_frame())
    assert shows(loaded.figure(), found.to_frame().query("reading == 'gold'")["mean"])


def small(labels):
    items = tuple(Item(input=word, label=labels[i % 2]) for i, word in enumerate("abcd"))
    return Task(name="small", items=items, source="s")


@pytest.mark.parametrize(
    ("ks", "labels", "error"),
    [((0, 4), ("of", "in"), PoolTooSmall), ((0,), ("the a", "the b"), AmbiguousLabels)],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, ks, labels, error):
    with pytest.raises(error):
        Trajectories(ks=ks)(tiny("llama"), small(labels))


@pytest.mark.parametrize("fields", [{"ks": ()}, {"ks": (2, 1)}, {"ks": (-1,)}, {"draws": 0}])
def test_impossible_settings(fields):
    with pytest.raises(InputError):
        Trajectories(**fields)
