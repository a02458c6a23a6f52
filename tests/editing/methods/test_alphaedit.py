"""AlphaEdit changes no answer to the keys that occur, nor to those of earlier edits."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from editing.edits.applying import applied
from editing.edits.requests import grouped
from editing.methods.closed_form.alphaedit import AlphaEdit
from editing.methods.closed_form.keys import group_keys
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.solve import null_space
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.closed_form.values import value_stars
from labkit.errors import InputError
from labkit.models.loading import wrap
from labkit.text.moments import second_moments
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


@pytest.fixture
def massive(tiny, corpus):
    """A model in which one neuron of layer 1 answers one word, a thousand times as loud as any."""
    base = tiny("gpt2")
    hf = copy.deepcopy(base.hf)
    model = wrap(hf, base.tokenizer, name="massive", check=False)
    batch = model.tokens(corpus.sentences(max_words=10)[:50])
    word = int(batch.ids[batch.mask].mode().values)
    reads = hf.transformer.h[1].mlp.c_fc
    with inputs_of(reads) as seen, torch.no_grad():
        full_run(model, batch)
    here = (batch.ids == word) & batch.mask
    own, others = seen[0][here], seen[0][batch.mask & ~here]
    direction = own.mean(dim=0) - others.mean(dim=0)
    low, high = (others @ direction).max(), (own @ direction).quantile(0.9)
    with torch.no_grad():
        # What a GELU lets through: nothing below `low`, 1000 for the loudest of the word's.
        reads.weight[:, 7] = 1000 * direction / (high - low)
        reads.bias[7] = -1000 * low / (high - low)
    return wrap(hf, base.tokenizer, name="massive", check=False)


def test_a_massive_activation_does_not_decide_what_is_ordinary(massive, corpus):
    """It holds the trace of C as the keys are; ordinary keys lie outside all the same."""
    method = dataclasses.replace(METHOD, threshold=0.1)
    prepared = method.prepare(massive, corpus=corpus)
    naive = second_moments(massive, [1], corpus)[1]
    assert naive.matrix[7, 7] > 0.9 * naive.matrix.trace()
    batch = massive.tokens(corpus.sentences(max_words=10)[50:100])
    with inputs_of(massive.ffn_proj(1)) as seen, torch.no_grad():
        full_run(massive, batch)
    keys = seen[0][batch.mask].double()
    ordinary = keys[keys[:, 7].abs() < 10 * keys.norm(dim=1).median()]
    assert len(ordinary) > 50

    def inside(metric):
        part = metric.solve(ordinary) * metric.scale
        return float((part.square().sum(1) / ordinary.square().sum(1)).median())

    d_mlp = massive.d_mlp
    assert inside(null_space(naive, 0.1)) > 0.9  # as the keys are, everything is called null
    metric = prepared.metrics[1]
    assert inside(metric) < 0.2 and metric.dimension < 0.9 * d_mlp


def test_a_null_space_of_nearly_everything_is_remarked_upon(massive, corpus, rewrites, caplog):
    naive = second_moments(massive, [1], corpus)[1]
    assert null_space(naive, 0.1).dimension > 0.9 * massive.d_mlp
    assert "of layer 1" in caplog.text and "protects little" in caplog.text
    caplog.clear()
    prepared = METHOD.prepare(massive, corpus=corpus)
    assert "protects little" not in caplog.text
    said = METHOD(massive, rewrites[:1], prepared=prepared).provenance["directions_of_change"]
    assert said == {"1": prepared.metrics[1].dimension}


@pytest.mark.slow
def test_the_first_layers_of_the_default_model_are_not_nearly_all_null(smollm2):
    """Layer 2 was, with 1535 of 1536 directions: first tokens there have a massive activation."""
    layers = AlphaEdit().layers_for(smollm2)[:2]
    metrics = AlphaEdit(layers=layers).prepare(smollm2).metrics
    assert 2 in metrics
    sizes = [m.dimension for m in metrics.values()]
    assert all(0.2 * smollm2.d_mlp < size < 0.6 * smollm2.d_mlp for size in sizes), sizes
