"""MEMIT solves its normal equations in every layer, and the last layer takes what is left."""

import dataclasses

import numpy as np
import pytest
import torch

from editing.edits.applying import applied
from editing.edits.delta import WeightDelta
from editing.edits.requests import grouped, requests_of
from editing.methods.closed_form.keys import group_keys, subject_states
from editing.methods.closed_form.memit import MEMIT
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.closed_form.values import value_stars
from labkit.text.moments import RIDGE
from tests.reference import full_run

SEARCH = ValueSearch(steps=4)
METHOD = MEMIT(layers=(0, 1), n_contexts=3, search=SEARCH)
LIGHT = 1e-7
"""A weight of the rest at which rewrites are met all but exactly."""


def values_as_rows(model, delta, layer):
    dense = delta.changes[model.ffn_out_name(layer)].dense().double()
    return dense.T if model.ffn_out_transposed(layer) else dense


def part_of(model, delta, layers):
    names = [model.ffn_out_name(layer) for layer in layers]
    return WeightDelta({name: delta.changes[name] for name in names}, delta.base)


@torch.no_grad()
def streams(model, rewrites, layer):
    """The residual stream leaving a block at the bare subject's last token, by Hugging Face."""
    found = []
    for rewrite in rewrites:
        last = model.span(rewrite.prompt, rewrite.subject, at=rewrite.subject_start).last
        out = full_run(model, model.tokens([rewrite.prompt]), output_hidden_states=True)
        found.append(out.hidden_states[layer + 1][0, last])
    return torch.stack(found)


# --- one layer ----------------------------------------------------------------------------


def test_one_fact_in_one_layer_is_romes_change_when_the_rest_weighs_nothing(model, rewrite, corpus):
    shared = {"n_contexts": 3, "bare_weight": 1.0, "search": SEARCH}
    rome, memit = (
        editor(model, [rewrite], prepared=editor.prepare(model, corpus=corpus))
        for editor in (ROME(layer=1, **shared), MEMIT(layers=(1,), weight=LIGHT, **shared))
    )
    for name, change in rome.changes.items():
        scale = change.dense().abs().max()
        torch.testing.assert_close(
            memit.changes[name].dense(), change.dense(), rtol=0, atol=1e-4 * scale
        )


def test_the_heavier_the_rest_the_less_is_met(tiny, rewrite, corpus):
    """With one key, the share that it is given falls from one to nothing."""
    model = tiny("gpt2")
    met = []
    for weight in (1e-6, 0.1, 10.0, 1e4):
        editor = MEMIT(layers=(1,), n_contexts=3, search=SEARCH, weight=weight)
        prepared = editor.prepare(model, corpus=corpus)
        delta = editor(model, [rewrite], prepared=prepared)
        keys = group_keys(model, grouped([rewrite]), 1, prepared.contexts, editor.bare_weight)
        found = value_stars(model, grouped([rewrite]), 1, prepared.contexts, SEARCH)
        answer = (keys @ values_as_rows(model, delta, 1))[0]
        met.append(float(answer.norm() / found.change[0].norm()))
    assert met == sorted(met, reverse=True)
    assert met[0] == pytest.approx(1, abs=1e-3) and met[-1] < 0.01


# --- several layers -----------------------------------------------------------------------


def test_the_normal_equations_hold_in_every_layer(model, rewrites, corpus):
    """`(lambda C + K^T K) D = K^T R`, keys and residuals measured with what came before."""
    prepared = METHOD.prepare(model, corpus=corpus)
    delta = METHOD(model, rewrites, prepared=prepared)
    groups, contexts = grouped(rewrites), prepared.contexts
    change = value_stars(model, groups, 1, contexts, SEARCH).change
    start = averaged_streams(model, groups, contexts)
    for number, layer in enumerate(METHOD.layers):
        with applied(model, part_of(model, delta, METHOD.layers[:number])):
            keys = group_keys(model, groups, layer, contexts, METHOD.bare_weight).numpy()
            moved = averaged_streams(model, groups, contexts) - start
        residuals = ((change - moved) / (2 - number)).double().numpy()
        C = prepared.moments[layer].matrix.numpy()
        C = METHOD.weight * len(C) * (C + RIDGE * np.diag(C).mean() * np.eye(len(C)))
        D = values_as_rows(model, delta, layer).numpy()
        wanted = keys.T @ residuals
        np.testing.assert_allclose(
            (C + keys.T @ keys) @ D, wanted, atol=1e-4 * np.abs(wanted).max()
        )


