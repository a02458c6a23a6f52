"""Intervals that cover, and random numbers that depend on nothing but their key."""

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from labkit.errors import InputError
from labkit.stats import (
    Estimate,
    average,
    bootstrap,
    generator,
    numpy_generator,
    paired_difference,
    proportion,
)


def test_the_interval_covers_the_truth_about_19_times_in_20():
    rng = np.random.default_rng(0)
    estimates = [bootstrap(rng.exponential(size=40), resamples=400) for _ in range(200)]
    covered = np.mean([estimate.low <= 1.0 <= estimate.high for estimate in estimates])
    assert 0.88 <= covered <= 0.98


def test_the_interval_agrees_with_students_t_on_normal_data():
    values = np.random.default_rng(1).normal(size=200)
    estimate = bootstrap(values)
    t = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.mean == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((t.low, t.high), abs=0.02)


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.2, 0.9, 0.9], [0.0] * 9 + [1.0], [1e-9, 1.0]])
def test_the_interval_is_ordered_around_the_mean_and_inside_the_data(values):
    estimate = bootstrap(values)
    assert min(values) <= estimate.low <= estimate.mean <= estimate.high <= max(values)
    assert estimate.low < estimate.high


def test_no_successes_is_not_certainty():
    assert bootstrap([0.0] * 30) == proportion(0, 30)
    assert bootstrap([0.0] * 30).high > 0.05
    assert bootstrap([1.0] * 30).low < 0.95
    assert bootstrap([0.3] * 30) == Estimate(0.3, 0.3, 0.3, 30)
    assert bootstrap([1.0]) == Estimate(1.0, 1.0, 1.0, 1)


def test_a_proportion_has_the_wilson_interval():
    n, p, z = 20, 0.35, scipy_stats.norm.ppf(0.975)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    estimate = proportion(7, 20)
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_what_cannot_be_averaged_is_refused(bad):
    with pytest.raises(InputError):
        bootstrap(bad)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_an_impossible_proportion_is_refused(successes, n):
    with pytest.raises(InputError):
        proportion(successes, n)


def test_a_paired_difference_uses_the_pairs():
    rng = np.random.default_rng(2)
    case = rng.normal(size=40)  # cases differ far more than methods do
    first, second = case + 0.1 + 0.1 * rng.normal(size=40), case
    difference, p = paired_difference(first, second)
    assert difference.mean == pytest.approx(np.mean(first - second))
    assert difference.low > 0 and p < 0.001
    assert scipy_stats.ttest_ind(first, second).pvalue > 0.5


def test_no_difference_is_no_proportion():
    assert paired_difference([0.3, 0.5], [0.3, 0.5])[0] == Estimate(0.0, 0.0, 0.0, 2)
    assert bootstrap([0.0, 0.0]).high > 0.5


def test_an_average_takes_zeros_and_ones_for_numbers():
    assert average([0.0] * 5) == Estimate(0.0, 0.0, 0.0, 5)
    assert average([1.0] * 5) == Estimate(1.0, 1.0, 1.0, 5)
    assert average([0.2, 0.9, 0.7], seed=3) == bootstrap([0.2, 0.9, 0.7], seed=3)


def test_the_permutation_p_value_is_exact_for_few_pairs():
    # Of the 2^4 sign patterns, two (all +, all -) are as extreme as what was seen.
    _, p = paired_difference([1.0, 2.0, 3.0, 4.0], [0.0] * 4)
    assert p == pytest.approx(2 / 16)


def test_one_pair_is_no_evidence():
    difference, p = paired_difference([1.0], [0.0])
    assert difference == Estimate(1.0, 1.0, 1.0, 1) and p == 1.0


def test_pairs_need_partners():
    with pytest.raises(InputError, match="3 and 2"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_random_numbers_depend_on_seed_and_content_alone():
    def draw(*key):
        return torch.rand(4, generator=generator(*key)).tolist()

    first = draw(0, "noise", 3)
    draw(0, "something else")
    assert draw(0, "noise", 3) == first
    others = [draw(1, "noise", 3), draw(0, "noise", 4), draw(0, "noise", "3"), draw(0)]
    assert first not in others and len({tuple(other) for other in others}) == 4
    assert numpy_generator(0, "a").random() == numpy_generator(0, "a").random()
    assert numpy_generator(0, "a").random() != numpy_generator(1, "a").random()


def test_results_do_not_depend_on_global_random_state():
    values = [0.1, 0.5, 0.9, 0.4]
    torch.manual_seed(0)
    first = bootstrap(values)
    np.random.seed(5)  # noqa: NPY002
    assert bootstrap(values) == first


def test_an_estimate_prints_and_round_trips():
    estimate = Estimate(0.7123, 0.6551, 0.7639, 30)
    assert str(estimate) == "0.712 [0.655, 0.764] (n=30)"
    assert Estimate.from_dict(estimate.to_dict()) == estimate
