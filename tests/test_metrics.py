"""Metrics against scipy, torch's own losses, and counts made by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from scipy import stats as scipy_stats

from labkit import metrics
from labkit.stats import generator

VOCAB = 11


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(2, 5, VOCAB, generator=generator(0, "logits"), dtype=torch.float64)


@pytest.fixture
def target() -> torch.Tensor:
    return torch.randint(VOCAB, (2, 5), generator=generator(0, "target"))


def test_log_prob_is_scipys(logits, target):
    reference = special.log_softmax(logits.numpy(), axis=-1)
    expected = np.take_along_axis(reference, target.numpy()[..., None], -1)[..., 0]
    torch.testing.assert_close(metrics.log_prob(logits, target), torch.tensor(expected))


def test_kl_is_scipys(logits):
    other = logits.flip(0)
    p, q = logits.softmax(-1).numpy(), other.softmax(-1).numpy()
    expected = torch.tensor(scipy_stats.entropy(p, q, axis=-1))
    torch.testing.assert_close(metrics.kl_divergence(logits, other), expected)


def test_kl_is_of_the_first_against_the_second(logits):
    p, q = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    one_way = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    other_way = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert metrics.kl_divergence(p, q).item() == pytest.approx(one_way, rel=1e-5)
    assert metrics.kl_divergence(q, p).item() == pytest.approx(other_way, rel=1e-5)
    assert metrics.kl_divergence(logits, logits).abs().max() < 1e-12


def test_tokens_that_the_reference_rules_out_add_nothing():
    p = torch.tensor([0.0, -math.inf, 0.0])
    q = torch.zeros(3)
    assert metrics.kl_divergence(p, q).item() == pytest.approx(math.log(3 / 2))


def test_rank_is_the_place_in_sorted_order(logits, target):
    order = logits.argsort(-1, descending=True)
    expected = (order == target[..., None]).int().argmax(-1)
    assert metrics.rank(logits, target).equal(expected)
    assert metrics.is_argmax(logits, logits.argmax(-1)).all()
    assert not metrics.is_argmax(logits, logits.argmin(-1)).any()


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_broken_model_gets_nothing_right(value, target):
    broken = torch.full((2, 5, VOCAB), value)
    assert not metrics.is_argmax(broken, target).any()


def test_half_precision_is_worked_on_in_float32(logits, target):
    half = logits.bfloat16()
    value = metrics.log_prob(half, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, metrics.log_prob(half.float(), target))


def test_ngram_entropy_by_hand():
    # "a b a b a": bigrams ab ba ab ba, half each, so 1 bit; trigrams aba bab aba.
    text = ["a", "b", "a", "b", "a"]
    assert metrics.ngram_entropy(text, 2) == pytest.approx(1.0)
    trigrams = scipy_stats.entropy([2 / 3, 1 / 3], base=2)
    assert metrics.ngram_entropy(text, 3) == pytest.approx(trigrams)
    assert metrics.fluency(text) == pytest.approx((2 / 3 * 1.0 + 4 / 3 * trigrams) / 2)
    assert metrics.repetition(text, 2) == pytest.approx(0.5)


def test_a_text_that_repeats_itself_is_less_fluent():
    assert metrics.fluency(range(100)) == pytest.approx(np.log2([99, 98]) @ [1 / 3, 2 / 3])
    assert metrics.fluency([1] * 100) == 0
    assert metrics.repetition([1] * 100) > 0.98
    assert metrics.fluency([]) == metrics.repetition([]) == 0
