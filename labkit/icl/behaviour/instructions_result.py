"""Results of `Instructions`: instructions against demonstrations, and the model's own proposals."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.icl.asking.measures import MEASURES, Measure, measured, tested
from labkit.icl.asking.scoring import Tokens
from labkit.icl.asking.task_result import LabelsResult
from labkit.stats import Estimate, paired_difference, share

Criterion = Literal["accuracy", "log_prob"]
"""What candidates are chosen by: execution accuracy (ties by log-probability), or the latter."""

PROPOSED, ANY = "proposed", "any proposed"


@dataclass(frozen=True, kw_only=True)
class InstructionsResult(LabelsResult):
    """Scores of every label after instructions, demonstrations, both and neither.

    The unit of every interval is the query, its draws averaged first.

    Attributes:
        development_gold: Labels of the items that candidates were chosen on.
        k: Number of demonstrations.
        tokens: How much of a label was scored.
        seed: Seed of the draws.
        written: By draw, the instruction that was written for the task.
        others: By draw, one of another task.
        arms: What preceded a query.
        log_probs: Log-probability of each label after each query, in nats.
        candidates: The instructions that the model proposed, each once.
        candidate_log_probs: The same after each of them.
        development_log_probs: The same for the items that they were chosen on.
    """

    development_gold: tuple[str, ...]
    k: int
    tokens: Tokens
    seed: int
    written: tuple[str, ...]
    others: tuple[str, ...]
    arms: tuple[str, ...]
    log_probs: Float[np.ndarray, "arm draw query label"]
    candidates: tuple[str, ...]
    candidate_log_probs: Float[np.ndarray, "candidate query label"]
    development_log_probs: Float[np.ndarray, "candidate development label"]

    @property
    def title(self) -> str:
        """What was measured, on what."""
        return (
            f"{self.task}, told and shown: {self.model}, {len(self.queries)} queries, "
            f"{self.log_probs.shape[1]} draws of {self.k} demonstrations"
        )

    def values(self, measure: Measure = "accuracy") -> dict[str, Float[np.ndarray, " query"]]:
        """By arm a measure of every query, in 0..1, its draws averaged.

        With candidates also of the best of them, and of their mean: what one of them, drawn at
        random, is worth on average.

        Raises:
            InputError: If there is no such measure.
        """
        means = measured(self.log_probs, self.labels, self.gold, measure).mean(axis=1)
        found = dict(zip(self.arms, means, strict=True))
        if self.candidates:
            own = measured(self.candidate_log_probs, self.labels, self.gold, measure)
            found |= {PROPOSED: own[self.best()], ANY: own.mean(axis=0)}
        return found

    def best(self, criterion: Criterion = "accuracy") -> int:
        """The candidate that is best on the development items, as a number.

        Raises:
            InputError: If the model proposed nothing.
        """
        if not self.candidates:
            raise InputError(f"{self.model} proposed no instruction for {self.task!r}")
        accuracy, log_prob = self._development()
        by = (log_prob,) if criterion == "log_prob" else (log_prob, accuracy)
        return int(np.lexsort(by)[-1])

    def estimate(self, arm: str, measure: Measure = "accuracy") -> Estimate:
        """A measure after one of the arms, its interval over queries.

        Raises:
            InputError: If that was not measured.
        """
        return share(self._value(arm, measure))

    def to_frame(self) -> pd.DataFrame:
        """One row per arm and measure: columns `arm, measure, mean, low, high, n`."""
        return pd.DataFrame(
            {"arm": arm, "measure": measure} | share(values).to_dict()
            for measure in ("accuracy", "gold", "mass")
            for arm, values in self.values(measure).items()
        )

    def comparisons(
        self, *, against: str = "neither", measure: Measure = "accuracy"
    ) -> pd.DataFrame:
        """Every arm against one, query by query.

        Columns `arm, mean, low, high, n` (of arm - `against`), `p` of a sign-flip test over
        queries, and `p_holm`, corrected for the number of rows.

        Raises:
            InputError: If `against` was not measured.
        """
        base = self._value(against, measure)
        others = {arm: v for arm, v in self.values(measure).items() if arm != against}
        pairs = (({"arm": arm}, values, base) for arm, values in others.items())
        return tested(pairs, ("arm",), seed=self.seed)

    def difference(
        self, arm: str, against: str, measure: Measure = "accuracy"
    ) -> tuple[Estimate, float]:
        """One arm less another, query by query; and the p-value of a sign-flip test.

        Raises:
            InputError: If one of the two was not measured.
        """
        one, other = self._value(arm, measure), self._value(against, measure)
        return paired_difference(one, other, seed=self.seed)

    def differences(
        self, arm: str, against: str, measure: Measure = "accuracy"
    ) -> Float[np.ndarray, " query"]:
        """One arm less another, by query.

        Raises:
            InputError: If one of the two was not measured.
        """
        return self._value(arm, measure) - self._value(against, measure)

    def candidate_frame(self) -> pd.DataFrame:
        """One row per candidate, the best on the development items first.

        Columns `candidate`, `development` (accuracy there), `log_prob` (of the right label there,
        mean, in nats), `mean, low, high, n` (accuracy on the queries).
        """
        accuracy, log_prob = self._development()
        own = measured(self.candidate_log_probs, self.labels, self.gold)
        frame = pd.DataFrame(
            [
                {
                    "candidate": candidate,
                    "development": float(accuracy[number]),
                    "log_prob": float(log_prob[number]),
                }
                | share(own[number]).to_dict()
                for number, candidate in enumerate(self.candidates)
            ],
            columns=["candidate", "development", "log_prob", "mean", "low", "high", "n"],
        )
        return frame.sort_values(["development", "log_prob"], ascending=False, ignore_index=True)

    def figure(self, measure: Measure = "accuracy") -> Any:
        """A measure by what preceded the query."""
        from labkit.plots.icl.demonstrations import measure_by_row

        frame = self.to_frame()
        frame = frame[frame["measure"] == measure].rename(columns={"arm": "row"})
        return measure_by_row(
            frame.assign(series=self.task),
            measure=MEASURES[measure],
            title=self.title,
            subtitle=f"95 % intervals over {len(self.queries)} queries; {self.source}",
        )

    def figure_candidates(self) -> Any:
        """Every proposed instruction: accuracy where it was chosen, and on the queries.

        Raises:
            InputError: If the model proposed nothing.
        """
        from labkit.plots.icl.demonstrations import candidate_scatter

        levels = {arm: self.estimate(arm).mean for arm in ("instruction", "demonstrations")}
        return candidate_scatter(
            self.candidate_frame(),
            levels=levels,
            title=f"{len(self.candidates)} instructions that {self.model} proposes: {self.task}",
            subtitle=f"chosen on {len(self.development_gold)} items, asked {len(self.queries)}",
        )

    def _development(self) -> tuple[np.ndarray, np.ndarray]:
        """By candidate: accuracy, and log-probability of the right label, where they are chosen."""
        scores, gold = self.development_log_probs, self.development_gold
        right = measured(scores, self.labels, gold).mean(axis=-1)
        places = np.array([self.labels.index(label) for label in gold])
        of_gold = scores[:, np.arange(len(places)), places].astype(np.float64)
        return right, of_gold.mean(axis=-1)

    def _value(self, arm: str, measure: Measure) -> np.ndarray:
        """A measure of one arm, query by query."""
        values = self.values(measure)
        if arm not in values:
            raise InputError(f"{arm!r} was not measured; there are {', '.join(values)}")
        return values[arm]
