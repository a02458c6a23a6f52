"""Results of `Influence`: what each demonstration adds, and how well it can be predicted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from labkit.icl.asking.measures import tested
from labkit.icl.asking.task_result import QueriesResult
from labkit.stats import Estimate, average
from labkit.stats.intervals import over_units

PANELS = {
    "influence": "leave-one-out, nats",
    "gradient": "gradient × input, nats",
    "attention": "attention, share",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class InfluenceResult(QueriesResult):
    """Influence of every demonstration of some sets on the answers to some queries.

    The unit of every interval is the query; all sets are shown to all of them.

    Attributes:
        shown: By set, input and label of each demonstration, in order.
        seed: Seed of the draws.
        full: Log-probability of the right label after all demonstrations, in nats.
        left_out: The same with one of them left out.
        gradient: Gradient times input over a demonstration's tokens, in nats.
        attention: Weight of the last position on its tokens, the sink left out, mean over heads,
            0..1.
    """

    shown: tuple[tuple[tuple[str, str], ...], ...]
    seed: int
    full: Float[np.ndarray, "set query"]
    left_out: Float[np.ndarray, "set query demonstration"]
    gradient: Float[np.ndarray, "set query demonstration"]
    attention: Float[np.ndarray, "set query demonstration"]

    @property
    def title(self) -> str:
        """What was measured, on what."""
        n_sets, n_queries, k = self.left_out.shape
        return (
            f"Influence of demonstrations on {self.task}: {self.model}, {n_sets} "
            f"set{'s' if n_sets > 1 else ''} of {k}, {n_queries} queries"
        )

    @property
    def influence(self) -> Float[np.ndarray, "set query demonstration"]:
        """By how much log P(right label) is higher with a demonstration, in nats."""
        return self.full[..., None] - self.left_out

    def to_frame(self) -> pd.DataFrame:
        """One row per demonstration, averaged over queries.

        Columns `set, position` (1 is the first), `input, label, demonstration`, and `influence`,
        `gradient`, `attention`, each with `_low` and `_high`: 95 % over queries; and `n`.
        """
        n_sets, n_queries, k = self.left_out.shape
        columns: dict[str, Any] = {
            "set": np.repeat(np.arange(1, n_sets + 1), k),
            "position": np.tile(np.arange(1, k + 1), n_sets),
            "input": [text for items in self.shown for text, _ in items],
            "label": [label for items in self.shown for _, label in items],
            "demonstration": [f"{text} → {label}" for items in self.shown for text, label in items],
        }
        for name in PANELS:
            by_query = np.moveaxis(getattr(self, name), 1, 0)
            mean, low, high, _ = (cells.ravel() for cells in over_units(by_query))
            columns |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        return pd.DataFrame(columns).assign(n=n_queries)

    def by_position(self) -> pd.DataFrame:
        """Mean influence by place: `position, mean, low, high, n`."""
        means = self.influence.mean(axis=0)
        return pd.DataFrame(
            {"position": place + 1} | average(means[:, place]).to_dict()
            for place in range(means.shape[1])
        )

    def agreement(self) -> pd.DataFrame:
        """Rank correlation of leave-one-out with attribution, and with position.

        Spearman's over the demonstrations of one prompt (0 where one side is the same for all),
        averaged over sets. Columns `reading` ("gradient", "attention", "position"), `mean, low,
        high, n`, `p` of a sign-flip test over queries against 0, `p_holm`.
        """
        place = np.broadcast_to(np.arange(float(self.left_out.shape[-1])), self.left_out.shape)
        others = {"gradient": self.gradient, "attention": self.attention, "position": place}
        ranks = {
            reading: _rank_correlation(self.influence, values).mean(axis=0)
            for reading, values in others.items()
        }
        pairs = (({"reading": name}, own, np.zeros_like(own)) for name, own in ranks.items())
        return tested(pairs, ("reading",), seed=self.seed)

    def figure(self) -> Any:
        """Leave-one-out and both attributions of every demonstration, by where it stands."""
        from labkit.plots.icl.vectors import worth_by_position

        ranks = {
            row["reading"]: f"{Estimate.from_dict(row):+.2f}"
            for row in self.agreement().to_dict("records")
        }
        panels = {
            name: f"{words}\nρ {ranks['position' if name == 'influence' else name]}"
            for name, words in PANELS.items()
        }
        return worth_by_position(
            self.to_frame(),
            panels,
            title=self.title,
            subtitle="ρ: rank correlation with leave-one-out (its own: with position)",
        )


def _rank_correlation(
    one: Float[np.ndarray, "*any n"], other: Float[np.ndarray, "*any n"]
) -> Float[np.ndarray, "*any"]:
    """Spearman's correlation over the last axis, -1..1; 0 where one side is constant."""
    ranks = [rankdata(values, axis=-1) for values in (one, other)]
    a, b = (values - values.mean(axis=-1, keepdims=True) for values in ranks)
    scale = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return (a * b).sum(axis=-1) / np.where(scale > 0, scale, 1.0)
