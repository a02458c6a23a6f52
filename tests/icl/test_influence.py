"""Leaving out is scoring without; attribution is Hugging Face's own gradient and attention."""

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from labkit.errors import AmbiguousLabels, InputError, PoolTooSmall
from labkit.icl import Item, Shot, Task, render, task, write
from labkit.icl.inside.influence import Influence, attention_shares, gradient_shares, over_tokens
from labkit.icl.inside.influence_result import InfluenceResult
from tests.reference import shows

METHOD = Influence(k=4, sets=2, queries=5)


@pytest.fixture(scope="module")
def found(pocket):
    return METHOD(pocket, task("person_company", pocket))


def shots_of(found, number):
    return [Shot(input=text, label=label) for text, label in found.shown[number]]


def test_leaving_out_is_scoring_without(pocket, found):
    own, number, query = task("person_company", pocket), 1, 3
    shots, right = shots_of(found, number), pocket.ids(found.gold[query])[1]

    def scored(some):
        ids = torch.tensor([pocket.ids(write(own.template, some, found.queries[query]))])
        with torch.no_grad():
            return pocket.hf(input_ids=ids).logits[0, -1].log_softmax(dim=-1)[right].item()

    assert found.full[number, query] == pytest.approx(scored(shots), abs=1e-4)
    for place in range(4):
        without = scored(shots[:place] + shots[place + 1 :])
        assert found.left_out[number, query, place] == pytest.approx(without, abs=1e-4)
        expected = scored(shots) - without
        assert found.influence[number, query, place] == pytest.approx(expected, abs=2e-4)


def rendered(model, own, found, number):
    shots = shots_of(found, number)
    return [render(model, own.template, shots, text) for text in found.queries]


def test_gradients_are_hugging_faces(pocket, found):
    own = task("person_company", pocket)
    prompts = rendered(pocket, own, found, 0)
    right = [pocket.ids(label)[1] for label in found.gold]
    whole = gradient_shares(pocket, prompts, right)
    np.testing.assert_allclose(whole, gradient_shares(pocket, prompts, right, memory=1), atol=1e-6)
    np.testing.assert_allclose(whole, found.gradient[0], atol=1e-6)
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([prompt.ids])
        embeds = pocket.hf.get_input_embeddings()(ids).detach().requires_grad_()
        logits = pocket.hf(inputs_embeds=embeds).logits[0, -1]
        (slope,) = torch.autograd.grad(logits.log_softmax(dim=-1)[right[row]], embeds)
        by_token = (slope * embeds).sum(dim=-1)[0].detach()
        for place, shot in enumerate(prompt.shots):
            stop = prompt.shots[place + 1].whole.start if place < 3 else prompt.query.start
            expected = by_token[shot.whole.start : stop].sum().item()
            assert whole[row, place] == pytest.approx(expected, abs=1e-5)


def test_attention_is_hugging_faces(pocket, found):
    prompts = rendered(pocket, task("person_company", pocket), found, 0)[:2]
    eager = copy.deepcopy(pocket.hf)
    eager.set_attn_implementation("eager")
    for row, prompt in zip(attention_shares(pocket, prompts), prompts, strict=True):
        with torch.no_grad():
            seen = eager(input_ids=torch.tensor([prompt.ids]), output_attentions=True).attentions
        weights = torch.stack(seen)[:, 0, :, -1].mean(dim=(0, 1))
        starts = [shot.whole.start for shot in prompt.shots] + [prompt.query.start]
        assert starts[0] == 1  # behind the BOS, which is the sink
        expected = [weights[a:b].sum().item() for a, b in pairwise(starts)]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_of_every_family(model):
    words = "rain sun moon red blue day night sea".split()
    items = tuple(Item(input=word, label=("of", "in")[i % 2]) for i, word in enumerate(words))
    own = Task(name="small", items=items, source="s")
    result = Influence(k=3, sets=1, queries=2)(model, own)
    assert np.isfinite(result.gradient).all() and (result.attention > 0).all()
    assert (result.attention.sum(axis=-1) < 1).all()
    shots = [Shot(input=text, label=label) for text, label in result.shown[0]]
    prompt = render(model, own.template, shots, result.queries[0])
    ones = torch.ones(len(prompt.ids) + 3, dtype=torch.float64)  # padded by 3 on the left
    tokens = prompt.query.start - prompt.shots[0].whole.start
    assert over_tokens(ones, prompt).sum() == tokens


def made(full, left_out, gradient, attention):
    """A result from given numbers."""
    n_sets, n_queries, k = left_out.shape
    return InfluenceResult(
        model="m", fingerprint="f", task="t", source="s",
        queries=tuple(map(str, range(n_queries))), gold=("a",) * n_queries,
        shown=((("x", "a"),) * k,) * n_sets, seed=0,
        full=full, left_out=left_out, gradient=gradient, attention=attention,
    )  # fmt: skip


def test_numbers_follow_from_the_scores():
    draw = np.random.default_rng(0)
    influence = draw.normal(size=(2, 6, 5))
    full = draw.normal(size=(2, 6))
    result = made(full, full[..., None] - influence, influence**3, np.ones_like(influence))
    table = result.agreement().set_index("reading")
    assert table.loc["gradient", "mean"] == pytest.approx(1.0)  # whatever keeps the order
    assert table.loc["attention", "mean"] == 0.0  # nothing is ranked
    by_scipy = [
        np.mean([spearmanr(influence[s, q], range(5)).statistic for s in range(2)])
        for q in range(6)
    ]
    assert table.loc["position", "mean"] == pytest.approx(np.mean(by_scipy))
    assert result.by_position()["mean"].tolist() == pytest.approx(influence.mean((0, 1)).tolist())
    frame = result.to_frame()
    assert len(frame) == 10 and frame["position"].tolist() == [1, 2, 3, 4, 5] * 2
    assert frame["influence"].tolist() == pytest.approx(influence.mean(axis=1).ravel().tolist())
    assert shows(result.figure(), influence.mean((0, 1)))


def test_the_same_seed_gives_the_same_table_and_another_another(pocket, found, tmp_path):
    own = task("person_company", pocket)
    assert METHOD(pocket, own).to_frame().equals(found.to_frame())
    assert not replace(METHOD, seed=1)(pocket, own).to_frame().equals(found.to_frame())
    found.save(tmp_path / "r")
    loaded = InfluenceResult.load(tmp_path / "r")
    assert loaded.to_frame().equals(found.to_frame()) and loaded.agreement().equals(
        found.agreement()
    )


@pytest.mark.parametrize(
    ("k", "labels", "error"),
    [(8, ("of", "in"), PoolTooSmall), (3, ("the a", "the b"), AmbiguousLabels)],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, k, labels, error):
    items = tuple(Item(input=word, label=labels[i % 2]) for i, word in enumerate("abcdefgh"))
    with pytest.raises(error):
        Influence(k=k)(tiny("llama"), Task(name="small", items=items, source="s"))


@pytest.mark.parametrize("fields", [{"k": 2}, {"sets": 0}, {"queries": 0}])
def test_impossible_settings(fields):
    with pytest.raises(InputError):
        Influence(**fields)
