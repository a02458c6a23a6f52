"""Intervals that cover, and random numbers that depend on nothing but their key."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from labkit.errors import InputError
from labkit.results.encoding import dumps, from_json
from labkit.stats import (
    Estimate,
    around,
    average,
    from_resamples,
    generator,
    intervals,
    jackknife,
    numpy_generator,
    paired_difference,
    proportion,
    ratio,
    share,
    smallest_p,
)
from labkit.stats.estimate import p_text
from tests.benchmarks import coverage


def test_without_an_interval_is_not_certain():
    assert not Estimate.exact(0.5).has_interval and Estimate.exact(0.5).low != 0.5


# --- coverage ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", coverage.N_UNITS)
def test_means_are_covered_whether_units_are_normal_or_skewed(n):
    """With 4,000 repetitions a coverage is known to half a per cent."""
    found = {name: row for name, *row in coverage.means(n, 4000)}
    assert found["normal"][0] >= 0.94
    assert found["normal"][2] < 1.8  # widths of Student's t
    for name in ("lognormal, sigma 1", "minus lognormal", "exponential"):
        assert found[name][0] >= 0.9, (name, found[name])
        assert found[name][0] >= found[name][1]  # Student's t covers no more
    assert found["uniform"][0] >= 0.94


@pytest.mark.parametrize("n", coverage.N_UNITS)
def test_shares_are_covered_whatever_the_probability(n):
    for name, covered in coverage.shares(n, 2000):
        assert covered >= 0.9, name


@pytest.mark.parametrize("n", [2, 3, 10])
def test_ratios_over_few_clusters_are_covered(n):
    for name, covered in coverage.clustered(n, 400):
        assert covered >= 0.85, (name, covered)  # 400 repetitions: a standard error of .015


def test_with_many_normal_units_it_is_students_t():
    values = np.random.default_rng(1).normal(size=200)
    estimate = average(values)
    t = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.mean == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((t.low, t.high), abs=0.005)
    # Of units without skewness exactly that, as soon as it need not be widened.
    even = average([-3.0, -2.0, -2.0, -1.0, 0.0, 1.0, 2.0, 2.0, 3.0])
    t = scipy_stats.ttest_1samp([-3, -2, -2, -1, 0, 1, 2, 2, 3], 0).confidence_interval(0.95)
    assert (even.low, even.high) == pytest.approx((t.low, t.high), rel=1e-9)


# --- means ---------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[0.3, 1.0], [0.2, 0.9, 0.9], [0.1] * 9 + [1.0], [1e-9, 1.0]])
def test_the_interval_is_ordered_around_the_mean_and_inside_the_range(values):
    estimate = share(values)
    assert 0 <= estimate.low < estimate.mean < estimate.high <= 1
    wide = average(values)
    assert wide.low <= estimate.low and estimate.high <= wide.high
    assert not (wide.low >= 0 and wide.high <= 1)


def test_the_interval_moves_with_the_values_and_turns_with_their_sign():
    values = np.random.default_rng(2).lognormal(size=6)
    one, moved, turned = average(values), average(10 + 3 * values), average(-values)
    assert (moved.low, moved.high) == pytest.approx((10 + 3 * one.low, 10 + 3 * one.high))
    assert (turned.low, turned.high) == pytest.approx((-one.high, -one.low))
    assert one.high - one.mean > 1.2 * (one.mean - one.low)  # the long side is the longer one


@pytest.mark.parametrize("n", [1, 2, 3, 20])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, -7.0, 1e-9])
def test_equal_values_are_not_certainty(value, n):
    estimate = average([value] * n)
    assert (estimate.mean, estimate.n) == (value, n)
    assert math.isnan(estimate.low) and math.isnan(estimate.high)
    rounded = average(np.full(n, value) + value * 1e-8 * np.arange(n))
    assert not rounded.has_interval  # equal but for rounding


def test_a_single_unit_has_no_interval_and_says_so():
    for estimate in (
        average([1.79]), share([1.79 / 2]), share([1.0]), proportion(0, 1),
        ratio([3.0], [4.0]), ratio([3.0], [4.0], share=True), paired_difference([2.0], [1.0])[0],
        jackknife(1.5, [1.0]), around(1.5, [0.0]), from_resamples(1.5, [1.5] * 9, 1),
    ):  # fmt: skip
        assert not estimate.has_interval and estimate.n == 1
        assert str(estimate) == f"{estimate.mean:.3f} (n = 1)"
        assert not estimate.low > 0 and not estimate.high < 0  # no comparison holds


def test_cells_are_units_of_their_own_and_what_is_missing_is_left_out():
    values = np.random.default_rng(3).lognormal(size=(7, 4))
    values[4:, 1] = np.nan
    values[1:, 2] = np.nan
    values[:, 3] = np.nan
    mean, low, high, n = intervals.over_units(values)
    assert n.tolist() == [7, 4, 1, 0]
    for cell, kept in ((0, 7), (1, 4)):
        one = average(values[:kept, cell])
        assert (mean[cell], low[cell], high[cell]) == pytest.approx((one.mean, one.low, one.high))
    assert mean[2] == values[0, 2] and np.isnan([low[2], high[2], mean[3], low[3], high[3]]).all()
    deep = intervals.over_units(values.reshape(7, 2, 2))
    assert all(np.array_equal(a.ravel(), b, equal_nan=True) for a, b in zip(
        deep, (mean, low, high, n), strict=True))  # fmt: skip


def test_the_interval_does_not_depend_on_the_order_of_units():
    values = [0.1, 0.5, 0.9, 0.4]
    assert str(average(values)) == str(average(values[::-1]))


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_what_cannot_be_averaged_is_refused(bad):
    for estimator in (average, share):
        with pytest.raises(InputError):
            estimator(bad)


def test_what_is_no_share_is_refused_as_one():
    for values in ([0.0, 2.0], [-0.1, 0.5], [3.0]):
        with pytest.raises(InputError, match=r"0\.\.1"):
            share(values)


# --- shares --------------------------------------------------------------------------------


def test_no_successes_is_not_certainty():
    assert share([0.0] * 30) == proportion(0, 30)
    assert share([0.0] * 30).high > 0.05
    assert share([1.0] * 30).low < 0.95
    assert share([0.0] * 3).high > 0.5
    assert not share([0.3] * 30).has_interval


def test_a_proportion_has_the_wilson_interval():
    n, p, z = 20, 0.35, scipy_stats.norm.ppf(0.975)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    estimate = proportion(7, 20)
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize("n", [2, 3, 5, 19, 20, 50])
def test_below_twenty_units_it_is_corrected_for_continuity(n):
    method = "wilsoncc" if n < 20 else "wilson"
    for successes in range(n + 1):
        theirs = scipy_stats.binomtest(successes, n).proportion_ci(0.95, method=method)
        ours = proportion(successes, n)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_cells_of_zeros_and_ones_are_proportions():
    cells = np.array([[1, 0, 0.5], [0, 0, 1.0], [1, 0, 0.25]])
    mean, low, high, _ = intervals.shares_over_units(cells)
    for place, expected in enumerate((proportion(2, 3), proportion(0, 3), share(cells[:, 2]))):
        found = (mean[place], low[place], high[place])
        assert found == pytest.approx((expected.mean, expected.low, expected.high))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_an_impossible_proportion_is_refused(successes, n):
    with pytest.raises(InputError):
        proportion(successes, n)


# --- ratios and what follows from means ----------------------------------------------------


def test_clusters_of_one_unit_are_units():
    values = [1.0, 0.0, 1.0, 1.0, 0.0]
    assert ratio(values, [1.0] * 5, share=True) == proportion(3, 5)
    assert ratio([0.0] * 5, [1.0] * 5, share=True) == proportion(0, 5)


def test_clusters_of_unequal_size_count_for_fewer():
    rng = np.random.default_rng(6)
    wholes = np.array([30.0, *[1.0] * 9])
    parts = wholes * rng.normal(2, 1, size=10)
    estimate = ratio(parts, wholes)
    moved = (parts - estimate.mean * wholes) / wholes.mean()
    alike = around(estimate.mean, moved)
    effective = around(estimate.mean, moved, clusters=39.0**2 / 909)
    assert (estimate.low, estimate.high) == (effective.low, effective.high)
    assert estimate.low < alike.low < alike.high < estimate.high


def test_copies_of_a_unit_are_no_further_units():
    rng = np.random.default_rng(4)
    right = (rng.random(30) < 0.7).astype(float)
    once, copied = (
        ratio(k * right, np.full(30, k), share=True, units=30 * k) for k in (1.0, 100.0)
    )
    assert copied.mean == once.mean and copied.n == once.n == 30
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=0.03)


def test_units_of_independent_clusters_count_all():
    """Clusters that are no more alike than others: nearly as narrow as of all the units."""
    rng = np.random.default_rng(5)
    right = rng.binomial(10, 0.7, size=60)
    estimate = ratio(right, np.full(60, 10), share=True, units=600)
    plain = proportion(int(right.sum()), 600)
    assert 0.9 < (estimate.high - estimate.low) / (plain.high - plain.low) < 1.4


def test_equal_clusters_of_a_share_are_not_certainty():
    estimate = ratio([2.0, 4.0, 1.0], [4.0, 8.0, 2.0], share=True)
    assert estimate.mean == 0.5 and 0 < estimate.low < 0.2 and 0.8 < estimate.high < 1
    assert not ratio([2.0, 4.0, 1.0], [4.0, 8.0, 2.0]).has_interval
    for part, mean in ((0.0, 0.0), (1.0, 1.0)):
        whole = np.array([1.0, 5.0, 3.0])
        found = ratio(part * whole, whole, share=True)
        assert found.mean == mean and found.high - found.low > 0.5


def test_a_ratio_of_equal_wholes_has_the_interval_of_the_mean():
    parts = np.random.default_rng(6).lognormal(size=9)
    one, other = ratio(parts, np.full(9, 2.0)), average(parts / 2)
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_an_impossible_ratio_is_refused():
    for parts, wholes in (([1.0], [0.0]), ([1.0, 2.0], [1.0]), ([], []), ([1.0], [-1.0])):
        with pytest.raises(InputError):
            ratio(parts, wholes)


def test_the_jackknife_of_a_mean_is_the_mean():
    values = np.random.default_rng(7).lognormal(size=8)
    without = (values.sum() - values) / 7
    one, other = jackknife(values.mean(), without), average(values)
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_resamples_of_few_units_are_expanded():
    rng = np.random.default_rng(8)
    draws = rng.normal(size=20_000)
    few, many = from_resamples(0.0, draws, 5), from_resamples(0.0, draws, 10_000)
    assert (many.low, many.high) == pytest.approx((-1.96, 1.96), abs=0.06)
    assert few.high > 1.4 * many.high
    assert not from_resamples(2.0, [2.0] * 50, 5).has_interval
    assert not from_resamples(2.0, [np.nan] * 50, 5).has_interval
    assert from_resamples(0.9, 0.9 + draws, 10, within=(-1.0, 1.0)).high == 1.0


# --- differences ---------------------------------------------------------------------------


def test_a_paired_difference_uses_the_pairs():
    rng = np.random.default_rng(2)
    case = rng.normal(size=40)  # cases differ far more than methods do
    first, second = case + 0.1 + 0.1 * rng.normal(size=40), case
    difference, p = paired_difference(first, second)
    assert difference.mean == pytest.approx(np.mean(first - second))
    assert difference.low > 0 and p < 0.001
    assert scipy_stats.ttest_ind(first, second).pvalue > 0.5


def test_no_difference_is_not_certainty():
    assert paired_difference([0.3, 0.5], [0.3, 0.5])[0] == Estimate.exact(0.0, 2)
    of_shares, p = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert p == 1 and of_shares.low == -of_shares.high < -0.5


def test_equal_differences_of_shares_agree_with_their_test():
    """Five of five: p is above .05, and the interval holds 0; six of six: neither."""
    five, p = paired_difference([1.0] * 5, [0.0] * 5)
    assert p == smallest_p(5) == 0.0625 and five.low < 0 < five.high == 1
    six, p = paired_difference([1.0] * 6, [0.0] * 6)
    assert p == smallest_p(6) == 0.03125 and 0 < six.low < six.high == 1
    mixed = paired_difference([1.0, 1.0, 0.0], [0.0, 0.0, 1.0])[0]
    assert -1 <= mixed.low < mixed.high <= 1


def test_the_permutation_p_value_is_exact_for_few_pairs():
    # Of the 2^4 sign patterns, two (all +, all -) are as extreme as what was seen.
    _, p = paired_difference([1.0, 2.0, 3.0, 4.0], [0.0] * 4)
    assert p == pytest.approx(2 / 16) == smallest_p(4)


def test_few_pairs_say_that_they_cannot_show_a_difference():
    assert p_text(0.0625, 5) == "0.0625 (5 pairs cannot give less than 0.0625)"
    assert p_text(1.0, 1) == "1 (1 pair cannot give less than 1)"
    assert p_text(0.03125, 6) == "0.0312"


def test_one_pair_is_no_evidence():
    difference, p = paired_difference([1.0], [0.0])
    assert difference == Estimate.exact(1.0) and p == 1.0


def test_pairs_need_partners():
    with pytest.raises(InputError, match="3 and 2"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


# --- random numbers ------------------------------------------------------------------------


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


def test_tests_do_not_depend_on_global_random_state():
    first, second = np.random.default_rng(9).normal(size=(2, 30))
    torch.manual_seed(0)
    found = paired_difference(first, second)
    np.random.seed(5)  # noqa: NPY002
    assert paired_difference(first, second) == found


# --- how estimates are shown and kept ------------------------------------------------------


def test_an_estimate_prints_and_round_trips():
    estimate = Estimate(0.7123, 0.6551, 0.7639, 30)
    assert str(estimate) == "0.712 [0.655, 0.764] (n = 30)"
    assert f"{estimate:+.1%}" == "+71.2% [+65.5%, +76.4%]"
    assert Estimate.from_dict(estimate.to_dict()) == estimate


@pytest.mark.parametrize("estimate", [Estimate.exact(0.25, 3), Estimate(0.5, 0.25, 0.75, 8)])
def test_an_estimate_comes_back_from_json(estimate):
    text = dumps(estimate)
    assert from_json(json.loads(text), Estimate) == estimate
    assert Estimate.from_dict(json.loads(dumps(estimate.to_dict()))) == estimate
    assert hash(from_json(json.loads(text), Estimate)) == hash(estimate)
    assert estimate != Estimate(0.5, 0.25, 0.75, 9)


def test_no_interval_is_told_and_none_is_rounded_away():
    assert f"{Estimate.exact(0.3, 3):.2f}" == "0.30 (n = 3, no interval)"
    assert f"{Estimate.exact(1.79):.2f}" == "1.79 (n = 1)"
    assert f"{Estimate(0.001, 0.0006, 0.0014, 9):.2f}" == "0.0010 [0.0006, 0.0014]"
    assert f"{Estimate(1e-9, -1e-9, 3e-9, 9):.2f}" == "1.0e-09 [-1.0e-09, 3.0e-09]"
