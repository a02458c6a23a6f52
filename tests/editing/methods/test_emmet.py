"""EMMET answers every key with its value, by the change that disturbs the rest least."""

import dataclasses

import numpy as np
import pytest
import torch

from editing.edits.applying import applied
from editing.edits.requests import grouped
from editing.methods.closed_form.emmet import EMMET
from editing.methods.closed_form.keys import group_keys
from editing.methods.closed_form.memit import MEMIT
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.closed_form.values import value_stars
from labkit.errors import SingularSystem
from labkit.facts.fact import Rewrite
from labkit.text.moments import RIDGE

LAYER = 1
METHOD = EMMET(layer=LAYER, n_contexts=3, search=ValueSearch(steps=4))


@pytest.fixture
def prepared(model, corpus):
    return METHOD.prepare(model, corpus=corpus)


@pytest.fixture
def asked(model, rewrites, prepared):
    """Keys and wanted answers, `[group d_mlp]` and `[group d_model]`."""
    groups = grouped(rewrites)
    keys = group_keys(model, groups, LAYER, prepared.contexts, METHOD.bare_weight)
    return keys, value_stars(model, groups, LAYER, prepared.contexts, METHOD.search).v_star


def test_every_key_is_answered_with_its_value(model, rewrites, prepared, asked):
    """By the module itself, edited: exactly, but for the rounding of weights to float32."""
    keys, values = asked
    delta = METHOD(model, rewrites, prepared=prepared)
    error = model.ffn_proj(LAYER)(keys.float()) - values
    assert error.norm(dim=1).min() > 0.1
    with applied(model, delta):
        error = model.ffn_proj(LAYER)(keys.float()) - values
    assert (error.norm(dim=1) < 1e-4 * values.norm(dim=1)).all()


def test_no_other_change_that_does_so_disturbs_less(model, rewrites, prepared, asked):
    """Lagrange's conditions: `C D` is made of the keys and nothing else."""
    keys = asked[0].numpy()
    delta = METHOD(model, rewrites, prepared=prepared)
    dense = delta.changes[model.ffn_out_name(LAYER)].dense().double().numpy()
    D = dense.T if model.ffn_out_transposed(LAYER) else dense
    C = prepared.moments[LAYER].matrix.numpy()
    C = C + RIDGE * np.diag(C).mean() * np.eye(len(C))
    multipliers = np.linalg.lstsq(keys.T, C @ D, rcond=None)[0]
    np.testing.assert_allclose(keys.T @ multipliers, C @ D, atol=1e-5 * np.abs(C @ D).max())
    assert np.linalg.matrix_rank(D, tol=1e-5 * np.linalg.norm(D, 2)) == len(keys)


@pytest.mark.parametrize("covariance", [True, False])
def test_one_rewrite_gives_the_change_of_rome(model, rewrite, corpus, covariance):
    shared = {"layer": LAYER, "n_contexts": 3, "search": METHOD.search, "covariance": covariance}
    emmet, rome = (
        editor(model, [rewrite], prepared=editor.prepare(model, corpus=corpus))
        for editor in (EMMET(**shared), ROME(**shared))
    )
    for name, change in rome.changes.items():
        torch.testing.assert_close(emmet.changes[name].dense(), change.dense())


def test_subjects_with_one_key_are_named_and_left_to_methods_that_compromise(tiny, corpus):
    """The same words up to the end of the subject: one key under two names."""
    model = tiny("gpt2")
    twins = [
        Rewrite(subject="old king", template="Now the {} is", target_new="red"),
        Rewrite(subject="the old king", template="Now {} was", target_new="blue"),
    ]
    with pytest.raises(SingularSystem, match="'the old king' is .nearly. that of 'old king'"):
        METHOD(model, twins, prepared=METHOD.prepare(model, corpus=corpus))
    soft = MEMIT(layers=(LAYER,), n_contexts=3, search=METHOD.search)
    assert soft(model, twins, prepared=soft.prepare(model, corpus=corpus)).changes


def test_the_weight_of_the_rest_is_of_no_account_without_earlier_edits(tiny, rewrites, corpus):
    model = tiny("gpt2")
    light, heavy = (
        editor(model, rewrites, prepared=editor.prepare(model, corpus=corpus))
        for editor in (dataclasses.replace(METHOD, weight=w) for w in (0.01, 10.0))
    )
    name = model.ffn_out_name(LAYER)
    torch.testing.assert_close(light.changes[name].dense(), heavy.changes[name].dense())
