"""What methods share that put a vector into queries without demonstrations.

Queries to choose layer and scale on, other queries to measure on, and a pool that the vector is
taken from: different items all. How the vector is made is the method's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from labkit.documented import with_inherited_fields
from labkit.errors import InputError
from labkit.icl.asking.queries import asked_ids
from labkit.icl.asking.task_result import about_queries
from labkit.icl.inside.vectors import Labels, LastPositions, chosen_layers, parted, read_behind
from labkit.icl.tasks.items import Item, Task
from labkit.models.model import LabModel
from labkit.running.beginnings import Ids
from labkit.running.logits import MEMORY


@dataclass(frozen=True)
class Trial:
    """What a vector is tried on.

    Attributes:
        layers: The blocks after which it is put.
        queries: The queries, those for development first.
        development: How many these are.
        labels: The label space, by first tokens.
        pool: The items that the vector is taken from.
    """

    layers: tuple[int, ...]
    queries: list[Item]
    development: int
    labels: Labels
    pool: list[Item]


@dataclass(frozen=True, kw_only=True)
class VectorMethod:
    """Base of the methods that try a vector of a task.

    Attributes:
        k: Number of demonstrations.
        draws: Sets of demonstrations that are drawn.
        development: Queries that layer and scale are chosen on.
        queries: Other queries, that the effect is read on. Both shrink where the pool is small.
        scales: How many times the vector is added.
        layers: Blocks after which it is put; all by default.
        seed: Seed of every draw.
        memory: Bound on the activations held at once, in bytes.
    """

    k: int = 8
    draws: int = 3
    development: int = 15
    queries: int = 30
    scales: tuple[float, ...] = (1.0,)
    layers: tuple[int, ...] | None = None
    seed: int = 0
    memory: int = MEMORY

    def __init_subclass__(cls) -> None:
        """Let a method's help list the fields that it inherits."""
        super().__init_subclass__()
        cls.__doc__ = with_inherited_fields(cls)

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if min(self.k, self.draws, self.development, self.queries) < 1:
            raise InputError(
                "demonstrations, draws and both kinds of queries: at least one of each"
            )
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise InputError(f"scales, each once and at least one, not {self.scales}")

    def trial(self, model: LabModel, task: Task) -> Trial:
        """The layers, queries and pool of a task.

        Raises:
            PoolTooSmall: If the task has too few items for demonstrations and queries.
            LayerOutOfRange: If there is no such layer.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token.
        """
        layers = chosen_layers(model, self.layers)
        development, measured, pool = parted(
            task, self.development, self.queries, self.k + 1, seed=self.seed
        )
        queries = [*development, *measured]
        return Trial(layers, queries, len(development), Labels.of(model, task, queries), pool)

    def bare(self, model: LabModel, task: Task, trial: Trial) -> LastPositions:
        """The queries without demonstrations."""
        return LastPositions(model, asked_ids(model, task, (), trial.queries), memory=self.memory)

    def found(
        self,
        model: LabModel,
        task: Task,
        trial: Trial,
        *,
        bare: LastPositions,
        shown: Sequence[Sequence[Ids]],
        readings: Sequence[Float[np.ndarray, "reading vector scale draw query"]],
    ) -> dict[str, Any]:
        """The fields of a `VectorResult` that say nothing of how the vector was made.

        Args:
            model: The model.
            task: The task.
            trial: From `trial`.
            bare: From `bare`.
            shown: By draw, the queries after demonstrations.
            readings: By layer, the answers with a vector.
        """
        numbers = torch.arange(len(trial.queries), device=model.device)
        return {
            **about_queries(model, task, trial.queries),
            "k": self.k,
            "scales": self.scales,
            "layers": trial.layers,
            "development": trial.development,
            "seed": self.seed,
            "readings": np.stack(readings, axis=3),
            "zero_shot": trial.labels.read_states(model, bare.states[-1], numbers),
            "k_shot": read_behind(model, trial.labels, shown, memory=self.memory),
        }
