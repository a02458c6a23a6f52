"""Results of `Orders`: spread, the choice by entropy, recency and majority."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from labkit.icl.asking.measures import measured, shares_of
from labkit.icl.asking.task_result import TaskResult
from labkit.stats import Estimate, average, numpy_generator, paired_difference, share

Criterion = Literal["global", "local"]
PREFERRED = 1 / 6
"""Share of the orders that an entropy criterion keeps: 4 of 24, as in Lu et al."""


@dataclass(frozen=True, kw_only=True)
class OrdersResult(TaskResult):
    """Scores after the same demonstrations in different orders.

    Attributes:
        labels: The label space.
        shown: By set, the labels of its demonstrations in the order in which they were drawn.
        orders: By order, which demonstration stands where.
        seed: Seed of the draws.
        log_probs: Log-probability of each label after each query, in nats.
        probe_log_probs: The same after the inputs whose labels are not used.
    """

    labels: tuple[str, ...]
    shown: tuple[tuple[str, ...], ...]
    orders: Int[np.ndarray, "order k"]
    seed: int
    log_probs: Float[np.ndarray, "set order query label"]
    probe_log_probs: Float[np.ndarray, "set order probe label"]

    @property
    def title(self) -> str:
        """What was measured, on what."""
        n_orders, k = self.orders.shape
        return (
            f"{self.task} in {n_orders} orders: {self.model}, {len(self.gold)} queries after "
            f"{len(self.shown)} set{'s' if len(self.shown) > 1 else ''} of {k} demonstrations"
        )

    @property
    def right(self) -> Float[np.ndarray, "set order query"]:
        """1 where the right label is the likeliest, else 0."""
        return measured(self.log_probs, self.labels, self.gold)

    @property
    def shares(self) -> Float[np.ndarray, "set order query label"]:
        """Probability of each label among the labels, in 0..1."""
        return shares_of(self.log_probs)

    def entropies(self, criterion: Criterion = "global") -> Float[np.ndarray, "set order"]:
        """Entropy of the answers to the probes, in nats: 0 where all get the same for certain."""
        shares = shares_of(self.probe_log_probs)
        if criterion == "local":
            return _entropy(shares).mean(axis=-1)
        said = np.eye(len(self.labels))[shares.argmax(axis=-1)]
        return _entropy(said.mean(axis=-2))

    def preferred(self, criterion: Criterion = "global") -> np.ndarray:
        """By set and order, whether it is among those of highest entropy, a sixth of them."""
        n_kept = max(1, round(PREFERRED * len(self.orders)))
        rank = (-self.entropies(criterion)).argsort(axis=-1, kind="stable").argsort(axis=-1)
        return rank < n_kept

    def to_frame(self) -> pd.DataFrame:
        """One row per set and order: accuracy with its interval over queries, and the entropies.

        Columns `set, order` (the labels shown), `mean, low, high, n, global_entropy,
        local_entropy, preferred`.
        """
        right = self.right
        entropies = {f"{name}_entropy": self.entropies(name) for name in ("global", "local")}
        preferred = self.preferred()
        return pd.DataFrame(
            {"set": one, "order": ", ".join(self.shown[one][place] for place in order)}
            | share(right[one, number]).to_dict()
            | {name: float(values[one, number]) for name, values in entropies.items()}
            | {"preferred": bool(preferred[one, number])}
            for one in range(len(self.shown))
            for number, order in enumerate(self.orders)
        )

    def spread(self) -> Estimate:
        """Accuracy of the best order less that of the worst, in 0..1; its unit is the set.

        Part of it is luck, as with any best of many: see `best_on_new_queries`.
        """
        means = self.right.mean(axis=-1)
        return average(np.ptp(means, axis=1), within=(0.0, 1.0))

    def best_on_new_queries(self, draws: int = 20) -> Estimate:
        """What the order that is best on half of the queries gains on the other half.

        Over the mean of all orders there; each half in its turn, averaged over drawn halves. 0
        where the spread is luck. Its unit is the set.
        """
        return average(self.best_by_set(draws), within=(-1.0, 1.0))

    def best_by_set(self, draws: int = 20) -> Float[np.ndarray, " set"]:
        """What `best_on_new_queries` averages, by set of demonstrations."""
        draw = numpy_generator(self.seed, "halves", self.task)
        n_queries = len(self.gold)
        gains = []
        for _ in range(draws):
            order = draw.permutation(n_queries)
            halves = (order[: n_queries // 2], order[n_queries // 2 :])
            for one, other in (halves, halves[::-1]):
                best = self.right[..., one].mean(axis=-1).argmax(axis=-1)
                means = self.right[..., other].mean(axis=-1)
                gains.append(means[np.arange(len(best)), best] - means.mean(axis=-1))
        return np.mean(gains, axis=0)

    def gain_of_entropy(self, criterion: Criterion = "global") -> tuple[Estimate, float]:
        """Accuracy of the orders that an entropy prefers, less that of all orders; and its p.

        Paired query by query; the p-value is that of a sign-flip test.
        """
        gains = self.entropy_by_query(criterion)
        return paired_difference(gains, np.zeros_like(gains), seed=self.seed)

    def entropy_by_query(self, criterion: Criterion = "global") -> Float[np.ndarray, " query"]:
        """What `gain_of_entropy` averages, by query."""
        weights = self.preferred(criterion)[..., None].astype(np.float64)
        kept = (self.right * weights).sum(axis=1) / weights.sum(axis=1)
        return kept.mean(axis=0) - self.right.mean(axis=(0, 1))

    def by_position(self) -> pd.DataFrame:
        """Recency: how probable the label of a demonstration is, by its position.

        Columns `position` (1 is the first shown), `mean, low, high, n`: the share of the
        probability, among the labels, that its label gets. Over all orders every demonstration is
        at every position equally often: only the position differs.
        """
        means = self._by_position()
        return pd.DataFrame(
            {"position": place + 1} | average(means[:, place], within=(0.0, 1.0)).to_dict()
            for place in range(means.shape[1])
        )

    def recency(self) -> tuple[Estimate, float]:
        """Probability of a demonstration's label where it stands last, less where it stands first.

        As in `by_position`, query by query; and the p-value of a sign-flip test.
        """
        gains = self.recency_by_query()
        return paired_difference(gains, np.zeros_like(gains), seed=self.seed)

    def recency_by_query(self) -> Float[np.ndarray, " query"]:
        """What `recency` averages, by query."""
        means = self._by_position()
        return means[:, -1] - means[:, 0]

    def _by_position(self) -> Float[np.ndarray, "query position"]:
        """Share of the probability that the label shown at a position gets."""
        numbers = np.array([[self.labels.index(label) for label in own] for own in self.shown])
        at = numbers[:, self.orders]  # set, order, position
        shares = np.take_along_axis(self.shares, at[:, :, None, :], axis=-1)
        return shares.mean(axis=(0, 1))

    def by_count(self) -> pd.DataFrame:
        """Majority: how probable a label is, by how often the demonstrations show it.

        Columns `count, mean, low, high, n`: its share of the probability among the labels less
        the share of the queries that it is right for.
        """
        counts = np.array([[own.count(label) for label in self.labels] for own in self.shown])
        right = np.array([self.gold.count(label) for label in self.labels]) / len(self.gold)
        excess = self.shares.mean(axis=1) - right  # set, query, label
        return pd.DataFrame(
            {"count": int(count)}
            | average(
                np.mean([excess[s, :, n] for s, n in np.argwhere(counts == count)], axis=0),
                within=(-1.0, 1.0),
            ).to_dict()
            for count in np.unique(counts)
        )

    def figure(self) -> Any:
        """Accuracy of every order, one column of points per set."""
        from labkit.plots.icl.demonstrations import order_strip

        subtitle = f"filled: the sixth of highest global entropy; {self.source}"
        return order_strip(self.to_frame(), title=self.title, subtitle=subtitle)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy over the last axis, in nats."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=-1)
