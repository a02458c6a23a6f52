"""What can be read from the scores of all labels after a query: measures, and paired tests.

accuracy     1 where the right label is the likeliest, else 0
calibrated   the same after dividing by the label probabilities on content-free inputs
gold         probability of the right label
mass         probability of all labels together
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from labkit.errors import InputError
from labkit.stats import holm, paired_difference

Measure = Literal["accuracy", "calibrated", "gold", "mass"]
"""Accuracy, raw and calibrated; probability of the right label, and of all labels together."""

MEASURES: dict[str, str] = {
    "accuracy": "accuracy",
    "calibrated": "calibrated accuracy",
    "gold": "probability of the right label",
    "mass": "probability of all labels together",
}
"""What can be read off the answers to a prompt, and how tables and axes name it."""


def measured(
    log_probs: np.ndarray,
    labels: Sequence[str],
    gold: Sequence[str],
    measure: Measure = "accuracy",
    *,
    free: np.ndarray | None = None,
) -> np.ndarray:
    """A measure, query by query, in 0..1.

    Args:
        log_probs: Log-probability of each label, `[..., query label]`, in nats.
        labels: The label space.
        gold: The right label of each query.
        measure: Which one.
        free: The same after inputs that say nothing, `[..., free label]`, for "calibrated".

    Raises:
        InputError: If there is no such measure, or nothing to calibrate with.
    """
    if measure not in MEASURES:
        raise InputError(f"no measure {measure!r}; there are {', '.join(get_args(Measure))}")
    wide = log_probs.astype(np.float64)
    right = np.array([labels.index(label) for label in gold])
    if measure == "mass":
        return np.exp(wide).sum(axis=-1)
    if measure == "gold":
        return np.exp(wide[..., np.arange(len(right)), right])
    if measure == "calibrated":
        if free is None:
            raise InputError("no content-free input was scored: calibration needs one")
        wide = wide - np.log(np.maximum(shares_of(free).mean(axis=-2), 1e-30))[..., None, :]
    return (wide.argmax(axis=-1) == right).astype(np.float64)


def shares_of(log_probs: np.ndarray) -> np.ndarray:
    """Probabilities among the labels alone (the last axis), which sum to 1."""
    wide = log_probs.astype(np.float64)
    shares = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def tested(
    pairs: Iterable[tuple[Mapping[str, Any], np.ndarray, np.ndarray]],
    columns: Sequence[str],
    *,
    seed: int,
) -> pd.DataFrame:
    """Differences of paired values, tested together.

    Args:
        pairs: What a pair is about, and the values of the one and the other, one per query.
        columns: Names of what a pair is about.
        seed: Seed of the intervals and tests.

    Returns:
        `columns`, then `mean, low, high, n` of one - other, `p` of a sign-flip test, and
        `p_holm`, corrected for the number of pairs.
    """
    rows = []
    for about, one, other in pairs:
        estimate, p = paired_difference(one, other, seed=seed)
        rows.append({**about} | estimate.to_dict() | {"p": p})
    frame = pd.DataFrame(rows, columns=[*columns, "mean", "low", "high", "n", "p"])
    return frame.assign(p_holm=holm(frame["p"].tolist()))
