"""Do two methods differ? Paired over the same cases, and corrected for asking many times."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from labkit import stats

COLUMNS = ("first", "second", "difference", "low", "high", "n", "p", "p_holm")


def paired_tests(values: Mapping[str, Mapping[str, float]], *, seed: int = 0) -> pd.DataFrame:
    """Every pair of methods on one metric.

    Args:
        values: By method, one number a unit (case, piece of text) by its name. A pair is
            compared on the units that both have.
        seed: Seed of intervals and permutations.

    Returns:
        One row a pair: `first, second`, the mean of `first - second` with its interval and
        `n`, the p-value `p` of the sign-flip permutation test, and `p_holm`, corrected for
        the number of pairs. A pair without a common unit has no row.
    """
    rows = []
    for first, second in combinations(values, 2):
        units = [unit for unit in values[first] if unit in values[second]]
        if units:
            ours, theirs = ([values[name][unit] for unit in units] for name in (first, second))
            found, p = stats.paired_difference(ours, theirs, seed=seed)
            rows.append((first, second, found.mean, found.low, found.high, found.n, p))
    frame = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    return frame.assign(p_holm=holm(frame["p"].tolist()))


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
