"""Do two methods differ? Paired over the same cases, and corrected for asking many times."""

from collections.abc import Mapping
from itertools import combinations

import pandas as pd

from labkit import stats

COLUMNS = ("first", "second", "difference", "low", "high", "n", "p", "p_holm")


def paired_tests(values: Mapping[str, Mapping[str, float]], *, seed: int = 0) -> pd.DataFrame:
    """Every pair of methods on one metric.

    Args:
        values: By method, one number per unit (case, piece of text) by its name. A pair is
            compared on the units that both have.
        seed: Seed of intervals and permutations.

    Returns:
        One row per pair: `first, second`, the mean of `first - second` with its interval and
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
    return frame.assign(p_holm=stats.holm(frame["p"].tolist()))
