"""What the regression transformer represents: can a learner's quantities be read from its states?

A learner that solves least squares passes through b = sum y x, or ends with a vector w. A linear
map (ridge, its strength chosen in cross-validation) from the state after n examples to that
vector is fitted on some prompts and scored on others, at every depth:

    R² = 1 - |target - map(state)|^2 / |target - mean target|^2,  summed over dimensions

Two controls. The same map from the states of *random weights* shows what attention gives away
before anything is learned. The map from the states to the target of *another prompt* shows its
score when there is nothing to read: about 0, or below.

The last target is a control too: the true weights less ridge's are independent of the examples'
best summary, so nothing that has seen the examples alone can know them, and R² must be about 0.

What it does not show: that the model uses what is read.

References:
    Akyürek et al. (2023), What Learning Algorithm Is In-Context Learning?, section 5.

Differs from the paper:
    They learn a weighted mean over positions and probe with one hidden layer too; here the map is
    linear, and the state that of one token, or the plain mean over the tokens of all y: a sum over
    examples need not stand on any one token, where every y keeps a share of it.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from labkit.errors import InputError
from labkit.icl.implicit.regression_learners import LeastSquares, Ridge, moments
from labkit.icl.implicit.regression_model import ContextRegressor
from labkit.icl.implicit.regression_prompts import NOISE, Prompts, draw
from labkit.results.result import Result
from labkit.stats import Estimate, numpy_generator, ratio

Place = Literal["labels", "last label", "query"]
"""The mean over the tokens of all y; the last of them, before any query; the query after it."""
PLACES = {
    "labels": "in the mean over all labels",
    "last label": "at the last label",
    "query": "at the query",
}
STRENGTHS = tuple(10.0**power for power in range(-2, 5))
RESAMPLES = 1000


def targets(prompts: Prompts) -> dict[str, Float[np.ndarray, "prompt d"]]:
    """The vectors that may be represented, after all pairs but the last position's, by name."""
    x, y = prompts.x, prompts.y
    _, b = moments(x, y)
    ridge = Ridge(penalty=NOISE**2).weights(x, y)
    named = {
        "moment Σ y x": b,
        "ridge weights": ridge,
        "least-squares weights": LeastSquares().weights(x, y),
        "true - ridge weights": prompts.w[:, None].double() - ridge,
    }
    return {name: values[:, -1].cpu().numpy() for name, values in named.items()}


