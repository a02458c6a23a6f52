"""Results of comparing learners: errors, distances, and which one is nearest."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit import stats
from labkit.errors import InputError
from labkit.icl.implicit.regression_prompts import SETTINGS
from labkit.results.result import Result
from labkit.stats import Estimate, average
from labkit.stats.intervals import over_units

TRANSFORMER = "transformer"
Measure = Literal["error", "distance"]
"""Squared error against w . x, and squared distance from the transformer's predictions."""

MEASURES: dict[str, str] = {
    "error": "squared error",
    "distance": "squared distance from the transformer",
}


@dataclass(frozen=True, kw_only=True)
class RegressionResult(Result):
    """Predictions of a transformer and of learners with a formula, on the same prompts.

    The unit of every interval is the prompt. Predictions are in standard deviations of w . x, so
    that errors are shares of its variance.

    Attributes:
        settings: Distributions of prompts.
        learners: The learners; the transformer first.
        shares: Step size that was chosen for each gradient descent, as a share of the largest.
        bayes: The learner that no other can beat on prompts as in training.
        n_trained: Examples of the prompts in training; 0 where that is not known.
        seed: Seed of the prompts.
        predictions: Each learner's prediction after n = 0, 1, ... examples.
        clean: The true values.
    """

    settings: tuple[str, ...]
    learners: tuple[str, ...]
    shares: dict[str, float]
    bayes: str
    n_trained: int
    seed: int
    predictions: Float[np.ndarray, "setting learner prompt n"]
    clean: Float[np.ndarray, "setting prompt n"]

    @property
    def n_pairs(self) -> int:
        """Most examples of a prompt."""
        return self.clean.shape[-1] - 1

    @property
    def title(self) -> str:
        """What was measured, on what."""
        n_prompts = self.clean.shape[1]
        return (
            f"In-context linear regression: a transformer beside {len(self.learners) - 1} "
            f"learners, {n_prompts} prompts of up to {self.n_pairs} examples"
        )

    def values(self, measure: Measure = "error") -> Float[np.ndarray, "setting learner prompt n"]:
        """A measure, prompt by prompt, as a share of the variance of w . x.

        Raises:
            InputError: If there is no such measure.
        """
        if measure not in MEASURES:
            raise InputError(f"no measure {measure!r}; there are {', '.join(get_args(Measure))}")
        from_what = self.predictions[:, :1] if measure == "distance" else self.clean[:, None]
        return (self.predictions - from_what) ** 2

    def curve(
        self, learner: str, measure: Measure = "error", *, setting: str | None = None
    ) -> Float[np.ndarray, "prompt n"]:
        """A learner's measure, prompt by prompt, after n = 0, 1, ... examples."""
        return self.values(measure)[self._place(setting), self._learner(learner)]

    def estimate(
        self, learner: str, measure: Measure = "error", *, setting: str | None = None
    ) -> Estimate:
        """A learner's measure, its mean over n = 1, 2, ... examples; the first setting if none."""
        values = self.curve(learner, measure, setting=setting)[:, 1:].mean(axis=1)
        return average(values, within=(0.0, np.inf))

    def ratio(
        self, learner: str = TRANSFORMER, *, to: str | None = None, setting: str | None = None,
        n: int | None = None,
    ) -> Estimate:  # fmt: skip
        """A learner's squared error over another's: 1.1 is 10 % more.

        The interval is that of `labkit.stats.ratio`, both errors paired over prompts.

        Args:
            learner: The learner in the numerator.
            to: The learner in the denominator; by default the Bayes-optimal one.
            setting: By default the first.
            n: A number of examples; by default the mean over all from 1.
        """
        pairs = [self.curve(name, setting=setting) for name in (learner, to or self.bayes)]
        if n is not None and not 0 <= n <= self.n_pairs:
            raise InputError(f"{n} examples were not measured; 0 to {self.n_pairs} were")
        one, other = (errors[:, 1:].mean(axis=1) if n is None else errors[:, n] for errors in pairs)
        return stats.ratio(one, other, within=(0.0, np.inf))

    def nearest(self, setting: str | None = None) -> str:
        """The learner whose predictions are nearest to the transformer's."""
        means = self.values("distance")[self._place(setting), 1:, :, 1:].mean(axis=(1, 2))
        return self.learners[1 + int(means.argmin())]

    def ratios(self) -> pd.DataFrame:
        """The transformer's error over the Bayes-optimal one, in the first setting.

        Columns `examples, mean, low, high, n`: one row per number of examples from 1.
        """
        return pd.DataFrame(
            [
                {"examples": number} | self.ratio(n=number).to_dict()
                for number in range(1, self.n_pairs + 1)
            ]
        )

    def summary(self) -> pd.DataFrame:
        """One row per setting: nearest learner, errors, and error over the Bayes-optimal."""
        return pd.DataFrame(
            [
                {
                    "setting": name,
                    "transformer": str(self.estimate(TRANSFORMER, setting=name)),
                    self.bayes: str(self.estimate(self.bayes, setting=name)),
                    "ratio": str(self.ratio(setting=name)),
                    "nearest learner": (near := self.nearest(name)),
                    "distance": str(self.estimate(near, "distance", setting=name)),
                }
                for name in self.settings
            ]
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per setting, learner, measure and number of examples.

        Columns `setting, learner, measure, examples, mean, low, high, n`.
        """
        rows = []
        for measure in get_args(Measure):
            values = self.values(measure)
            cells = np.moveaxis(values, 2, 0)  # prompt, setting, learner, number of examples
            means, lows, highs, _ = over_units(cells, within=(0.0, np.inf))
            for place, name in enumerate(self.settings):
                for number, learner in enumerate(self.learners):
                    if measure == "distance" and learner == TRANSFORMER:
                        continue
                    rows.append(
                        pd.DataFrame(
                            {
                                "setting": name,
                                "learner": learner,
                                "measure": measure,
                                "examples": np.arange(self.n_pairs + 1),
                                "mean": means[place, number],
                                "low": lows[place, number],
                                "high": highs[place, number],
                                "n": values.shape[2],
                            }
                        )
                    )
        return pd.concat(rows, ignore_index=True)

    def figure(self, measure: Measure = "error", *, setting: str | None = None) -> Any:
        """A measure against the number of examples, one line per learner."""
        from labkit.plots.icl.regression import learner_curves

        place = self._place(setting)
        frame = self.to_frame()
        chosen = (frame["setting"] == self.settings[place]) & (frame["measure"] == measure)
        return learner_curves(
            frame[chosen],
            measure=MEASURES[measure],
            n_trained=self.n_trained if self.n_pairs > self.n_trained > 0 else None,
            title=self.title,
            subtitle=f"{SETTINGS[self.settings[place]][1]}; shares of the variance of w · x",
        )

    def figure_settings(self) -> Any:
        """Who the transformer resembles, setting by setting."""
        from labkit.plots.icl.regression import distance_map

        rows = [
            {"setting": name, "learner": learner}
            | self.estimate(learner, "distance", setting=name).to_dict()
            for name in self.settings
            for learner in self.learners[1:]
        ]
        return distance_map(
            pd.DataFrame(rows),
            title="Which learner says what the transformer says",
            subtitle="squared distance, share of the variance; mean over numbers of examples",
        )

    def _place(self, setting: str | None) -> int:
        if setting is not None and setting not in self.settings:
            raise InputError(f"{setting!r} was not measured; there are {', '.join(self.settings)}")
        return 0 if setting is None else self.settings.index(setting)

    def _learner(self, name: str) -> int:
        if name not in self.learners:
            raise InputError(f"no learner {name!r}; there are {', '.join(self.learners)}")
        return self.learners.index(name)
