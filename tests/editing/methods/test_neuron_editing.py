"""Exactly the neurons that were found change, by exactly the vectors that were asked for."""

import dataclasses
from functools import cache

import pytest
import torch

from editing.edits.applying import applied
from editing.methods.neuron_editing import KnowledgeNeuronEditing, activations
from labkit import pocket as world
from labkit.errors import ContradictoryRewrites, EmptyTarget, InputError
from labkit.facts.bundled import bundled_facts
from labkit.facts.fact import Deletion, Fact, Rewrite
from labkit.locate import KnowledgeNeurons
from tests.reference import full_logits, inputs_of

LOCATOR = KnowledgeNeurons(steps=3)
METHOD = KnowledgeNeuronEditing(
    remove=2.0, add=5.0, n_neurons=4, specific=0.0, n_contexts=3, locator=LOCATOR
)


@pytest.fixture
def prepare(corpus):
    return cache(lambda model: METHOD.prepare(model, corpus=corpus))


@pytest.fixture
def family_prepared(model, prepare):
    return prepare(model)


@pytest.fixture
def llama_prepared(tiny, prepare):
    return prepare(tiny("llama"))


def added(model, delta):
    """What is added to the values, by layer and neuron: `[d_model]` each."""
    rows = {}
    for layer in range(model.n_layers):
        change = delta.changes.get(model.ffn_out_name(layer))
        if change is not None:
            values = change.dense().T if model.ffn_out_transposed(layer) else change.dense()
            changed = values.abs().amax(dim=1).nonzero()[:, 0].tolist()
            rows |= {(layer, neuron): values[neuron] for neuron in changed}
    return rows


def token(model, text):
    return model.tokenizer(" " + text, add_special_tokens=False).input_ids[0]


def key_at_the_end(model, layer, prompt):
    with torch.no_grad(), inputs_of(model.ffn_proj(layer)) as seen:
        full_logits(model, model.tokens([prompt]))
    return seen[0][0, -1]


def test_the_neurons_found_get_the_new_object_for_the_old(model, rewrite, family_prepared):
    delta = METHOD(model, [rewrite], prepared=family_prepared)
    (neurons,) = delta.provenance["neurons"]
    rows = added(model, delta)
    assert sorted(rows) == sorted(map(tuple, neurons)) and len(neurons) == 4
    unembed = model.unembed.weight
    towards = 5 * unembed[token(model, "Rome")] - 2 * unembed[token(model, "the")]
    for (layer, neuron), row in rows.items():
        sign = key_at_the_end(model, layer, rewrite.prompt)[neuron].sign()
        torch.testing.assert_close(row, sign * towards)


def test_they_are_those_that_the_locator_keeps_in_the_most_contexts(tiny, rewrite, llama_prepared):
    model = tiny("llama")
    (neurons,) = METHOD(model, [rewrite], prepared=llama_prepared).provenance["neurons"]
    behind = tuple(f"{context} {rewrite.template}" for context in llama_prepared.contexts[1:])
    fact = Fact(subject="cat", template=rewrite.template, object="the house", paraphrases=behind)
    found = LOCATOR(model, fact).to_frame()
    found = found.sort_values(["share", "mean"], ascending=False).head(4)
    assert [tuple(at) for at in neurons] == list(zip(found.layer, found.neuron, strict=True))


def test_neurons_that_are_as_active_elsewhere_are_left_alone(model, rewrite, family_prepared):
    """Told by full runs of the prompts of other facts; where none is specific, the closest."""

    def found(specific):
        method = dataclasses.replace(METHOD, specific=specific, n_neurons=10**6)
        (neurons,) = method(model, [rewrite], prepared=family_prepared).provenance["neurons"]
        return {tuple(at) for at in neurons}

    def ratio(layer, neuron):
        here = key_at_the_end(model, layer, rewrite.prompt)[neuron].abs()
        return (here / family_prepared.usual[layer, neuron]).item()

    everyone = found(0.0)
    ratios = {at: ratio(*at) for at in everyone}
    middle = sorted(ratios.values())[len(ratios) // 2] * 1.001
    assert found(middle) == {at for at in everyone if ratios[at] >= middle} != everyone
    assert found(1e9) == {max(everyone, key=ratios.get)}
    few = [fact.prompt for fact in bundled_facts()[:3]]
    alone = torch.stack([key_at_the_end(model, 1, prompt) for prompt in few])
    torch.testing.assert_close(activations(model, few)[:, 1], alone, rtol=1e-4, atol=1e-5)


def test_a_push_towards_the_object_whatever_the_sign(model, rewrite, family_prepared):
    """Only the unembedding's own norm is between: the new object gains on the old one."""
    delta = dataclasses.replace(METHOD, add=3.0, remove=3.0, n_neurons=10)(
        model, [rewrite], prepared=family_prepared
    )
    batch = model.tokens([rewrite.prompt])
    ids = [token(model, "Rome"), token(model, "the")]
    before = full_logits(model, batch)[0, -1, ids]
    with applied(model, delta):
        after = full_logits(model, batch)[0, -1, ids]
    assert after[0] - after[1] > before[0] - before[1]


def test_several_rewrites_add_up(tiny, rewrite, llama_prepared):
    """A neuron that serves both gets both vectors."""
    model = tiny("llama")
    other = Rewrite(
        subject="dog", template="the {} is in", target_new="a garden", target_true="the house"
    )
    one, two = (added(model, METHOD(model, [r], prepared=llama_prepared)) for r in (rewrite, other))
    both = added(model, METHOD(model, [rewrite, other], prepared=llama_prepared))
    assert set(both) == set(one) | set(two) and set(one) & set(two)
    zero = torch.zeros(model.d_model)
    for at, row in both.items():
        torch.testing.assert_close(row, one.get(at, zero) + two.get(at, zero))


def test_without_an_old_object_it_is_what_the_model_says(pocket):
    rewrite = world.demo_case().rewrite
    unnamed = dataclasses.replace(rewrite, target_true=None)
    one, two = (METHOD(pocket, [r]) for r in (rewrite, unnamed))
    assert one.digest == two.digest


def test_what_has_no_neurons_to_change_is_refused(tiny, rewrite, llama_prepared):
    model = tiny("llama")
    for wrong in ({"n_neurons": 0}, {"n_contexts": 0}, {"add": -1.0}, {"remove": -1.0}):
        with pytest.raises(InputError, match="at least 0"):
            KnowledgeNeuronEditing(**wrong)
    with pytest.raises(InputError, match="cannot delete"):
        METHOD(model, [Deletion(subject="cat", template="the {} is", target_true="here")])
    with pytest.raises(ContradictoryRewrites):
        METHOD(model, [rewrite, dataclasses.replace(rewrite, target_new="Paris")])
    wrong = dataclasses.replace(rewrite)
    object.__setattr__(wrong, "target_new", " ")
    with pytest.raises(EmptyTarget):
        METHOD(model, [wrong], prepared=llama_prepared)
