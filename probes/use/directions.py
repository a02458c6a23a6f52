"""Directions of a probe, in the coordinates of the state, and their removal.

Amnesic probing asks for *all* directions along which a linear probe could read a task: iterative
nullspace projection finds them by fitting a probe, projecting what it reads out of the states,
and fitting again, until no probe does better than the majority.

References:
    Ravfogel et al. (2020), Null It Out: Guarding Protected Attributes by Iterative Nullspace
    Projection, algorithm 1.

Differs from the paper:
    The projection is affine: it moves a state to the training side's mean along the directions,
    not to zero, since a residual stream far from the origin would lose what all states share. It
    ends after ten rounds by default, or where a probe is no better than the majority on the *test*
    side: there is no third side to decide on, and the last of the scores is optimistic.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.stats import generator
from probes.probing.estimators import make
from probes.tasks.task import Split, Task


@dataclass(frozen=True, eq=False)
class Removal:
    """An affine projection of states.

    Attributes:
        directions: Orthonormal rows.
        mean: Where states are moved to along them.
        scores: Accuracy on the test side of the probe of each round; the last is of a
            probe on states from which all directions are gone.
    """

    directions: Float[Tensor, "direction width"]
    mean: Float[Tensor, " width"]
    scores: tuple[float, ...]

    def __call__(self, states: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """States with the directions projected out."""
        directions, mean = self.directions.to(states), self.mean.to(states)
        along = (states - mean) @ directions.T
        return states - along @ directions

    def placebo(self, seed: int) -> "Removal":
        """The same for random directions, as many."""
        draw = generator(seed, "random directions", tuple(self.directions.shape))
        random = torch.randn(self.directions.shape, generator=draw, dtype=self.directions.dtype)
        return Removal(_orthonormal(random), self.mean, ())


def nullspace(
    task: Task,
    split: Split,
    states: Float[np.ndarray, "example width"],
    *,
    rounds: int = 10,
    strength: float | None = None,
    margin: float = 0.01,
    seed: int = 0,
) -> Removal:
    """Directions along which a linear probe reads a task, round by round.

    Args:
        task: A task of classes.
        split: Its sides: directions are learned on one, and the rounds scored on the other.
        states: Of all its examples.
        rounds: Rounds at most.
        strength: Strength of the logistic probe.
        margin: It stops where the accuracy is above the majority's by no more than this.
        seed: Seed of the probe.
    """
    labels = task.labels
    values, counts = np.unique(labels[split.train], return_counts=True)
    majority = float((labels[split.test] == values[counts.argmax()]).mean())
    raw = torch.tensor(states)
    mean = raw[split.train].mean(dim=0)
    removal = Removal(torch.zeros(0, raw.shape[1], dtype=raw.dtype), mean, ())
    scores: list[float] = []
    for number in range(rounds + 1):
        left = removal(raw).numpy()
        probe = make("logistic", strength=strength, seed=seed)
        probe.fit(left[split.train], labels[split.train])
        scores.append(float((probe.predict(left[split.test]) == labels[split.test]).mean()))
        if scores[-1] <= majority + margin or number == rounds:
            break
        scaler, head = probe[0], probe[-1]
        # What the probe reads, in the coordinates of the state: w . (x - m) / s.
        found = torch.tensor(head.coef_ / scaler.scale_, dtype=raw.dtype)
        removal = Removal(_orthonormal(torch.cat([removal.directions, found])), mean, ())
    return Removal(removal.directions, mean, tuple(scores))


def _orthonormal(rows: Float[Tensor, "row width"]) -> Float[Tensor, "direction width"]:
    """An orthonormal basis of what the rows span."""
    if not len(rows):  # of nothing that a probe reads
        return rows
    scaled = rows.double() / rows.double().norm(dim=1, keepdim=True).clamp(min=1e-30)
    _, sizes, basis = torch.linalg.svd(scaled, full_matrices=False)
    return basis[sizes > 1e-6 * sizes.max()].to(rows.dtype)
