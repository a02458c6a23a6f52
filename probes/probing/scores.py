"""Scoring a probe's answers: credit by group, intervals over groups, tests.

Words of one sentence are not independent, so nothing here counts examples as if they were: the
unit of every interval and test is the *group* (a sentence, a subject). Classes and numbers are
scored alike, as a ratio of sums over the test side,

    score = sum credit / sum weight

For classes an example's credit is 1 where the answer is right, else 0, and its weight 1: the
score is the accuracy, 0..1. For numbers its weight is (y - m)^2, with m the mean of the training
side, and its credit (y - m)^2 - (y - answer)^2: the score is R^2, at most 1, 0 for the mean.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from labkit.stats import Estimate, around, numpy_generator, ratio

RESAMPLES = 1000
"""Bootstrap resamples of the groups, and sign flips of a test."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """The test side of a task, ready to score answers.

    Attributes:
        labels: The right answers.
        group: Number of every example's group, 0..n_groups - 1.
        numeric: Whether the answers are numbers.
        centre: Mean of the training side's numbers; unused for classes.
        seed: Seed of every resampling: the same resamples for all answers, so that
            differences of two scores are paired.
    """

    labels: np.ndarray
    group: Int[np.ndarray, " example"]
    numeric: bool
    centre: float
    seed: int = 0

    @classmethod
    def of(
        cls,
        test: np.ndarray,
        groups: np.ndarray,
        train: np.ndarray,
        *,
        numeric: bool,
        seed: int = 0,
    ) -> "Scorer":
        """From the labels of both sides and the groups of the test side.

        Groups are numbered by name, so that the order of the test side does not matter.
        """
        numbers = np.unique(groups, return_inverse=True)[1]
        return cls(test, numbers, numeric, float(train.mean()) if numeric else 0.0, seed)

    @property
    def n_groups(self) -> int:
        """Number of groups on the test side."""
        return int(self.group.max()) + 1

    @property
    def weights(self) -> Float[np.ndarray, " example"]:
        """The credit of a perfect answer to each example."""
        return (self.labels - self.centre) ** 2 if self.numeric else np.ones(len(self.labels))

    def credits(self, answers: np.ndarray) -> Float[np.ndarray, " example"]:
        """The credit of each answer."""
        if self.numeric:
            return self.weights - (self.labels - answers.astype(float)) ** 2
        return (answers == self.labels).astype(float)

    def by_group(self, values: Float[np.ndarray, " example"]) -> Float[np.ndarray, " group"]:
        """Values of examples, summed within their groups."""
        # Sorted within a group before they are summed: their order must not tell in the last digit.
        order = np.lexsort((values, self.group))
        return np.bincount(self.group[order], weights=values[order], minlength=self.n_groups)

    def score(self, answers: np.ndarray, *, among: np.ndarray | None = None) -> Estimate:
        """The score of some answers, its interval over groups.

        Args:
            answers: One per example.
            among: True for the examples that count; all by default.
        """
        return self.ratio(self.credits(answers), self.weights, among=among)

    def ratio(
        self,
        credit: Float[np.ndarray, " example"],
        weight: Float[np.ndarray, " example"],
        *,
        among: np.ndarray | None = None,
    ) -> Estimate:
        """Sum of one quantity over the sum of another, its interval over groups."""
        kept = np.ones(len(credit)) if among is None else among.astype(float)
        parts, wholes = self.by_group(credit * kept), self.by_group(weight * kept)
        there = wholes > 0
        if self.numeric:
            return ratio(parts[there], wholes[there], within=(-np.inf, 1.0))
        return ratio(parts[there], wholes[there], share=True, units=float(kept.sum()))

    def difference(
        self,
        answers: np.ndarray,
        other: "Scorer",
        others: np.ndarray,
        *,
        among: np.ndarray | None = None,
    ) -> Estimate:
        """This score less the score of other answers to other labels of the same examples.

        Args:
            answers: Answers to these labels.
            other: A scorer with other labels.
            others: Answers to those.
            among: True for the examples that count; all by default.
        """
        kept = np.ones(len(self.labels)) if among is None else among.astype(float)
        found = []
        for of, given in ((self, answers), (other, others)):
            credit = self.by_group(of.credits(given) * kept)
            weight = self.by_group(of.weights * kept)
            score = credit.sum() / weight.sum()
            found.append((score, (credit - score * weight) / weight.mean(), weight))
        there = (found[0][2] > 0) | (found[1][2] > 0)
        n = int(there.sum())
        # The means are over all groups, those with nothing to be scored among them.
        moved = (found[0][1] - found[1][1])[there] * n / self.n_groups
        return around(
            float(found[0][0] - found[1][0]),
            moved,
            within=None if self.numeric else (-1.0, 1.0),
            clusters=min(float(w.sum() ** 2 / (w**2).sum()) for _, _, w in found),
        )

    def above(self, answers: np.ndarray, baseline: np.ndarray) -> float:
        """One-sided p-value: answers are no better than a baseline's; see `sign_flips`."""
        difference = self.credits(answers) - self.credits(baseline)
        return sign_flips(self.by_group(difference), seed=self.seed)


def resampled(n_groups: int, *, seed: int) -> Float[np.ndarray, "resample group"]:
    """How often each group is drawn in each resample, as many draws as groups."""
    draw = numpy_generator(seed, "groups", n_groups)
    return draw.multinomial(n_groups, np.full(n_groups, 1 / n_groups), RESAMPLES).astype(float)


def sign_flips(difference: Float[np.ndarray, " group"], *, seed: int = 0) -> float:
    """One-sided p-value of a positive sum of differences: probe minus baseline, by group.

    What is permuted are the names "probe" and "baseline" within each group, all examples of a
    group together. Under the hypothesis that neither is better, every sign is as likely.
    """
    signs = numpy_generator(seed, "sign flips", len(difference)).choice(
        (-1.0, 1.0), size=(RESAMPLES - 1, len(difference))
    )
    # A hair's breadth: sums that are equal but for rounding count as equal.
    slack = 1e-9 * max(float(np.abs(difference).sum()), 1e-300)
    return float(1 + (signs @ difference >= difference.sum() - slack).sum()) / RESAMPLES
