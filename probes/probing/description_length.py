"""How many bits it takes to tell the labels to someone who has the states.

The labels are sent in portions. The first is sent by a uniform code; then, portion by portion,
both sides fit the same probe to what has been sent, and its probabilities code the next:

    L = t_1 log2 K  -  sum_{i=1}^{S-1}  log2 p_{theta_i}(y_{t_i + 1 .. t_{i+1}} | x)

with theta_i fitted to the first t_i examples, and K classes. A state that holds the labels in a
form that is easy to read needs few bits, and reaches them with few examples. `compression` is
n log2 K / L: 1 for a probe that knows nothing, higher is better.

References:
    Voita and Titov (2020), Information-Theoretic Probing with Minimum Description Length,
    section 2.2 (online code) and appendix A (the portions).

Differs from the paper:
    Portions end where a group ends, so that no sentence helps to code its own rest; a probe's
    probabilities are mixed with half an example of each class, since a class that has not come
    yet would cost infinitely many bits; the probe is the regularised one of the score, not one
    stopped early on a development set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import clone

from labkit.arguments import require_kind
from labkit.errors import InputError
from labkit.stats import Estimate, around, numpy_generator, ratio

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the paper's portions, as shares of the data."""

FEW_PORTIONS = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the portions in a map: the short first ones add little and cost a fit each."""


@dataclass(frozen=True, kw_only=True)
class OnlineCode:
    """How labels are sent.

    Attributes:
        portions: Ends of the portions, as rising shares of the data; the last is 1.
        seed: Seed of the order in which groups are sent.

    Raises:
        InputError: If the portions do not rise to 1.
    """

    portions: Sequence[float] = PORTIONS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse portions that are none."""
        object.__setattr__(self, "portions", checked_portions(self.portions))


def checked_portions(portions: Sequence[float]) -> tuple[float, ...]:
    """Ends of portions, as a tuple.

    Raises:
        InputError: If they do not rise from above 0 to 1.
    """
    try:
        ends = tuple(float(end) for end in portions)
    except (TypeError, ValueError) as error:
        raise InputError(f"portions of {portions!r}: shares that rise to 1") from error
    rising = all(low < high for low, high in zip((0.0, *ends), ends, strict=False))
    if not ends or ends[-1] != 1 or not rising:
        raise InputError(f"portions of {ends}: shares that rise from above 0 to 1")
    return ends


USUAL = OnlineCode()
"""The paper's portions."""


@dataclass(frozen=True, kw_only=True)
class Portion:
    """One step of the code.

    Attributes:
        n_before: Examples that were sent before: what the probe is fitted to; 0 for the first.
        n: Examples of this portion.
        bits: What they cost.
        score: Score on the test side of the probe fitted to the examples up to and including
            this portion; None where no test side was given.
    """

    n_before: int
    n: int
    bits: float
    score: float | None


@dataclass(frozen=True, kw_only=True)
class DescriptionLength:
    """The length of the online code, and how it came about.

    Attributes:
        bits: Bits for all labels; its interval is over groups.
        uniform: Bits of the uniform code, n log2 K.
        compression: `uniform` over `bits`: 1 for nothing learned; its interval is over groups.
        portions: The steps. Their scores are the sample-size curve.
    """

    bits: Estimate
    uniform: float
    compression: Estimate
    portions: tuple[Portion, ...]


