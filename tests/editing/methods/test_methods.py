"""What holds of every editor; test_delta.py has what holds of the changes it hands out."""

import dataclasses
import json

import pytest
import torch

from editing import METHODS
from editing.edits.applying import applied
from labkit import pocket as world
from tests.editing.conftest import FAST
from tests.reference import full_logits


def test_every_method_is_held_to_these_laws():
    assert set(FAST) == set(METHODS)


DRAWS_NOTHING = {"ft", "ft_constrained"}
"""Methods that draw nothing where there is one rewrite: there is no batch to shuffle."""


# --- the editor ---------------------------------------------------------------------------


def test_the_call_leaves_the_model_alone(model, edit, rewrite, weights, changed):
    before = weights(model)
    delta = edit(model, rewrite)
    assert changed(model, before) == set()
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())
    assert delta.base == model.fingerprint
    assert delta.provenance["rewrites"][0]["target_new"] == "Rome"
    json.dumps(dict(delta.provenance))


def test_the_edited_model_says_something_else_and_only_the_named_weights_differ(
    model, edit, rewrite, weights, changed
):
    text = model.tokens([rewrite.prompt])
    before, said = weights(model), full_logits(model, text)
    delta = edit(model, rewrite)
    with applied(model, delta):
        assert changed(model, before) == set(delta.changes) != set()
        assert (full_logits(model, text) - said)[0, -1].abs().max() > 0.01
    assert changed(model, before) == set()
    assert torch.equal(full_logits(model, text), said)


def test_the_same_seed_gives_the_same_change(tiny, edit, name, method, rewrite):
    model = tiny("llama")
    first = edit(model, rewrite)
    assert edit(model, rewrite).digest == first.digest
    other = edit(model, rewrite, dataclasses.replace(method, seed=1))
    assert (other.digest != first.digest) == (name not in DRAWS_NOTHING)


def test_a_model_that_knows_the_fact_says_the_new_one(pocket, name):
    """With the method's own presets: the new object is the top answer, the old one was."""
    if name == "ft_constrained":
        pytest.skip("within the default ball no rewrite of the pocket model is reached")
    rewrite = world.demo_case().rewrite
    answers = [
        pocket.tokenizer.convert_tokens_to_ids(t) for t in (rewrite.target_new, rewrite.target_true)
    ]
    batch = pocket.tokens([rewrite.prompt])
    delta = METHODS[name]()(pocket, [rewrite])
    assert full_logits(pocket, batch)[0, -1].argmax() == answers[1]
    with applied(pocket, delta):
        assert full_logits(pocket, batch)[0, -1].argmax() == answers[0]
    assert full_logits(pocket, batch)[0, -1].argmax() == answers[1]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ValueError])
def test_an_interrupted_search_leaves_the_model_alone(
    model, edit, rewrite, weights, changed, interrupt
):
    before = weights(model)

    told = []

    def stop(what, share):
        told.append(share)
        if len(told) == 3:
            raise interrupt

    with pytest.raises(interrupt):
        edit(model, rewrite, progress=stop)
    assert told == sorted(told) and told[0] >= 0 and told[-1] <= 1
    assert changed(model, before) == set()
