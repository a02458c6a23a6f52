"""Results of `Demonstrations`: the score of every label, and the measures derived from it."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.icl.asking.measures import MEASURES, Measure, measured, tested
from labkit.icl.asking.scoring import Tokens
from labkit.icl.asking.task_result import LabelsResult
from labkit.icl.behaviour.conditions import words_of
from labkit.stats import Estimate, paired_difference, ratio, share


@dataclass(frozen=True, kw_only=True)
class DemonstrationsResult(LabelsResult):
    """Scores of every label after every set of demonstrations.

    The unit of every interval is the query, its draws of demonstrations averaged first.

    Attributes:
        conditions: The conditions that demonstrations were under.
        ks: Numbers of demonstrations.
        tokens: How much of a label was scored.
        seed: Seed of the draws.
        log_probs: Log-probability of each label after each query, in nats.
        content_free: The same after inputs that say nothing.
    """

    conditions: tuple[str, ...]
    ks: tuple[int, ...]
    tokens: Tokens
    seed: int
    log_probs: Float[np.ndarray, "condition k draw query label"]
    content_free: Float[np.ndarray, "condition k draw free label"]

    @property
    def title(self) -> str:
        """What was measured, on what."""
        n_draws = self.log_probs.shape[2]
        scored = "all tokens" if self.tokens == "all" else "their first token"
        return (
            f"{self.task} in context: {self.model}, {len(self.queries)} queries after "
            f"{n_draws} draw{'s' if n_draws > 1 else ''} of demonstrations, "
            f"{len(self.labels)} labels by {scored}"
        )

    @property
    def chance(self) -> float:
        """Accuracy of a guess among the labels, in 0..1."""
        return 1 / len(self.labels)

    @property
    def majority(self) -> float:
        """Accuracy of always answering with the most frequent label among the queries, in 0..1."""
        return max(self.gold.count(label) for label in self.labels) / len(self.gold)

    def values(self, measure: Measure = "accuracy") -> Float[np.ndarray, "condition k draw query"]:
        """A measure, query by query, in 0..1.

        Raises:
            InputError: If there is no such measure.
        """
        return measured(self.log_probs, self.labels, self.gold, measure, free=self.content_free)

    def estimate(self, measure: Measure, condition: str, k: int) -> Estimate:
        """A measure under a condition with `k` demonstrations, its interval over queries.

        Raises:
            InputError: If that was not measured.
        """
        values = self.values(measure)[self._place(condition, k)].mean(axis=0)
        return share(values)

    def accuracy(self, condition: str, k: int) -> Estimate:
        """Share of queries whose right label is the likeliest, raw."""
        return self.estimate("accuracy", condition, k)

    def to_frame(self) -> pd.DataFrame:
        """One row per condition, number and measure.

        Columns `condition, k, measure, mean, low, high, n`, and `least, most`: the range over
        draws of demonstrations.
        """
        rows = []
        for measure in get_args(Measure):
            values = self.values(measure)
            for condition in self.conditions:
                for k in self.ks:
                    own = values[self._place(condition, k)]
                    draws = own.mean(axis=1)
                    spread = {"least": float(draws.min()), "most": float(draws.max())}
                    estimate = share(own.mean(axis=0)).to_dict()
                    rows.append(
                        {"condition": condition, "k": k, "measure": measure} | estimate | spread
                    )
        return pd.DataFrame(rows)

    def comparisons(self, *, against: str = "gold", measure: Measure = "accuracy") -> pd.DataFrame:
        """Every condition against one, query by query, at every number above 0.

        Columns `condition, k, mean, low, high, n` (of condition - `against`), `p` of a sign-flip
        test over queries, and `p_holm`, corrected for the number of rows.

        Raises:
            InputError: If `against` was not measured.
        """
        values = self.values(measure)
        pairs = [
            (condition, k, self._place(condition, k), self._place(against, k))
            for condition in self.conditions
            for k in self.ks
            if condition != against and k > 0
        ]
        return self._tested([(c, k, values[one], values[two]) for c, k, one, two in pairs])

    def difference(
        self, condition: str, against: str, k: int, *, measure: Measure = "accuracy"
    ) -> tuple[Estimate, float]:
        """One condition less another at `k`, query by query; and the p of a sign-flip test.

        Raises:
            InputError: If one of the two was not measured.
        """
        values = self.values(measure)
        one, other = (values[self._place(name, k)].mean(axis=0) for name in (condition, against))
        return paired_difference(one, other, seed=self.seed)

    def differences(
        self, condition: str, against: str, k: int, *, measure: Measure = "accuracy"
    ) -> Float[np.ndarray, " query"]:
        """One condition less another at `k`, by query, draws averaged.

        Raises:
            InputError: If one of the two was not measured.
        """
        values = self.values(measure)
        one, other = (values[self._place(name, k)].mean(axis=0) for name in (condition, against))
        return one - other

    def gains(self, *, measure: Measure = "accuracy") -> pd.DataFrame:
        """Every condition and number against no demonstration; columns as in `comparisons`.

        Raises:
            InputError: If zero demonstrations were not measured.
        """
        values = self.values(measure)
        pairs = [
            (condition, k, values[self._place(condition, k)], values[self._place(condition, 0)])
            for condition in self.conditions
            for k in self.ks
            if k > 0
        ]
        return self._tested(pairs)

    def label_effect(self, k: int) -> Estimate:
        """Share of the gain from demonstrations that is lost with random labels.

        (gold - random) / (gold - none), of accuracies: 0 where labels do not matter, 1 where
        demonstrations with random labels are worth as little as none. Its interval is that of
        `labkit.stats.ratio` over queries: it is wide where demonstrations gain little.

        Raises:
            InputError: If one of the three was not measured, or there is no gain.

        References:
            Yoo et al. (2022), Ground-Truth Labels Matter, section 3: the ground-truth label
            effect ratio.
        """
        values = self.values("accuracy")
        gold, random, none = (
            values[self._place(condition, number)].mean(axis=0)
            for condition, number in (("gold", k), ("random", k), ("gold", 0))
        )
        gain = gold.mean() - none.mean()
        if gain <= 0:
            raise InputError(
                f"{k} demonstrations gain {gain:.3f} over none: there is nothing to lose"
            )
        return ratio(gold - random, gold - none)

    def figure(self, measure: Measure = "accuracy") -> Any:
        """A measure against the number of demonstrations, one line per condition."""
        from labkit.plots.icl.demonstrations import measure_by_k

        frame = self.to_frame()
        frame = frame[frame["measure"] == measure]
        accuracy = measure in ("accuracy", "calibrated")
        levels = {"chance": self.chance, "majority": self.majority} if accuracy else {}
        return measure_by_k(
            frame.assign(condition=frame["condition"].map(words_of)),
            measure=MEASURES[measure],
            levels=levels,
            title=self.title,
            subtitle=f"95 % intervals over {len(self.queries)} queries; {self.source}",
        )

    def _tested(self, pairs: list[tuple[str, int, np.ndarray, np.ndarray]]) -> pd.DataFrame:
        """Differences of pairs of `[draw, query]` values, tested together."""
        return tested(
            (
                ({"condition": condition, "k": k}, one.mean(axis=0), two.mean(axis=0))
                for condition, k, one, two in pairs
            ),
            ("condition", "k"),
            seed=self.seed,
        )

    def _place(self, condition: str, k: int) -> tuple[int, int]:
        """Where a condition and number stand in the arrays."""
        if condition not in self.conditions or k not in self.ks:
            raise InputError(
                f"{condition!r} with {k} demonstrations was not measured; there are "
                f"{', '.join(self.conditions)} with {', '.join(map(str, self.ks))}"
            )
        return self.conditions.index(condition), self.ks.index(k)
