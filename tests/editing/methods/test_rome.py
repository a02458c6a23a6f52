"""ROME's change is the smallest, in the metric of C, that makes the FFN answer k* with v*."""

import dataclasses

import numpy as np
import pytest
import torch

from editing.edits.applying import applied
from editing.edits.requests import grouped
from editing.methods.closed_form.keys import contexts, key_star, subject_keys
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.closed_form.values import value_stars
from labkit.errors import DuplicateSubject, InputError, LayerOutOfRange
from labkit.text.moments import RIDGE
from tests.reference import inputs_of

LAYER = 1
METHOD = ROME(layer=LAYER, n_contexts=3, search=ValueSearch(steps=4))


@dataclasses.dataclass
class Solved:
    """One edit with what it was made of, in numpy and with values as rows."""

    V: np.ndarray
    bias: np.ndarray
    delta: np.ndarray
    C: np.ndarray
    k: np.ndarray
    v: np.ndarray


@pytest.fixture
def solved(model, rewrite, corpus):
    prepared = METHOD.prepare(model, corpus=corpus)
    delta = METHOD(model, [rewrite], prepared=prepared)
    keys = subject_keys(model, [rewrite], LAYER, prepared.contexts)[0]
    found = value_stars(model, grouped([rewrite]), LAYER, prepared.contexts, METHOD.search)
    dense = delta.changes[model.ffn_out_name(LAYER)].dense()
    C = prepared.moments[LAYER].matrix.numpy()
    bias = model.ffn_proj(LAYER).bias
    return Solved(
        V=model.ffn_out(LAYER).double().numpy(),
        bias=0.0 if bias is None else bias.double().numpy(),
        delta=(dense.T if model.ffn_out_transposed(LAYER) else dense).double().numpy(),
        C=C + RIDGE * np.diag(C).mean() * np.eye(len(C)),
        k=key_star(keys, METHOD.bare_weight).double().numpy(),
        v=found.v_star[0].double().numpy(),
    )


# --- the change ---------------------------------------------------------------------------


def test_the_key_is_answered_with_the_value(solved):
    answer = solved.k @ (solved.V + solved.delta) + solved.bias
    np.testing.assert_allclose(answer, solved.v, atol=1e-4)
    assert np.abs(solved.k @ solved.V + solved.bias - solved.v).max() > 0.1


def test_the_edited_module_answers_so_too(model, solved, rewrite, corpus):
    delta = METHOD(model, [rewrite], prepared=METHOD.prepare(model, corpus=corpus))
    with applied(model, delta), torch.no_grad():
        answer = model.ffn_proj(LAYER)(torch.tensor(solved.k, dtype=torch.float32))
    np.testing.assert_allclose(answer, solved.v, atol=1e-4)


def test_the_change_has_rank_one(solved):
    values = np.linalg.svd(solved.delta, compute_uv=False)
    assert values[0] > 1e-2 and values[1] < 1e-5 * values[0]


def test_it_is_the_constrained_least_squares_solution(solved):
    """min tr(D^T C D) over D with k* D = v* - k* V - b, by its Lagrange conditions."""
    d_mlp, d_model = solved.V.shape
    system = np.zeros((d_mlp + 1, d_mlp + 1))
    system[:d_mlp, :d_mlp] = 2 * solved.C
    system[:d_mlp, d_mlp] = system[d_mlp, :d_mlp] = solved.k
    wanted = np.zeros((d_mlp + 1, d_model))
    wanted[d_mlp] = solved.v - solved.k @ solved.V - solved.bias
    brute = np.linalg.solve(system, wanted)[:d_mlp]
    np.testing.assert_allclose(solved.delta, brute, atol=1e-4 * np.abs(brute).max())


def test_no_other_change_that_answers_the_key_is_smaller(solved):
    def size(change):
        return np.trace(change.T @ solved.C @ change)

    rng = np.random.default_rng(0)
    for _ in range(20):
        other = rng.normal(size=solved.V.shape)
        other -= np.outer(solved.k, solved.k @ other) / (solved.k @ solved.k)  # k* other = 0
        assert size(solved.delta + 0.01 * other) > size(solved.delta)


def test_keys_that_are_orthogonal_in_the_metric_are_answered_as_before(solved):
    """delta k' = 0 whenever k'^T C^-1 k* = 0."""
    direction = np.linalg.solve(solved.C, solved.k)
    keys = np.random.default_rng(0).normal(size=(10, len(solved.k)))
    keys -= np.outer(keys @ direction, direction) / (direction @ direction)
    np.testing.assert_allclose(keys @ solved.delta, 0, atol=1e-4)
    plain = keys - np.outer(keys @ solved.k, solved.k) / (solved.k @ solved.k)
    assert np.abs(plain @ solved.delta).max() > 1e-3  # plain orthogonality is not enough


