"""Numbers with intervals: means, shares, ratios, paired differences and their tests.

Every number that the lab shows to a person is an `Estimate`: a mean with an interval and
the number of independent units behind it. Intervals are 95 % unless stated; what they are
made of, and how often they cover, stands in `labkit.stats.intervals`.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats as scipy_stats

from labkit.errors import InputError
from labkit.stats import intervals
from labkit.stats.draws import numpy_generator
from labkit.stats.estimate import Estimate

CONFIDENCE = intervals.CONFIDENCE


def average(
    values: Sequence[float] | np.ndarray, *, within: tuple[float, float] | None = None
) -> Estimate:
    """Mean of independent values with its 95 % interval: Student's t, stretched for skewness.

    Covers at least .95 for normal and .91 for lognormal (sigma 1) units, from 3 units on: see
    `labkit.stats.intervals`. A single value has no interval, nor have values that are all equal.

    Args:
        values: One number per independent unit (mean over a unit's own prompts first).
        within: The least and the largest value possible, where they are known: -1 and 1 for
            a correlation or a difference of probabilities. The interval stays inside.

    Raises:
        InputError: If there are no values, or one is not finite.
    """
    array = _finite(values)
    mean, low, high, n = intervals.over_units(array, within=within)
    if np.ptp(array) == 0:
        mean = array[0]  # a sum of equal numbers may be an ulp off
    return Estimate(float(mean), float(low), float(high), int(n))


def share(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean of independent values in 0..1: Wilson's interval where all of them are 0 or 1.

    Values between (a unit's accuracy over its own prompts) have that of `average` within 0..1.

    Args:
        values: One number per independent unit, each in 0..1.

    Raises:
        InputError: If there are no values, or one is not finite or outside of 0..1.
    """
    array = _finite(values)
    # Probabilities are sums of floats: they may be an ulp above 1.
    if array.min() < -intervals.EQUAL or array.max() > 1 + intervals.EQUAL:
        raise InputError(f"shares lie in 0..1, not in {array.min():.3g}..{array.max():.3g}")
    if array.size > 1 and np.isin(array, (0.0, 1.0)).all():
        return proportion(int(array.sum()), array.size)
    return average(array, within=(0.0, 1.0))


def proportion(successes: int, n: int) -> Estimate:
    """A proportion of independent units with its 95 % Wilson interval: `intervals.wilson`.

    Below 20 units it is corrected for continuity. Coverage over p = .05 to .95 is .99 on
    average and .96 at worst for 3 units, .95 and .925 for 20.

    Raises:
        InputError: If `n` is zero or `successes` lies outside `0..n`.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"a proportion needs 0 <= successes <= n and n >= 1, not {successes}/{n}")
    if n == 1:
        return Estimate.exact(float(successes))
    low, high = intervals.wilson(successes / n, n)
    return Estimate(successes / n, float(low), float(high), n)


def ratio(
    parts: Sequence[float] | np.ndarray,
    wholes: Sequence[float] | np.ndarray,
    *,
    share: bool = False,
    units: float | None = None,
    within: tuple[float, float] | None = None,
) -> Estimate:
    """Sum of the parts over the sum of the wholes, both by cluster, with its 95 % interval.

    The ratio is made linear around its value (cluster i moves it by (part_i - ratio whole_i) /
    mean whole), and has the interval of `average` over clusters, the number of which counts
    as (sum of |wholes|)^2 / sum of their squares where they are of unequal size. A share (0/1
    units in clusters) has Wilson's interval with the effective number of units. One cluster
    has no interval.

    Args:
        parts: The numerator, by cluster (a fact, a sentence, a noise draw).
        wholes: The denominator, by cluster. Its mean must be well above 0: the interval does
            not allow for a whole that may be none. Of a share, clusters of 0 are left out.
        share: Whether every part is a part of its whole (0 <= part <= whole).
        units: Number of units in all clusters together, where they are 0 or 1.
        within: The least and the largest value possible of what is no share.

    Raises:
        InputError: If the two differ in length, a number is not finite, or the wholes have no
            positive sum.
    """
    part, whole = _finite(parts), _finite(wholes)
    if part.shape != whole.shape:
        raise InputError(f"a ratio needs as many parts as wholes, not {part.size} and {whole.size}")
    if share:
        part, whole = part[whole > 0], whole[whole > 0]
    if not whole.sum() > 0:
        raise InputError(f"a ratio needs wholes with a sum above 0, not {whole.sum():.3g}")
    value = float(part.sum() / whole.sum())
    moved = (part - value * whole) / whole.mean()
    clusters = float(np.abs(whole).sum() ** 2 / (whole**2).sum())
    if not share:
        return around(value, moved, within=within, clusters=clusters)
    if len(whole) == 1:
        return Estimate.exact(value)
    if np.ptp(whole) == 0 and np.isin(part / whole, (0.0, 1.0)).all():
        return proportion(round(value * len(whole)), len(whole))
    low, high = intervals.of_clustered_share(value, moved, max(clusters, 2.0), units)
    return Estimate(value, low, high, len(whole))


def around(
    value: float,
    influence: Sequence[float] | np.ndarray,
    *,
    within: tuple[float, float] | None = None,
    clusters: float | None = None,
) -> Estimate:
    """A smooth function of means with the interval of its linear approximation (delta method).

    Args:
        value: The function at the sample's own means.
        influence: By independent unit, how far it moves the value: the mean over units is 0.
            By the jackknife, (n - 1) (value - value without the unit).
        within: The least and the largest value possible, where they are known.
        clusters: Effective number of units, where they do not count alike.

    References:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 11 and 21.
    """
    moved = _finite(influence)
    n = len(moved)
    apart = moved - moved.mean()
    if n < 2 or np.abs(apart).max() <= intervals.EQUAL * max(abs(value), np.abs(moved).max()):
        return Estimate.exact(value, n)
    effective = n if clusters is None else min(max(clusters, 2.0), n)
    # The error is that of n units; what is known of it, that of the effective number.
    below, above = intervals.stretched(apart * np.sqrt(effective / n), effective)
    return _inside(value, float(value - below), float(value + above), n, within)


def jackknife(
    value: float,
    without: Sequence[float] | np.ndarray,
    *,
    within: tuple[float, float] | None = None,
) -> Estimate:
    """Any smooth statistic of independent units with its interval by the jackknife.

    Args:
        value: The statistic of all units.
        without: The statistic without each unit in turn.
        within: The least and the largest value possible, where they are known.

    References:
        Tukey (1958), Bias and Confidence in Not-quite Large Samples.
    """
    left = _finite(without)
    if len(left) == 1:
        return Estimate.exact(value)
    return around(value, (len(left) - 1) * (left.mean() - left), within=within)


def from_resamples(
    value: float,
    draws: Sequence[float] | np.ndarray,
    n: int,
    *,
    within: tuple[float, float] | None = None,
) -> Estimate:
    """A statistic that is not smooth (a maximum, a rank) with its interval by the bootstrap.

    The percentiles are expanded for few units, at which the bootstrap is too narrow:
    alpha' / 2 = Phi(-sqrt(n / (n - 1)) t_{n - 1}). Draws that are NaN are left out.

    Args:
        value: The statistic of all units.
        draws: The statistic of resamples of whole units.
        n: Number of units.
        within: The least and the largest value possible, where they are known.

    References:
        Hesterberg (2015), What Teachers Should Know about the Bootstrap, section 5.2 (expanded
        percentile interval).
    """
    draws = np.asarray(draws, dtype=float)
    known = draws[~np.isnan(draws)]
    if n < 2 or not known.size or np.ptp(known) <= intervals.EQUAL * np.abs(known).max():
        return Estimate.exact(value, n)
    t = float(scipy_stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1))
    tail = float(scipy_stats.norm.cdf(-math.sqrt(n / (n - 1)) * t))
    low, high = (float(end) for end in np.quantile(known, [tail, 1 - tail]))
    return _inside(value, min(low, value), max(high, value), n, within)


def _inside(
    value: float, low: float, high: float, n: int, within: tuple[float, float] | None
) -> Estimate:
    """An interval cut to where the value can lie."""
    if within is not None:
        low, high = max(low, min(within[0], value)), min(high, max(within[1], value))
    return Estimate(value, low, high, n)


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values as a flat array, if there are any and all are finite."""
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise InputError("no values to average: the list of cases is empty")
    if not np.isfinite(array).all():
        raise InputError(f"cannot average values that are not finite: {array}")
    return array


def paired_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, seed: int = 0
) -> tuple[Estimate, float]:
    """Mean of `first - second` over paired units, and a sign-flip permutation p-value.

    Where all values are 0 or 1 the interval stays within -1..1, and differences that are all
    equal have one too: with 95 % confidence, other differences are no likelier than `wilson`
    says of no successes among n.

    Returns:
        The difference with its interval (`average`), and the two-sided p-value of the
        hypothesis that the sign of each unit's difference is arbitrary. With n pairs it
        cannot be less than `smallest_p(n)`.

    Raises:
        InputError: If the two do not have the same length.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape:
        raise InputError(f"paired values need the same length, not {a.size} and {b.size}")
    zero_one = np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()
    estimate = average(a - b, within=(-1.0, 1.0) if zero_one else None)
    if zero_one and a.size > 1 and not estimate.has_interval:
        unseen, mean = proportion(0, a.size).high, estimate.mean
        low, high = mean - unseen * (mean + 1), mean + unseen * (1 - mean)
        estimate = Estimate(mean, low, high, a.size)
    if a.size == 1:  # both signs of a single pair are equally extreme
        return estimate, 1.0
    test = scipy_stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=numpy_generator(seed, "permutation", a.size),
    )
    return estimate, float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method, in the order given.

    p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)), with p_(1) <= ... <= p_(m): rejecting
    where p~ <= alpha keeps the chance of any false rejection within alpha, whatever the
    dependence among the tests.

    References:
        Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected
