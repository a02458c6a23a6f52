"""A probe of a few neurons only, by transformer_lens' k-sparse probe.

The k coordinates whose class means differ most on the training side are kept, and a logistic
regression is fitted to them. That a few neurons suffice says that the distinction lies along
axes of the state, not that each of them means one thing.

References:
    Gurnee et al. (2023), Finding Neurons in a Haystack: Case Studies with Sparse Probing,
    section 3.2 (maximum mean difference).

Differs from the paper:
    The features are standardised beforehand where the probe stands in a pipeline.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.utils.validation import validate_data

from probes.probing.binary import TwoClasses

HELD_BACK = 1e-9
"""Share that transformer_lens holds out for a score of its own: one example per class."""


class SparseProbe(TwoClasses):
    """Two classes told apart by `k` coordinates.

    transformer_lens splits by itself and holds back one example of each class; which, is
    drawn from `seed`. Everything else is fitted to.

    Args:
        k: Number of coordinates; all where there are fewer.
        l2: Penalty on the squared coefficients.
        seed: Which example of a class is held back.

    Attributes:
        classes_: The two classes, sorted.
        selected_features_: The coordinates, the most different first.
        coef_: `[1, feature]`, zero where a coordinate was not selected.
        intercept_: `[1]`.
    """

    # No annotations: by scikit-learn's rules nothing is looked at before `fit`.
    def __init__(self, k=8, l2=1e-2, seed=0):
        self.k = k
        self.l2 = l2
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "SparseProbe":
        """Select the coordinates and fit their coefficients.

        Raises:
            ValueError: If there are not two classes of at least two examples.
        """
        from transformer_lens.tools.analysis.sparse_probing import fit_sparse_probe

        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        numbers = self._numbered(y)
        found = fit_sparse_probe(
            torch.tensor(X),
            torch.tensor(numbers),
            k=min(self.k, X.shape[1]),
            test_fraction=HELD_BACK,
            l2_strength=self.l2,
            seed=self.seed,
        )
        self.selected_features_ = found.selected_features.numpy()
        self.coef_ = np.zeros((1, X.shape[1]))
        self.coef_[0, self.selected_features_] = found.coefficients.numpy()
        self.intercept_ = found.intercept.numpy().reshape(1)
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "example 2"]:
        """Probabilities of the two classes."""
        second = 1 / (1 + np.exp(-self.decision_function(X)))
        return np.stack([1 - second, second], axis=1)
