"""AlphaEdit changes no answer to the keys that occur, nor to those of earlier edits."""

import dataclasses

import numpy as np
import pytest
import torch

from editing.edits.delta import applied
from editing.edits.requests import grouped
from editing.methods.closed_form.alphaedit import AlphaEdit
from editing.methods.closed_form.keys import group_keys
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.values import ValueSearch, value_stars
from labkit.errors import InputError
from tests.reference import full_run, inputs_of

SEARCH = ValueSearch(steps=4)
METHOD = AlphaEdit(layers=(1,), threshold=0.1, n_contexts=3, search=SEARCH)


@pytest.fixture
def prepared(model, corpus):
    return METHOD.prepare(model, corpus=corpus)


def values_as_rows(model, delta, layer=1):
    dense = delta.changes[model.ffn_out_name(layer)].dense().double()
    return (dense.T if model.ffn_out_transposed(layer) else dense).numpy()


def directions(moment, threshold):
    """Eigenvectors of `C`: those in which a change is allowed, and the others."""
    held, vectors = np.linalg.eigh(moment.matrix.numpy())
    n = int((np.cumsum(held) <= threshold * held.sum()).sum())
    return vectors[:, :n], vectors[:, n:]


def test_keys_made_of_the_usual_directions_are_answered_as_before(model, rewrites, prepared):
    D = values_as_rows(model, METHOD(model, rewrites, prepared=prepared))
    free, usual = directions(prepared.moments[1], METHOD.threshold)
    keys = np.random.default_rng(0).normal(size=(10, usual.shape[1])) @ usual.T
    assert np.abs(keys @ D).max() < 1e-6 * np.linalg.norm(D) * np.linalg.norm(keys, axis=1).max()
    assert np.abs(free.T @ D).max() > 1e-3


def test_on_running_text_the_rest_is_answered_almost_as_before(tiny, rewrites, corpus):
    """Of the squared answers of a change, what is confined leaves less on the corpus."""
    model = tiny("gpt2")
    batch = model.tokens(corpus.sentences(max_words=10)[:50])
    with inputs_of(model.ffn_proj(1)) as seen, torch.no_grad():
        full_run(model, batch)
    keys = seen[0][batch.mask].double().numpy()
    sizes = []
    for threshold in (0.1, 1.0):
        editor = dataclasses.replace(METHOD, threshold=threshold)
        delta = editor(model, rewrites, prepared=editor.prepare(model, corpus=corpus))
        sizes.append(np.square(keys @ values_as_rows(model, delta)).sum())
    assert sizes[0] < 0.5 * sizes[1]


def test_the_normal_equations_hold_in_the_allowed_directions(model, rewrites, prepared, corpus):
    """`(lambda I + (K B)^T (K B)) X = (K B)^T R`, and `D = B X`."""
    D = values_as_rows(model, METHOD(model, rewrites, prepared=prepared))
    groups, contexts = grouped(rewrites), prepared.contexts
    keys = group_keys(model, groups, 1, contexts, METHOD.bare_weight).numpy()
    residuals = value_stars(model, groups, 1, contexts, SEARCH).change.double().numpy()
    B, _ = directions(prepared.moments[1], METHOD.threshold)
    held = np.trace(B.T @ prepared.moments[1].matrix.numpy() @ B)
    inside = keys @ B
    left = METHOD.weight * held * np.eye(B.shape[1]) + inside.T @ inside
    wanted = inside.T @ residuals
    np.testing.assert_allclose(left @ (B.T @ D), wanted, atol=1e-4 * np.abs(wanted).max())


def test_in_the_whole_space_it_is_rome_without_a_covariance(model, rewrite, corpus):
    """One fact, one layer, lambda -> 0."""
    shared = {"n_contexts": 3, "bare_weight": 1.0, "search": SEARCH}
    rome, alpha = (
        editor(model, [rewrite], prepared=editor.prepare(model, corpus=corpus))
        for editor in (
            ROME(layer=1, covariance=False, **shared),
            AlphaEdit(layers=(1,), threshold=1.0, weight=1e-8, **shared),
        )
    )
    for name, change in rome.changes.items():
        scale = change.dense().abs().max()
        torch.testing.assert_close(
            alpha.changes[name].dense(), change.dense(), rtol=0, atol=1e-4 * scale
        )


def test_earlier_keys_enter_the_normal_equations(model, rewrites, prepared):
    """`(lambda I + (K_p B)^T (K_p B) + (K B)^T (K B)) X = (K B)^T R`."""
    first = METHOD(model, rewrites[:1], prepared=prepared)
    groups, contexts = grouped(rewrites[3:]), prepared.contexts
    with applied(model, first):
        D = values_as_rows(model, METHOD(model, rewrites[3:], prepared=prepared, after=first))
        keys = group_keys(model, groups, 1, contexts, METHOD.bare_weight).numpy()
        residuals = value_stars(model, groups, 1, contexts, SEARCH).change.double().numpy()
    B, _ = directions(prepared.moments[1], METHOD.threshold)
    held = np.trace(B.T @ prepared.moments[1].matrix.numpy() @ B)
    inside, earlier = keys @ B, first.memory["keys.1"].double().numpy() @ B
    left = METHOD.weight * held * np.eye(B.shape[1]) + earlier.T @ earlier + inside.T @ inside
    wanted = inside.T @ residuals
    np.testing.assert_allclose(left @ (B.T @ D), wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_threshold_that_means_nothing_is_refused(tiny, corpus):
    for threshold in (0.0, 1.1):
        with pytest.raises(InputError, match="share of the trace"):
            AlphaEdit(threshold=threshold)
    with pytest.raises(InputError, match="leaves no direction"):
        dataclasses.replace(METHOD, threshold=1e-9).prepare(tiny("gpt2"), corpus=corpus)
