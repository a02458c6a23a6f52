"""Fitted probes, to be tried on other states: another text, an edited model, another depth.

    found = probe(model, task)
    probe_of_8 = found.fitted[8]
    probe_of_8.score(features_of(model, other_task))        # another text
    with applied(model, delta):
        probe_of_8.score(features_of(model, task))          # the same text, edited weights
    probe_of_8.score(features_of(model, task), depth=9)     # another depth

Every probe of `probes.probing.estimators` is a scaler and one to three affine maps with ReLUs
between them, and answers with the largest of its outputs:

    answer = classes[argmax(W_n relu(... relu(W_1 x + b_1) ...) + b_n)]

(one output alone stands for the second of two classes where it is above 0; numbers are the output
itself; the nearest of some centroids c is the largest 2 c . x - |c|^2). The scaler is folded into
W_1 and b_1, so that a linear probe's rows of W_1 are directions in the coordinates of the state.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from labkit.errors import EmptySplit, InputError
from labkit.stats import Estimate
from probes.probing.scores import Scorer
from probes.states.features import Features
from probes.tasks.task import Example, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One affine map.

    Attributes:
        weight: One row per output.
        bias: One number per output.
    """

    weight: Float[np.ndarray, "d_out d_in"]
    bias: Float[np.ndarray, " d_out"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedProbe:
    """A probe that was fitted to the states of one depth of one task.

    Attributes:
        task: Name of the task.
        depth: The depth (or layer) that it was fitted to.
        classes: Its answers; empty for numbers.
        layers: What it computes from a state.
        centre: Mean of the numbers that it was fitted to; 0 for classes.
        trained_on: Digests of the texts that it was fitted to (`digest`).
    """

    task: str
    depth: int
    classes: tuple[str, ...]
    layers: tuple[Layer, ...] = field(repr=False)
    centre: float
    trained_on: frozenset[str] = field(repr=False)

    def outputs(self, states: Float[np.ndarray, "example width"]) -> Float[np.ndarray, "example o"]:
        """What the last map gives, one column per class (one in all for two classes, or numbers).

        Raises:
            InputError: If the states are of another width.
        """
        values = np.asarray(states, dtype=float)
        width = self.layers[0].weight.shape[1]
        if values.ndim != 2 or values.shape[1] != width:
            raise InputError(
                f"the probe of {self.task!r} at depth {self.depth} reads states of width {width}, "
                f"not an array {values.shape}: is it another model's, or another site?"
            )
        for place, layer in enumerate(self.layers):
            values = (np.maximum(values, 0.0) if place else values) @ layer.weight.T + layer.bias
        return values

    def predict(self, states: Float[np.ndarray, "example width"]) -> np.ndarray:
        """The answer to each state: a class, or a number.

        Args:
            states: Of any text, model or depth, not scaled.

        Raises:
            InputError: If they are of another width.
        """
        found = self.outputs(states)
        if not self.classes:
            return found[:, 0]
        second = found[:, 0] > 0 if found.shape[1] == 1 else found.argmax(axis=1)
        return np.asarray(self.classes)[second.astype(int)]

    def score(self, features: Features, *, depth: int | None = None) -> Estimate:
        """Accuracy (R^2 for numbers) on states of a task, with its interval over groups.

        Examples in texts that the probe was fitted to are left out. A subject that it was fitted
        to, in another wording, is not: hold it out yourself where that matters.

        Args:
            features: States of a task's examples (`features_of`), which have its labels.
            depth: Which of their depths; by default the probe's own.

        Raises:
            InputError: If they have no labels, or labels of the other kind; if the depth was
                not read; or if the states are of another width.
            EmptySplit: If the probe was fitted to all of the texts.
        """
        task = features.task
        if task is None:
            raise InputError("these states have no labels: read them by features_of(model, task)")
        if task.numeric != (not self.classes):
            kinds = ("numbers", "classes") if task.numeric else ("classes", "numbers")
            raise InputError(f"the labels of {task.name!r} are {kinds[0]}, the probe's {kinds[1]}")
        new = np.flatnonzero([not self._has_seen(task, example) for example in task.examples])
        if not len(new):
            raise EmptySplit(
                f"the probe was fitted to every text of {task.name!r}: score it on others"
            )
        groups = np.unique(task.groups[new], return_inverse=True)[1]
        scorer = Scorer(task.labels[new], groups, task.numeric, self.centre)
        states = features.at(self.depth if depth is None else depth)
        return scorer.score(self.predict(states[new]))

    def _has_seen(self, task: Task, example: Example) -> bool:
        """Whether one of the texts that an example reads is one that the probe was fitted to."""
        return any(digest(task.texts[text]) in self.trained_on for text, _, _ in example.words)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedProbes:
    """The probes of one task, by depth: `probes[8]`.

    Attributes:
        task: Name of the task.
        classes: Their answers; empty for numbers.
        centre: Mean of the numbers that they were fitted to; 0 for classes.
        trained_on: Digests of the texts that they were fitted to.
        depths: The depths (or layers).
        layers: Of each, what its probe computes.
    """

    task: str
    classes: tuple[str, ...]
    centre: float
    trained_on: tuple[str, ...] = field(repr=False)
    depths: tuple[int, ...]
    layers: tuple[tuple[Layer, ...], ...] = field(repr=False)

    def __getitem__(self, depth: int) -> FittedProbe:
        """The probe of a depth.

        Raises:
            InputError: If none was fitted there.
        """
        if depth not in self.depths:
            raise InputError(f"no probe was fitted at depth {depth}; {self.depths} have one")
        return FittedProbe(
            task=self.task,
            depth=depth,
            classes=self.classes,
            layers=self.layers[self.depths.index(depth)],
            centre=self.centre,
            trained_on=frozenset(self.trained_on),
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self.depths)

    def __len__(self) -> int:
        return len(self.depths)

    @classmethod
    def of(
        cls,
        task: Task,
        train: np.ndarray,
        depths: Sequence[int],
        layers: Sequence[tuple[Layer, ...]],
    ) -> "FittedProbes":
        """The probes of some depths, fitted to these examples of a task."""
        read = {text for number in train for text, _, _ in task.examples[number].words}
        labels = task.labels[train]
        return cls(
            task=task.name,
            classes=() if task.numeric else tuple(sorted(set(labels.tolist()))),
            centre=float(labels.mean()) if task.numeric else 0.0,
            trained_on=tuple(sorted(digest(task.texts[text]) for text in read)),
            depths=tuple(depths),
            layers=tuple(layers),
        )


def digest(text: str) -> str:
    """What a text is recognised by: the first 16 digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def layers_of(scaler: StandardScaler, head: Any) -> tuple[Layer, ...]:
    """What a fitted pipeline of scaler and head computes, as affine maps of the state itself."""
    maps = [
        (np.atleast_2d(np.asarray(weight, dtype=float)), np.atleast_1d(np.asarray(bias, float)))
        for weight, bias in _maps(head)
    ]
    weight, bias = maps[0]
    weight = weight / scaler.scale_
    maps[0] = weight, bias - weight @ np.asarray(scaler.mean_, dtype=float)
    return tuple(Layer(weight=weight, bias=bias) for weight, bias in maps)


def _maps(head: Any) -> list[tuple[Any, Any]]:
    """Weights `[d_out, d_in]` and biases of a fitted head, the input's first."""
    if isinstance(head, NearestCentroid):
        return [(2 * head.centroids_, -np.square(head.centroids_).sum(axis=1))]
    if isinstance(head, OneVsRestClassifier):
        each = head.estimators_
        return [(np.vstack([one.coef_ for one in each]), np.hstack([o.intercept_ for o in each]))]
    if isinstance(head, MLPClassifier | MLPRegressor):
        return [(w.T, b) for w, b in zip(head.coefs_, head.intercepts_, strict=True)]
    return [(head.coef_, head.intercept_)]
