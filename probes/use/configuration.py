"""How a probe's directions are removed, or states moved along them: `Forgetting` and `Moving`.

    forget(model, task, 8, Forgetting(rounds=3))
    move(model, task, 8, Moving(steps=2.0), source="sing", goal="plur")

A configuration is checked when it is made, before any model is loaded or run.
"""

from dataclasses import dataclass

from probes.arguments import require_finite, require_number


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What both have in common.

    Attributes:
        n_train: Examples that the directions are learned from, at most.
        n_texts: Examples of the test side that are changed, at most.
        seed: Seed of every draw.

    Raises:
        InputError: If a number is out of its range.
    """

    n_train: int = 1000
    n_texts: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can be learned from."""
        require_number("n_train", self.n_train, least=2)
        require_number("n_texts", self.n_texts, least=1)
        require_number("seed", self.seed, least=None)


@dataclass(frozen=True, kw_only=True)
class Forgetting(Intervention):
    """How a task's directions are removed.

    Attributes:
        rounds: Rounds of the nullspace projection, at most.
        n_train: Examples that the directions are learned from, at most.
        n_texts: Examples of the test side that are changed, at most.
        seed: Seed of every draw.

    Raises:
        InputError: If a number is out of its range.
    """

    rounds: int = 10

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        super().__post_init__()
        require_number("rounds", self.rounds, least=1)


@dataclass(frozen=True, kw_only=True)
class Moving(Intervention):
    """How states are moved from one class to another.

    Attributes:
        steps: How far, in distances of the two class means of the training side; below 0 away.
        n_train: Examples that the means are taken over, at most.
        n_texts: Examples of the test side that are moved, at most.
        seed: Seed of every draw.

    Raises:
        InputError: If a number is out of its range.
    """

    steps: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        super().__post_init__()
        require_finite("steps", self.steps)


FORGETTING = Forgetting()
"""How `forget` works unless told otherwise."""

MOVING = Moving()
"""How `move` works unless told otherwise."""