def online_code(
    head: Any,
    states: Float[np.ndarray, "example width"],
    labels: np.ndarray,
    groups: np.ndarray,
    how: OnlineCode = USUAL,
    *,
    order: Sequence[int] | None = None,
    score: Callable[[Any], float] | None = None,
) -> DescriptionLength:
    """The description length of labels given states.

        online_code(head, states, labels, groups).compression

    Args:
        head: An unfitted scikit-learn classifier with `predict_proba`; it is cloned.
        states: What both sides have, scaled already.
        labels: What is sent: classes.
        groups: What no portion may cut.
        how: In which portions, and with which seed.
        order: The order in which examples are sent, whole groups together; by default groups
            in a random order.
        score: Score of a fitted probe on a test side, for the sample-size curve.

    Raises:
        InputError: If the probe knows no probabilities.

    Shows:
        How many bits the labels take for someone who has the states: what is easy to read from
        few examples costs few.

    Does not show:
        That the model uses what is read; and the length depends on the probe and the order in
        which examples are sent.
    """
    if not hasattr(head, "predict_proba"):
        raise InputError(f"{type(head).__name__} gives no probabilities for the code: use logistic")
    require_kind("how", how, OnlineCode)
    sent = _by_group(groups, how.seed) if order is None else np.asarray(order)
    states, labels, groups = states[sent], labels[sent], groups[sent]
    classes = np.unique(labels)
    ends = portion_ends(groups, how.portions)
    cost = np.full(len(labels), np.log2(len(classes)))
    steps = []
    fitted: Any = None
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        if fitted is not None:
            cost[start:stop] = _cost(fitted, classes, states[start:stop], labels[start:stop], start)
        if stop < len(labels) or score is not None:
            fitted = _fit(clone(head), states[:stop], labels[:stop])
        reached = None if score is None else score(fitted)
        bits = float(cost[start:stop].sum())
        steps.append(Portion(n_before=start, n=stop - start, bits=bits, score=reached))
    return _summed(cost, groups, len(classes), tuple(steps))


def portion_ends(groups: np.ndarray, portions: Sequence[float]) -> list[int]:
    """Where portions end: at the first end of a group at or after each share; each once."""
    n = len(groups)
    borders = [*(np.flatnonzero(groups[1:] != groups[:-1]) + 1).tolist(), n]
    ends: list[int] = []
    for share in portions:
        end = next(border for border in borders if border >= min(round(share * n), n))
        if not ends or end > ends[-1]:
            ends.append(end)
    return ends


class _Constant:
    """The probe for training data of one class only."""

    def __init__(self, label: Any) -> None:
        self.classes_ = np.asarray([label])

    def predict_proba(self, states: np.ndarray) -> np.ndarray:
        return np.ones((len(states), 1))

    def predict(self, states: np.ndarray) -> np.ndarray:
        return np.repeat(self.classes_, len(states))


def _fit(head: Any, states: np.ndarray, labels: np.ndarray) -> Any:
    """The probe, or a constant if one class only has occurred so far."""
    if len(set(labels.tolist())) < 2:
        return _Constant(labels[0])
    return head.fit(states, labels)


def _cost(
    fitted: Any, classes: np.ndarray, states: np.ndarray, labels: np.ndarray, n_seen: int
) -> Float[np.ndarray, " example"]:
    """Bits of each label under a probe that has seen `n_seen` examples."""
    known = np.zeros((len(labels), len(classes)))
    known[:, np.searchsorted(classes, fitted.classes_)] = fitted.predict_proba(states)
    mixed = (n_seen * known + 0.5) / (n_seen + len(classes) / 2)
    return -np.log2(mixed[np.arange(len(labels)), np.searchsorted(classes, labels)])


def _by_group(groups: np.ndarray, seed: int) -> np.ndarray:
    """An order of the examples with the groups at random, each one's examples together."""
    names, numbers = np.unique(groups, return_inverse=True)
    place = numpy_generator(seed, "online code", len(names)).permutation(len(names))
    return np.argsort(place[numbers], kind="stable")


def _summed(
    cost: np.ndarray, groups: np.ndarray, n_classes: int, steps: tuple[Portion, ...]
) -> DescriptionLength:
    """Sums with their intervals over groups."""
    n = len(cost)
    uniform, total = n * float(np.log2(n_classes)), float(cost.sum())
    numbers = np.unique(groups, return_inverse=True)[1]
    size, bits = np.bincount(numbers), np.bincount(numbers, weights=cost)
    each = ratio(bits, size, within=(0.0, np.inf))  # bits per example
    clusters = float(n**2 / (size**2).sum())
    spared = uniform / total * (size / size.mean() - bits / bits.mean())
    return DescriptionLength(
        bits=Estimate(total, n * each.low, n * each.high, each.n),
        uniform=uniform,
        compression=around(uniform / total, spared, within=(0.0, np.inf), clusters=clusters),
        portions=steps,
    )
