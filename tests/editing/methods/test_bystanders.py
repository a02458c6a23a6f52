"""Bystanders are those whom a write leaks to most, and a search can be held to leave them."""

import dataclasses

import pytest
import torch

from editing.edits.applying import applied
from editing.edits.requests import grouped
from editing.methods.closed_form.bystanders import ALIKE, Bystander, pool_of
from editing.methods.closed_form.keys import contexts
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.value_search import Reach, ValueSearch
from editing.methods.closed_form.values import value_stars
from editing.methods.closed_form.writing import ffn_answer
from labkit.errors import InputError
from labkit.facts.fact import fill
from labkit.running.activations import patched
from labkit.running.logits import next_token_logits
from tests.reference import inputs_of

NAMES = ["dog", "old ship", "king", "red hen", "the cat", "moon"]


def keys_by_hand(model, layer, name):
    with inputs_of(model.ffn_proj(layer)) as seen, torch.no_grad():
        model.hf(torch.tensor([model.ids(name)]))
    return seen[0][0, -1]


def test_keys_are_those_of_the_names_alone(model):
    pool = pool_of(model, [0, 1], NAMES)
    assert sorted(pool.subjects) == sorted(NAMES)
    for layer in (0, 1):
        for name, key in zip(pool.subjects, pool.keys[layer], strict=True):
            torch.testing.assert_close(key, keys_by_hand(model, layer, name), rtol=1e-3, atol=1e-5)


def test_a_share_is_what_the_write_answers_their_key_with(model, rewrite, corpus):
    method = ROME(layer=1, n_contexts=3, search=ValueSearch(steps=3))
    prepared = method.prepare(model, corpus=corpus)
    pool = pool_of(model, [1], NAMES)
    delta = method(model, [rewrite], prepared=prepared)
    k_star = delta.memory["keys.1"].double()
    (near,) = pool.near(grouped([rewrite]), 1, prepared.metrics[1], k_star, 3)
    with applied(model, delta):
        after = ffn_answer(model, 1, torch.cat([k_star, pool.keys[1].double()]))
    moved = after - ffn_answer(model, 1, torch.cat([k_star, pool.keys[1].double()]))
    whole, shares = moved[0], {}
    for name, own in zip(pool.subjects, moved[1:], strict=True):
        shares[name] = float(own @ whole / whole.square().sum())
    for other in near:
        assert other.share == pytest.approx(shares[other.subject], rel=1e-3, abs=1e-5)
    del shares["the cat"]  # its name holds the edited one
    shares = {name: share for name, share in shares.items() if abs(share) <= ALIKE}
    strongest = sorted(shares, key=lambda name: -abs(shares[name]))[:3]
    assert [other.subject for other in near] == strongest


def test_what_is_said_of_bystanders_changes_less_when_they_are_held(tiny, rewrite, corpus):
    model = tiny("llama")
    near = (Bystander("dog", 0.5), Bystander("king", -0.4))
    search = ValueSearch(steps=12, bystander_push=1.0, bystander_factor=50.0, enough=1.0)
    before = contexts(corpus, 3, seed=0)
    free, held = (
        value_stars(model, grouped([rewrite]), 1, before, search, Reach(near=some))
        for some in ([], [near])
    )

    def distance(found):
        moved = 0.0
        for other in near:
            prompt = fill(rewrite.template, other.subject)
            last = model.span(prompt, other.subject).last

            def push(out, last=last, share=other.share):
                out = out.clone()
                out[:, last] += share * found.change[0]
                return out

            unedited = next_token_logits(model, [prompt]).log_softmax(-1)
            with patched(model, {("ffn_value", 1): push}):
                edited = next_token_logits(model, [prompt]).log_softmax(-1)
            moved += float((unedited.exp() * (unedited - edited)).sum())
        return moved

    assert distance(held) < 0.5 * distance(free)


def test_fewer_than_none_are_refused():
    with pytest.raises(InputError, match="bystanders"):
        ValueSearch(bystanders=-1)
    assert dataclasses.replace(ValueSearch()).bystanders == 0
    assert Bystander("dog", 0.1).share == 0.1
