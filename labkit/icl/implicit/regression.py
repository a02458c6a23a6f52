"""Which learner does a transformer trained on linear regression resemble?

Two numbers per learner, at every number of examples n: its squared error, and the squared distance
between its predictions and the transformer's on the same prompts. A transformer can have the error
of ridge regression and still predict differently (two learners can be wrong on different prompts);
only the second number shows whether it does what ridge does.

    squared error        mean (prediction - w . x)^2 / Var(w . x)
    squared distance     mean (prediction - transformer's prediction)^2 / Var(w . x)

Both are shares of the variance of the target: 1 is the error of always predicting 0. The
target is w . x itself, without the noise of y, which no learner can predict and which would only
make all learners look more alike.

References:
    Akyürek et al. (2023), What Learning Algorithm Is In-Context Learning?, section 4: the squared
    predicted difference.
    Garg et al. (2022), What Can Transformers Learn In-Context?, sections 3 and 4.

Differs from the paper:
    Akyürek et al. also compare weights that are fitted to the transformer's predictions; here
    weights are read from its states (`labkit.icl.implicit.regression_probes`).
"""

from dataclasses import dataclass

import numpy as np

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.implicit.regression_learners import (
    GradientDescent,
    Learner,
    LeastSquares,
    Mean,
    NearestNeighbours,
    Ridge,
    Zero,
    tuned_descent,
)
from labkit.icl.implicit.regression_model import ContextRegressor
from labkit.icl.implicit.regression_prompts import NOISE, draw, setting
from labkit.icl.implicit.regression_result import TRANSFORMER, RegressionResult
from labkit.progress import Progress, listener

N_TUNED_ON = 512  # prompts that the step size of gradient descent is chosen on


@dataclass(frozen=True, kw_only=True)
class CompareLearners:
    """A regression transformer beside learners with a formula, on the same prompts.

        CompareLearners()(regression_model.shipped()).figure()

    Attributes:
        settings: Distributions of prompts, of `labkit.icl.implicit.regression_prompts.SETTINGS`.
        n_pairs: Examples of a prompt; more than in training asks for lengths never seen.
        prompts: Prompts of a setting.
        penalties: Penalties of ridge; sigma^2 of training is Bayes-optimal in distribution.
        steps: Numbers of steps of gradient descent; the step size of each is chosen on prompts
            of their own, drawn as in training.
        neighbours: Inputs that the nearest-neighbour learner asks.
        seed: Seed of the prompts.

    Shows:
        Which learner with a formula predicts what a transformer trained on linear regression
        predicts, prompt by prompt.

    Does not show:
        How the transformer computes it, nor anything of language models: it was trained on
        nothing else.
    """

    settings: tuple[str, ...] = ("trained",)
    n_pairs: int = 20
    prompts: int = 500
    penalties: tuple[float, ...] = (0.01, NOISE**2, 9 * NOISE**2)
    steps: tuple[int, ...] = (1, 5, 20)
    neighbours: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an empty comparison."""
        if not self.settings:
            raise InputError("no setting to compare learners in")
        if len(set(self.settings)) < len(self.settings):
            raise InputError(f"a setting is named twice: {', '.join(self.settings)}")
        for name in self.settings:
            setting(name)
        if self.n_pairs < 1 or self.prompts < 2:
            raise InputError(
                f"a comparison takes an example and two prompts at least, "
                f"not {self.n_pairs} and {self.prompts}"
            )
        self._formulas()
        for steps in self.steps:
            GradientDescent(steps=steps, share=0.5)

    def learners(self, d: int) -> list[Learner]:
        """Every learner of the comparison, the step sizes of descent chosen."""
        own = draw("trained", N_TUNED_ON, self.n_pairs, seed=self.seed + 1_000_003, d=d)
        return [*self._formulas(), *(tuned_descent(own, steps) for steps in self.steps)]

    @checked
    def __call__(
        self, model: ContextRegressor, *, progress: Progress | None = None
    ) -> RegressionResult:
        """Predictions of the transformer and of every learner, in every setting.

        Args:
            model: The transformer.
            progress: Called with what is being done and the share that is done.
        """
        d = model.shape.d
        learners = self.learners(d)
        said, clean = [], []
        for done, name in enumerate(self.settings):
            listener(progress)(f"learners, {name}", done / len(self.settings))
            some = draw(name, self.prompts, self.n_pairs, seed=self.seed, d=d)
            scale = setting(name, d=d).variance ** 0.5
            rows = [model.predict(some.x, some.y).double()]
            rows += [learner(some.x, some.y) for learner in learners]
            said.append(np.stack([row.cpu().numpy() for row in rows]) / scale)
            clean.append(some.clean.double().cpu().numpy() / scale)
        return RegressionResult(
            settings=self.settings,
            learners=(TRANSFORMER, *(learner.name for learner in learners)),
            shares={one.name: one.share for one in learners if isinstance(one, GradientDescent)},
            bayes=Ridge(penalty=NOISE**2).name,
            n_trained=int(model.record.get("recipe", {}).get("n_pairs", 0)),
            seed=self.seed,
            predictions=np.stack(said),
            clean=np.stack(clean),
        )

    def _formulas(self) -> list[Learner]:
        ridges = [Ridge(penalty=penalty) for penalty in self.penalties]
        near = NearestNeighbours(k=self.neighbours)
        return [LeastSquares(), *ridges, near, Mean(), Zero()]
