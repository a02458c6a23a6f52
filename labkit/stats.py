"""Numbers with intervals: estimates, bootstrap and permutation tests, seeded generators.

Every number that the lab shows to a person is an `Estimate`: a mean with an interval and
the number of independent units behind it. Intervals are 95 % unless stated.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats as scipy_stats

from labkit.errors import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        mean: The point estimate, in the unit of what was measured.
        low: Lower end of the interval. Equal to `mean` for a single unit.
        high: Upper end of the interval.
        n: Number of independent units (facts, noise draws, tokens...) behind it.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Mean and interval, three decimals: `0.712 [0.655, 0.764] (n=30)`."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"

    def to_dict(self) -> dict[str, float | int]:
        """The four fields as a JSON-ready dictionary."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Estimate":
        """Inverse of `to_dict`."""
        return cls(record["mean"], record["low"], record["high"], int(record["n"]))


def generator(seed: int, *content: object) -> torch.Generator:
    """A torch generator seeded by a run's seed and by what the numbers are for.

    Keying by content makes a draw independent of the order in which cells are computed.

    Args:
        seed: The run's seed.
        *content: Anything with a stable `repr` (strings, integers, tuples of those).
    """
    digest = hashlib.sha256(repr((seed, content)).encode()).digest()
    # torch takes a signed 64-bit seed; 63 bits keep it positive everywhere.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def numpy_generator(seed: int, *content: object) -> np.random.Generator:
    """The numpy counterpart of `generator`."""
    digest = hashlib.sha256(repr((seed, content)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def bootstrap(
    values: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Mean of independent values with a bias-corrected (BCa) bootstrap interval.

    For values that are all equal, the bootstrap has nothing to resample; where they are
    moreover all 0 or all 1 the Wilson interval of a proportion is returned instead of an
    interval of width zero. Numbers that are no shares are for `average`.

    Args:
        values: One number per independent unit (mean over a unit's own prompts first).
        seed: Seed of the resampling.
        resamples: Number of bootstrap resamples.

    Raises:
        InputError: If there are no values, or one is not finite.

    References:
        Efron (1987), Better bootstrap confidence intervals. Wilson (1927).
    """
    array = np.asarray(values, dtype=float)
    if array.size > 1 and array[0] in (0.0, 1.0) and np.ptp(array) == 0:
        return proportion(int(array.sum()), array.size)
    return average(array, seed=seed, resamples=resamples)


def average(
    values: Sequence[float] | np.ndarray, *, seed: int = 0, resamples: int = 2000
) -> Estimate:
    """`bootstrap` of numbers that are no shares of anything: where all are 0, it is 0 for certain.

    Args:
        values: One number per independent unit, such as a KL or a difference.
        seed: Seed of the resampling.
        resamples: Number of bootstrap resamples.

    Raises:
        InputError: If there are no values, or one is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise InputError("no values to average: the list of cases is empty")
    if not np.isfinite(array).all():
        raise InputError(f"cannot average values that are not finite: {array}")
    mean = float(array.mean())
    if array.size == 1:
        return Estimate(mean, mean, mean, 1)
    if np.ptp(array) == 0:
        mean = float(array[0])  # a sum of equal numbers may be an ulp off
        return Estimate(mean, mean, mean, array.size)
    result = scipy_stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=numpy_generator(seed, "bootstrap", array.size),
    )
    interval = result.confidence_interval
    low, high = float(interval.low), float(interval.high)
    if not (np.isfinite(low) and np.isfinite(high)):  # BCa degenerates on near-constant data
        low, high = mean, mean
    return Estimate(mean, low, high, array.size)


def proportion(successes: int, n: int) -> Estimate:
    """A proportion with its Wilson interval.

    Raises:
        InputError: If `n` is zero or `successes` lies outside `0..n`.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"a proportion needs 0 <= successes <= n and n >= 1, not {successes}/{n}")
    interval = scipy_stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def paired_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, seed: int = 0
) -> tuple[Estimate, float]:
    """Mean of `first - second` over paired units, and a sign-flip permutation p-value.

    Returns:
        The difference with its bootstrap interval, and the two-sided p-value of the
        hypothesis that the sign of each unit's difference is arbitrary.

    Raises:
        InputError: If the two do not have the same length.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape:
        raise InputError(f"paired values need the same length, not {a.size} and {b.size}")
    estimate = average(a - b, seed=seed)
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
