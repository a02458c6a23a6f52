"""At which depth a score arises, and whether one kind of task arises at lower depths.

Three summaries of a curve of scores s_0, ..., s_L over depths:

    centre of gravity   sum_l l max(0, s_l - s_0) / sum_l max(0, s_l - s_0)
    expected depth      sum_{l>0} l (m_l - m_{l-1}) / sum_{l>0} (m_l - m_{l-1})
    arrival             sum_{l>=0} l (m_l - m_{l-1}) / sum_{l>=0} (m_l - m_{l-1})

with m_l the best of s_0 .. s_l and, in the arrival, m_{-1} the score of the majority. The centre
says where what goes beyond the embedding can be read; a plateau that lasts to the top pulls it
up. The expected depth says where it is gained. Neither exists for a task that no depth reads
better than the embedding. The arrival counts what the embedding itself tells, at depth 0: it
exists for every task that some depth reads better than the majority, so families are best
compared by it.

References:
    Tenney, Das and Pavlick (2019), BERT Rediscovers the Classical NLP Pipeline, section 3
    (centre of gravity, eq. 2; expected layer, eq. 3 and 4).

Differs from the paper:
    Its centre is that of learned scalar mixing weights; ours is that of the gains in score of
    separate probes. Its expected layer compares cumulative probes, which mix layers 0..l; ours
    takes the best of the separate probes of depths 0..l in their place. The arrival is ours. The
    maximum of noisy scores creeps upwards, which moves the expected depth of a flat curve up a
    little, for all kinds of tasks alike. Intervals are the cluster bootstrap's.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from labkit.errors import InputError
from labkit.stats import Estimate, from_resamples, numpy_generator
from probes.probing.scores import RESAMPLES, resampled

EXACT = 20_000
"""Regroupings of tasks that are gone through one by one; more are drawn."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The depths at which a score arises.

    Attributes:
        gravity: Centre of gravity of the gains over the embedding; None where there are none.
        expected: Expected depth of the gain; None likewise.
        arrival: Mean depth of the gain over the majority; None where there is none.
    """

    gravity: Estimate | None
    expected: Estimate | None
    arrival: Estimate | None


@dataclass(frozen=True, kw_only=True)
class OrderTest:
    """Whether tasks of some families arise at lower depths than those of others.

    Attributes:
        measure: "gravity", "expected" or "arrival".
        lower: Names of the tasks that should lie lower.
        upper: Names of the others.
        left_out: Tasks of either kind for which the measure does not exist.
        difference: Mean depth of the upper less that of the lower tasks, in depths; its
            interval resamples tasks, and the groups of each.
        p: One-sided p-value over regroupings of the tasks: the difference is not above 0.
    """

    measure: str
    lower: tuple[str, ...]
    upper: tuple[str, ...]
    left_out: tuple[str, ...]
    difference: Estimate
    p: float


def gravity(
    scores: Float[np.ndarray, "*draw depth"], depths: Float[np.ndarray, " depth"], floor: float
) -> Float[np.ndarray, "*draw"]:
    """Centre of gravity of the gains over the first depth; NaN where there are none."""
    return _centre(np.maximum(scores - scores[..., :1], 0.0), depths)


def expected(
    scores: Float[np.ndarray, "*draw depth"], depths: Float[np.ndarray, " depth"], floor: float
) -> Float[np.ndarray, "*draw"]:
    """Expected depth at which the best score so far is gained; NaN where none is."""
    return _centre(np.diff(np.maximum.accumulate(scores, axis=-1), axis=-1), depths[1:])


def arrival(
    scores: Float[np.ndarray, "*draw depth"], depths: Float[np.ndarray, " depth"], floor: float
) -> Float[np.ndarray, "*draw"]:
    """Mean depth of the gains over the majority; NaN where there are none."""
    best = np.maximum.accumulate(np.maximum(scores, floor), axis=-1)
    return _centre(np.diff(best, axis=-1, prepend=floor), depths)


MEASURES = {"gravity": gravity, "expected": expected, "arrival": arrival}


def reach_draws(
    credit: Float[np.ndarray, "depth group"],
    weight: Float[np.ndarray, " group"],
    depths: Sequence[int],
    measure: str,
    *,
    floor: float,
    seed: int = 0,
) -> tuple[float, Float[np.ndarray, " resample"]]:
    """A measure of a curve, and of its resamples over groups, all depths together."""
    numbers = np.asarray(depths, dtype=float)
    times = resampled(len(weight), seed=seed)
    # A resample of groups whose numbers are all the mean has nothing to be scored on.
    total = times @ weight
    draws = (times @ credit.T) / np.where(total > 0, total, np.nan)[:, None]
    at_all = (credit.sum(axis=1) / weight.sum()).astype(float)
    summarise = MEASURES[measure]
    return float(summarise(at_all, numbers, floor)), summarise(draws, numbers, floor)


def reach(
    credit: Float[np.ndarray, "depth group"],
    weight: Float[np.ndarray, " group"],
    depths: Sequence[int],
    *,
    floor: float,
    seed: int = 0,
) -> Reach:
    """All measures of a curve, with intervals over groups.

    Args:
        credit: What the answers are worth, by depth and group.
        weight: What perfect answers are worth.
        depths: Number of each row of `credit`, rising.
        floor: Score of the majority.
        seed: Seed of the resampling.
    """
    found: dict[str, Estimate | None] = {}
    for measure in MEASURES:
        mean, draws = reach_draws(credit, weight, depths, measure, floor=floor, seed=seed)
        found[measure] = None
        if math.isfinite(mean):
            ends = (float(min(depths)), float(max(depths)))
            found[measure] = from_resamples(mean, draws, len(weight), within=ends)
    return Reach(**found)


def order_test(
    measured: Mapping[str, tuple[float, Float[np.ndarray, " resample"]]],
    lower: Sequence[str],
    upper: Sequence[str],
    *,
    measure: str,
    seed: int = 0,
) -> OrderTest:
    """Test whether some tasks arise at lower depths than others.

    Args:
        measured: By task, what `reach_draws` gives.
        lower: Names of the tasks that should lie lower.
        upper: Names of the others.
        measure: Which measure that is.
        seed: Seed of the resampling, and of the regroupings where they are drawn.

    Raises:
        InputError: If fewer than two tasks of either kind have the measure at all.
    """
    there = {name for name in (*lower, *upper) if math.isfinite(measured[name][0])}
    kept = [[name for name in names if name in there] for names in (lower, upper)]
    if min(map(len, kept)) < 2:
        raise InputError(
            f"an order of families takes two tasks of each kind with a gain to place "
            f"({measure}), not {len(kept[0])} and {len(kept[1])}"
        )
    means = np.asarray([measured[name][0] for names in kept for name in names])
    n_lower = len(kept[0])
    actual = _difference(means, range(n_lower))
    regrouped = np.asarray([_difference(means, some) for some in _groupings(means, n_lower, seed)])
    p = float((regrouped >= actual - 1e-9).mean())
    draws = _resampled_difference(measured, kept[0], kept[1], seed)
    return OrderTest(
        measure=measure,
        lower=tuple(kept[0]),
        upper=tuple(kept[1]),
        left_out=tuple(name for name in (*lower, *upper) if name not in there),
        difference=from_resamples(actual, draws, len(means)),
        p=p,
    )


def _centre(gains: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Mean depth, weighted by gains; NaN where there are none."""
    total = gains.sum(axis=-1)
    return np.asarray((gains @ depths) / np.where(total > 0, total, np.nan))