@dataclass(frozen=True, kw_only=True)
class ReadingResult(Result):
    """How well vectors of a learner are read from the states, and from the controls.

    Attributes:
        place: Whose state was read.
        n_examples: Pairs before the query.
        targets: What was read.
        readings: `states`, and the controls `twin` and `shuffled`.
        seed: Seed of the prompts.
        missed: Squared error of the map, summed over dimensions.
        spread: Squared distance of the target from its mean.
    """

    place: Place
    n_examples: int
    targets: tuple[str, ...]
    readings: tuple[str, ...]
    seed: int
    missed: Float[np.ndarray, "target reading depth prompt"]
    spread: Float[np.ndarray, "target reading prompt"]

    @property
    def title(self) -> str:
        """What was measured, on what."""
        return (
            f"What a linear map reads {PLACES[self.place]}, {self.n_examples} examples, "
            f"{self.spread.shape[2]} prompts"
        )

    def r2(self, target: str, depth: int, reading: str = "states") -> Estimate:
        """R² of a reading, its interval over prompts (`labkit.stats.ratio`).

        Raises:
            InputError: If that was not measured.
        """
        n_depths = self.missed.shape[2]
        if target not in self.targets or reading not in self.readings or not 0 <= depth < n_depths:
            raise InputError(
                f"{target!r} from {reading!r} at depth {depth} was not measured; there are "
                f"{', '.join(self.targets)} from {', '.join(self.readings)} up to {n_depths - 1}"
            )
        which = self.targets.index(target), self.readings.index(reading)
        missed, spread = self.missed[which][depth], self.spread[which]
        of_spread = ratio(missed, spread, within=(0.0, np.inf))
        score = float(1 - missed.sum() / spread.sum())
        return Estimate(score, 1 - of_spread.high, 1 - of_spread.low, missed.size)

    def best_depth(self, target: str) -> int:
        """The depth at which a target is best read from the states."""
        scores = [self.r2(target, depth).mean for depth in range(self.missed.shape[2])]
        return int(np.argmax(scores))

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: `target, reading, depth, mean, low, high, n` (of R²)."""
        return pd.DataFrame(
            [
                {"target": target, "reading": reading, "depth": depth}
                | self.r2(target, depth, reading).to_dict()
                for target in self.targets
                for reading in self.readings
                for depth in range(self.missed.shape[2])
            ]
        )

    def figure(self) -> Any:
        """R² by depth, one panel per target, beside the controls."""
        from labkit.plots.icl.regression import reading_by_depth

        return reading_by_depth(
            self.to_frame(), title=self.title, subtitle="95 % intervals over prompts held back"
        )


@dataclass(frozen=True, kw_only=True)
class ReadLearner:
    """Read a learner's vectors off the states after a number of examples.

    Attributes:
        n_examples: Pairs before the query.
        place: Whose state is read: the mean over the tokens of all y, the last one's (which has
            seen all examples and no query), or the query's.
        fitted_on: Prompts that the maps are fitted on.
        scored_on: Prompts that they are scored on.
        seed: Seed of the prompts, of the random weights and of the shuffling.
    """

    n_examples: int = 10
    place: Place = "labels"
    fitted_on: int = 1200
    scored_on: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a reading without prompts."""
        if self.place not in get_args(Place):
            raise InputError(f"no place {self.place!r}; there are {', '.join(get_args(Place))}")
        if self.n_examples < 1 or self.fitted_on < 10 or self.scored_on < 2:
            raise InputError(
                "a reading takes an example, ten prompts to fit and two to score at least, not "
                f"{self.n_examples}, {self.fitted_on} and {self.scored_on}"
            )

    def __call__(self, model: ContextRegressor) -> ReadingResult:
        """R² at every depth of the states, of random weights and of another prompt's target."""
        n_prompts = self.fitted_on + self.scored_on
        prompts = draw("trained", n_prompts, self.n_examples, seed=self.seed, d=model.shape.d)
        twin = ContextRegressor(model.shape, seed=self.seed + 1).eval()
        states, untrained = (self._states(one, prompts) for one in (model, twin))
        draws = numpy_generator(self.seed, "reading")
        # Within both parts, so that a part has the same targets in another order.
        shuffled = np.concatenate(
            [
                draws.permutation(self.fitted_on),
                self.fitted_on + draws.permutation(self.scored_on),
            ]
        )
        own = targets(prompts)
        missed, spread = [], []
        for target in own.values():
            sources = ((states, target), (untrained, target), (states, target[shuffled]))
            missed.append([[self._missed(at, goal) for at in all_at] for all_at, goal in sources])
            mean = target[: self.fitted_on].mean(axis=0)
            goals = (goal[self.fitted_on :] for _, goal in sources)
            spread.append([((goal - mean) ** 2).sum(axis=1) for goal in goals])
        return ReadingResult(
            place=self.place,
            n_examples=self.n_examples,
            targets=tuple(own),
            readings=("states", "twin", "shuffled"),
            seed=self.seed,
            missed=np.array(missed),
            spread=np.array(spread),
        )

    def _states(
        self, model: ContextRegressor, prompts: Prompts
    ) -> Float[np.ndarray, "depth prompt d_model"]:
        """The states of the place that is read."""
        states = model.states(prompts.x, prompts.y)
        if self.place == "labels":
            return states[:, :, 1::2].mean(dim=2).cpu().numpy()
        return states[:, :, -2 if self.place == "last label" else -1].cpu().numpy()

    def _missed(self, states: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Squared errors on the prompts held back, of a map fitted on the others."""
        reader = make_pipeline(StandardScaler(), RidgeCV(alphas=STRENGTHS))
        reader.fit(states[: self.fitted_on], target[: self.fitted_on])
        said = reader.predict(states[self.fitted_on :])
        return ((said - target[self.fitted_on :]) ** 2).sum(axis=1)
