"""PMET searches in attention and FFN, and writes the FFN's part."""

import pytest
import torch

from editing.edits.applying import applied
from editing.edits.requests import grouped
from editing.methods.closed_form.keys import group_keys
from editing.methods.closed_form.pmet import PMET
from editing.methods.closed_form.value_search import Reach, ValueSearch
from editing.methods.closed_form.values import value_stars
from tests.reference import full_run, outputs_of

SEARCH = ValueSearch(steps=4)
METHOD = PMET(layers=(0, 1), n_contexts=2, bare_weight=1.0, weight=1e-7, search=SEARCH)


@pytest.fixture
def some(rewrites):
    return [rewrites[0], rewrites[1], rewrites[3]]


@torch.no_grad()
def answers(model, rewrites, layer):
    """What the FFN's projection answers at the bare subject's last token, by a full run."""
    found = []
    for rewrite in rewrites:
        last = model.span(rewrite.prompt, rewrite.subject, at=rewrite.subject_start).last
        with outputs_of(model.ffn_proj(layer)) as seen:
            full_run(model, model.tokens([rewrite.prompt]))
        found.append(seen[0][0, last])
    return torch.stack(found)


def test_the_last_layers_ffn_answers_as_the_search_wanted(model, some, corpus):
    prepared = METHOD.prepare(model, corpus=corpus)
    delta = METHOD(model, some, prepared=prepared)
    sites = ("ffn_value", "attn_out")
    found = value_stars(model, grouped(some), 1, prepared.contexts, SEARCH, Reach(sites=sites))
    with applied(model, delta):
        answered = answers(model, some, 1)
    scale = found.change.abs().max()
    torch.testing.assert_close(answered, found.v_star, rtol=0, atol=1e-3 * scale)


def test_attention_takes_a_part_that_is_not_written(model, some, corpus):
    prepared = METHOD.prepare(model, corpus=corpus)
    delta = METHOD(model, some, prepared=prepared)
    assert set(delta.changes) == {model.ffn_out_name(0), model.ffn_out_name(1)}
    both, alone = (
        value_stars(model, grouped(some), 1, prepared.contexts, SEARCH, Reach(sites=sites)).change
        for sites in (("ffn_value", "attn_out"), ("ffn_value",))
    )
    assert (both - alone).norm() > 0.01 * alone.norm()


def test_a_layer_takes_the_square_root_share(model, some, corpus):
    prepared = METHOD.prepare(model, corpus=corpus)
    delta = METHOD(model, some, prepared=prepared)
    sites = ("ffn_value", "attn_out")
    change = value_stars(
        model, grouped(some), 1, prepared.contexts, SEARCH, Reach(sites=sites)
    ).change
    dense = delta.changes[model.ffn_out_name(0)].dense().double()
    keys = group_keys(model, grouped(some), 0, prepared.contexts, 1.0)
    answer = keys @ (dense.T if model.ffn_out_transposed(0) else dense)
    torch.testing.assert_close(
        answer, change.double() / 2**0.5, rtol=0, atol=1e-3 * change.abs().max()
    )