def _difference(means: np.ndarray, lower: Sequence[int]) -> float:
    """Mean of the others less the mean of the lower ones."""
    is_lower = np.zeros(len(means), dtype=bool)
    is_lower[list(lower)] = True
    return float(means[~is_lower].mean() - means[is_lower].mean())


def _groupings(means: np.ndarray, n_lower: int, seed: int) -> list[Sequence[int]]:
    """All groupings of the tasks; the actual one and random ones if there are too many."""
    if math.comb(len(means), n_lower) <= EXACT:
        return list(itertools.combinations(range(len(means)), n_lower))
    draw = numpy_generator(seed, "regrouped tasks", len(means), n_lower)
    drawn = [draw.permutation(len(means))[:n_lower].tolist() for _ in range(EXACT - 1)]
    return [range(n_lower), *drawn]


def _resampled_difference(
    measured: Mapping[str, tuple[float, np.ndarray]],
    lower: Sequence[str],
    upper: Sequence[str],
    seed: int,
) -> np.ndarray:
    """The difference with tasks drawn anew, each at a resample of its groups."""
    draw = numpy_generator(seed, "resampled tasks", len(lower), len(upper))
    sides = []
    for names in (lower, upper):
        chosen = draw.integers(len(names), size=(RESAMPLES, len(names)))
        values = np.stack([measured[name][1] for name in names])
        at = draw.integers(values.shape[1], size=chosen.shape)
        sides.append(np.nanmean(values[chosen, at], axis=1))
    return sides[1] - sides[0]