def averaged_streams(model, groups, contexts):
    """The stream leaving block 1, averaged as keys are."""
    spot = ("resid_post", 1)
    states = subject_states(model, requests_of(groups), [spot], contexts)[spot].double()
    weight = METHOD.bare_weight
    mixed = weight * states[:, 0] + (1 - weight) * states.mean(dim=1)
    sizes = [len(group.requests) for group in groups]
    return torch.stack([part.mean(dim=0) for part in mixed.split(sizes)])


def test_the_last_layer_takes_what_is_left(model, rewrites, corpus):
    """All layers written, the stream behind the last is where the search wanted it."""
    some = [rewrites[0], rewrites[1], rewrites[3]]
    editor = dataclasses.replace(METHOD, n_contexts=2, bare_weight=1.0, weight=LIGHT)
    prepared = editor.prepare(model, corpus=corpus)
    change = value_stars(model, grouped(some), 1, prepared.contexts, SEARCH).change
    delta = editor(model, some, prepared=prepared)
    before = streams(model, some, 1)
    with applied(model, part_of(model, delta, [0])):
        half = streams(model, some, 1) - before
    with applied(model, delta):
        whole = streams(model, some, 1) - before
    torch.testing.assert_close(whole, change, rtol=0, atol=1e-3 * change.abs().max())
    assert (half - change).norm() > 0.1 * change.norm()


def test_the_first_layer_is_handed_its_share(model, rewrites, corpus):
    prepared = METHOD.prepare(model, corpus=corpus)
    light = dataclasses.replace(METHOD, weight=LIGHT)
    delta = light(model, rewrites, prepared=light.prepare(model, corpus=corpus))
    groups = grouped(rewrites)
    keys = group_keys(model, groups, 0, prepared.contexts, METHOD.bare_weight)
    change = value_stars(model, groups, 1, prepared.contexts, SEARCH).change
    answer = keys @ values_as_rows(model, delta, 0)
    torch.testing.assert_close(answer, change.double() / 2, rtol=0, atol=1e-3 * change.abs().max())


def test_what_was_missing_is_reported(tiny, rewrites, corpus):
    delta = METHOD(tiny("gpt2"), rewrites, prepared=METHOD.prepare(tiny("gpt2"), corpus=corpus))
    missing = delta.provenance["missing_before"]
    assert missing[0] == 1.0 and 0 < missing[1] < 2


# --- the boundary -------------------------------------------------------------------------


def test_the_boundary_is_the_first_and_the_last_layer_each_with_its_search(model, rewrites, corpus):
    editor = MEMIT(layers=(0, 1, 2), spread="boundary", n_contexts=3, weight=LIGHT, search=SEARCH)
    prepared = editor.prepare(model, corpus=corpus)
    delta = editor(model, rewrites, prepared=prepared)
    assert set(delta.changes) == {model.ffn_out_name(0), model.ffn_out_name(2)}
    groups = grouped(rewrites)
    for layer, before in ((0, []), (2, [0])):
        with applied(model, part_of(model, delta, before)):
            found = value_stars(model, groups, layer, prepared.contexts, SEARCH)
            keys = group_keys(model, groups, layer, prepared.contexts, editor.bare_weight)
        answer = keys @ values_as_rows(model, delta, layer)
        torch.testing.assert_close(
            answer, found.change.double(), rtol=0, atol=1e-3 * found.change.abs().max()
        )
