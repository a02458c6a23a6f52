"""Probes as scikit-learn estimators: a scaler, and after it one of a handful of heads.

    ESTIMATORS["logistic"](numeric=False).fit(X, y).predict(X)

Every probe is a pipeline of `StandardScaler` and a head, so that a penalty means the same in
every direction of the state and at every depth. The linear ones (`logistic`, `ridge`,
`centroid`, `mean_difference`) read a direction; `mlp1` and `mlp2` have one and two hidden layers,
the depths at which claim C17 tells what the state holds from what the probe works out by itself;
`sparse` may look at a few neurons only.

A deeper probe that scores higher shows what *can* be computed from a state, not what is in it:
read it beside its selectivity (`probes.probing.controls`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import validate_data

from labkit.errors import InputError
from probes.probing.binary import TwoClasses
from probes.probing.sparse import SparseProbe

TOLERANCE, ITERATIONS = 1e-3, 200
"""When L-BFGS stops: at a gradient (of the mean loss, on standardised states) this small, or
after so many steps. Ten times as exact changes accuracies by less than their intervals."""

HIDDEN = 64
"""Width of a hidden layer of the MLP probes."""

SPARSE_K = 8
"""Neurons that a sparse probe may look at, a class."""


class MeanDifference(TwoClasses):
    """The difference of two class means as a direction, with a threshold half way.

        coef = mean(x | b) - mean(x | a),   answer b where coef . x > coef . (mean_a + mean_b) / 2

    Nothing is optimised, so nothing can be overfitted but the means; the direction is the one
    along which `probes.use.interventions` moves a state.

    Attributes:
        classes_: The two classes, sorted.
        coef_: From the mean of the first to the mean of the second, `[1, feature]`.
        intercept_: The threshold, `[1]`.

    Differs from the paper: none (Marks and Tegmark 2023, section 5.1, mass-mean probing without
    the covariance).
    """

    def fit(self, X: Any, y: Any) -> "MeanDifference":
        """Take the means of the two classes."""
        X, y = validate_data(self, X, y)
        numbers = self._numbered(y)
        means = np.stack([X[numbers == number].mean(axis=0) for number in (0, 1)])
        self.coef_ = means[1:] - means[:1]
        self.intercept_ = -(self.coef_ @ means.mean(axis=0))
        return self


Factory = Callable[..., Pipeline]


def _logistic(numeric: bool, strength: float, seed: int) -> BaseEstimator:
    if numeric:
        raise InputError("a logistic probe needs classes: use ridge for numbers")
    return LogisticRegression(C=strength, tol=TOLERANCE, max_iter=ITERATIONS, random_state=seed)


def _ridge(numeric: bool, strength: float, seed: int) -> BaseEstimator:
    # alpha as in a logistic probe: the penalty's weight is 1 / strength.
    model = Ridge if numeric else RidgeClassifier
    return model(alpha=1 / strength, random_state=seed)


def _mlp(numeric: bool, strength: float, seed: int, *, hidden: int) -> BaseEstimator:
    model = MLPRegressor if numeric else MLPClassifier
    return model(
        hidden_layer_sizes=(HIDDEN,) * hidden,
        alpha=1 / strength,
        max_iter=200,
        tol=1e-3,
        random_state=seed,
    )


def _classes_only(name: str, make: Callable[[], BaseEstimator]) -> Callable[..., BaseEstimator]:
    def head(numeric: bool, strength: float, seed: int) -> BaseEstimator:
        if numeric:
            raise InputError(f"a {name} probe needs classes: use ridge for numbers")
        return make()

    return head


def _factory(head: Callable[..., BaseEstimator], default: float) -> Factory:
    def make(*, numeric: bool = False, strength: float = default, seed: int = 0) -> Pipeline:
        return make_pipeline(StandardScaler(), head(numeric, strength, seed))

    return make


ESTIMATORS: dict[str, Factory] = {
    "logistic": _factory(_logistic, 0.01),
    "ridge": _factory(_ridge, 0.001),
    "centroid": _factory(_classes_only("centroid", NearestCentroid), 1.0),
    "mean_difference": _factory(_classes_only("mean_difference", MeanDifference), 1.0),
    "sparse": _factory(
        _classes_only("sparse", lambda: OneVsRestClassifier(SparseProbe(k=SPARSE_K))), 1.0
    ),
    "mlp1": _factory(lambda *given: _mlp(*given, hidden=1), 1.0),
    "mlp2": _factory(lambda *given: _mlp(*given, hidden=2), 1.0),
}
"""By name, a factory of an unfitted pipeline: `ESTIMATORS[name](numeric=, strength=, seed=)`.

`strength` is how far the probe may trust the data, the inverse of its penalty: C of a logistic
probe, 1 / alpha of ridge and the MLPs; the rest have none.
"""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "logistic": (0.0003, 0.003, 0.03, 0.3),
    "ridge": (0.0003, 0.003, 0.03, 0.3, 3.0),
}
"""What `choose_strength` chooses from; of the others the default is taken."""


def make(name: str, *, numeric: bool = False, strength: float | None = None, seed: int = 0) -> Any:
    """An unfitted probe by name.

    Raises:
        InputError: If there is no such probe, or it does not do what the labels need.
    """
    if name not in ESTIMATORS:
        raise InputError(f"no probe is called {name!r}; there are {', '.join(ESTIMATORS)}")
    given = {} if strength is None else {"strength": strength}
    return ESTIMATORS[name](numeric=numeric, seed=seed, **given)


def choose_strength(
    name: str,
    states: Sequence[Float[np.ndarray, "example width"]],
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    numeric: bool = False,
    folds: int = 3,
    seed: int = 0,
) -> float | None:
    """The strength with the best score in cross-validation, no group on two sides.

    Args:
        name: The probe.
        states: Of the training side, at one depth or several: scores are averaged over them.
        labels: Theirs.
        groups: Theirs.
        numeric: Whether labels are numbers.
        folds: Number of folds at most.
        seed: Seed of the probe.

    Returns:
        The strength; None for a probe that has none to choose, or where there are fewer than
        two groups to fold.
    """
    folds = min(folds, len(set(groups.tolist())))
    if name not in STRENGTHS or folds < 2:
        return None
    scores = np.zeros(len(STRENGTHS[name]))
    for train, test in GroupKFold(n_splits=folds).split(labels, labels, groups):
        if not numeric and len(set(labels[train].tolist())) < 2:
            continue
        for at in states:
            scaler = StandardScaler().fit(at[train])
            inside, outside = scaler.transform(at[train]), scaler.transform(at[test])
            for place, strength in enumerate(STRENGTHS[name]):
                head = make(name, numeric=numeric, strength=strength, seed=seed)[-1]
                scores[place] += head.fit(inside, labels[train]).score(outside, labels[test])
    return STRENGTHS[name][int(scores.argmax())]
