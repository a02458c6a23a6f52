"""Base of the two-class probes that read one direction: the sign of `coef . x + intercept`."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class TwoClasses(ClassifierMixin, BaseEstimator):
    """Base of the probes that tell two classes apart by one direction.

    Attributes:
        classes_: The two classes, sorted.
        coef_: The direction, `[1, feature]`; it points to the second class.
        intercept_: `[1]`.
    """

    def decision_function(self, X: Any) -> Float[np.ndarray, " example"]:
        """How far each example lies on the side of the second class."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return X @ self.coef_[0] + self.intercept_[0]

    def predict(self, X: Any) -> np.ndarray:
        """The class on whose side each example lies."""
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    def _numbered(self, y: Any) -> np.ndarray:
        """Labels as 0 and 1, the classes noted.

        Raises:
            ValueError: If there are not two classes.
        """
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            n, noun = len(self.classes_), "class" if len(self.classes_) == 1 else "classes"
            raise ValueError(
                f"Only binary classification is supported: {n} {noun} here; "
                "the centroid probe takes any number"
            )
        return numbers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