def test_without_the_covariance_the_metric_is_the_identity(tiny, rewrite, corpus):
    model = tiny("gpt2")
    plain = dataclasses.replace(METHOD, covariance=False)
    delta = plain(model, [rewrite], prepared=plain.prepare(model, corpus=corpus))
    left = delta.changes[model.ffn_out_name(LAYER)].left[:, 0]
    keys = subject_keys(model, [rewrite], LAYER, plain.prepare(model, corpus=corpus).contexts)[0]
    k = key_star(keys, plain.bare_weight)
    torch.testing.assert_close(left / left.norm(), k / k.norm(), rtol=1e-4, atol=1e-5)


def test_with_two_keys_one_gives_the_direction_and_the_bare_one_the_size(
    model, rewrite, corpus, solved
):
    """As the first published code did: the bare key, not `k*`, is answered with `v*`."""
    two = dataclasses.replace(METHOD, two_keys=True)
    prepared = two.prepare(model, corpus=corpus)
    delta = two(model, [rewrite], prepared=prepared)
    dense = delta.changes[model.ffn_out_name(LAYER)].dense()
    dense = (dense.T if model.ffn_out_transposed(LAYER) else dense).double().numpy()
    bare = subject_keys(model, [rewrite], LAYER, prepared.contexts)[0, 0].double().numpy()
    np.testing.assert_allclose(bare @ (solved.V + dense) + solved.bias, solved.v, atol=1e-4)
    assert np.abs(solved.k @ (solved.V + dense) + solved.bias - solved.v).max() > 1e-3
    direction, (left, *_) = np.linalg.solve(solved.C, solved.k), np.linalg.svd(dense)
    assert abs(left[:, 0] @ direction) == pytest.approx(np.linalg.norm(direction), rel=1e-5)


# --- the key ------------------------------------------------------------------------------


@torch.no_grad()
def test_keys_are_what_enters_the_projection_at_the_subjects_last_token(model, rewrite, corpus):
    before = contexts(corpus, 3, seed=0)
    found = subject_keys(model, [rewrite], LAYER, before)[0]
    for key, context in zip(found, before, strict=True):
        text = f"{context} the cat" if context else "the cat"
        with inputs_of(model.ffn_proj(LAYER)) as seen:
            model.hf(torch.tensor([model.ids(f"{text} is in")]))
        last = len(model.ids(text)) - 1
        torch.testing.assert_close(key, seen[0][0, last], rtol=1e-4, atol=1e-5)


def test_k_star_weighs_the_bare_key_against_the_mean():
    keys = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]])
    for weight, expected in {0.0: [1.0, 1.0], 1.0: [1.0, 0.0], 0.5: [1.0, 0.5]}.items():
        torch.testing.assert_close(key_star(keys, weight), torch.tensor(expected))


def test_contexts_are_short_sentences_of_the_corpus(corpus):
    found = contexts(corpus, 5, seed=0)
    assert found[0] == "" and len(set(found)) == 5
    text = " ".join(corpus.documents)
    assert all(context in text for context in found)
    assert contexts(corpus, 5, seed=0) == found != contexts(corpus, 5, seed=1)
    for wrong in (0, 10**6):
        with pytest.raises(InputError, match="averaged over 1 to"):
            contexts(corpus, wrong, seed=0)


# --- refusals -----------------------------------------------------------------------------


def test_what_rome_cannot_do_is_refused_before_any_work(tiny, rewrite):
    model = tiny("llama")
    other = dataclasses.replace(rewrite, subject="dog")
    with pytest.raises(DuplicateSubject):
        METHOD(model, [rewrite, rewrite])
    for rewrites in ([], [rewrite, other]):
        with pytest.raises(InputError, match="exactly one"):
            METHOD(model, rewrites)
    with pytest.raises(LayerOutOfRange, match=r"0\.\.2"):
        dataclasses.replace(METHOD, layer=3)(model, [rewrite])
    for weight in (-0.1, 1.1):
        with pytest.raises(InputError, match="share"):
            ROME(bare_weight=weight)


def test_the_layer_is_a_preset_or_a_share_of_the_depth(tiny, pocket):
    assert ROME().layer_for(tiny("llama")) == 0
    assert 0 <= ROME().layer_for(pocket) < pocket.n_layers
    assert ROME(layer=2).layer_for(pocket) == 2
