"""The textbook that the benchmark measures against is right: it agrees with the lab."""

import pytest
import torch

from editing.edits.requests import Group
from editing.methods.closed_form.keys import contexts, group_keys
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.solve import Euclidean, change
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.closed_form.values import value_stars
from labkit.facts.fact import Rewrite
from labkit.text.corpus import Corpus
from labkit.text.moments import RIDGE, second_moments
from labkit.text.streams import ReadingOptions, pieces
from tests.benchmarks import textbook_editing as textbook

LAYER, CONTEXTS = 1, ("", "The ship is in the sea.", "A cat is on a roof.")


@pytest.fixture(autouse=True)
def _cache(own_cache):
    """Second moments are measured away from the user's cache."""


@pytest.fixture
def llama(tiny):
    return tiny("llama", "float64")


@pytest.fixture
def group():
    rewrite = Rewrite(subject="black cat", template="the {} is in", target_new="the house")
    return Group(rewrite.subject, (rewrite,))


def request_of(group):
    rewrite = group.requests[0]
    return textbook.Request(rewrite.subject, rewrite.template, f" {rewrite.target_new}")


def test_the_covariance_is_the_lab_s(llama, corpus):
    few = Corpus(documents=corpus.documents[:3], source="three documents")
    documents = [piece.ids for piece in pieces(llama, few)]
    ours = second_moments(llama, [LAYER], few, ReadingOptions(min_tokens=10**9))[LAYER].matrix
    theirs = textbook.covariance(llama.hf, documents, LAYER, at_once=2)
    torch.testing.assert_close(theirs.double(), ours, rtol=1e-3, atol=1e-6)


def test_k_star_is_the_lab_s_mean_over_contexts(llama, group):
    ours = group_keys(llama, [group], LAYER, CONTEXTS, bare_weight=0.0)[0]
    theirs = textbook.key(llama.hf, llama.tokenizer, request_of(group), CONTEXTS, LAYER)
    torch.testing.assert_close(theirs, ours)


def test_v_star_is_the_lab_s_after_as_many_steps(llama, group):
    """With no context, so that the essence prompt stands alone in both."""
    steps = {"steps": 6, "lr": 0.5, "kl_factor": 0.0625, "decay": 0.5, "clamp": 4.0}
    ours = value_stars(llama, [group], LAYER, ("",), ValueSearch(**steps, enough=1.0))
    theirs, before = textbook.value(
        llama.hf,
        llama.tokenizer,
        request_of(group),
        ("",),
        llama.blocks[LAYER].mlp,
        textbook.Search(**steps),
    )
    torch.testing.assert_close(before.float(), ours.v[0])
    assert (theirs - before).norm() > 0.1 * before.norm()
    torch.testing.assert_close(theirs.float(), ours.v_star[0], rtol=1e-3, atol=1e-4)


def test_the_same_key_and_value_give_the_same_rank_one_change(llama, group, corpus):
    method = ROME(layer=LAYER, bare_weight=0.0, search=ValueSearch(steps=3))
    delta = method(llama, group.requests, prepared=method.prepare(llama, corpus=corpus))
    (ours,) = (found.dense().double() for found in delta.changes.values())
    k_star = group_keys(
        llama, [group], LAYER, contexts(corpus, method.n_contexts, seed=method.seed), 0.0
    )[0]
    weight = llama.ffn_proj(LAYER).weight.detach()
    matrix = second_moments(llama, [LAYER], corpus)[LAYER].matrix
    inverse = (matrix + RIDGE * matrix.diagonal().mean() * torch.eye(len(matrix))).inverse()
    theirs = textbook.rank_one(weight, k_star, (weight + ours) @ k_star, inverse)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-6)


def test_the_same_keys_and_residuals_give_the_same_change_of_many():
    draw = torch.Generator().manual_seed(0)
    keys, residuals = (torch.randn(5, n, generator=draw).double() for n in (16, 8))
    left, right = change(Euclidean(3.0), keys, residuals, softness=1.0)
    theirs = textbook.many(keys, residuals, torch.eye(16).double(), weight=3.0)
    torch.testing.assert_close(theirs, (left @ right).T)
