"""Accuracy against the number of demonstrations, under conditions that change them.

    task = labkit.icl.task("sentiment")
    result = Demonstrations(conditions=("gold", "random"), ks=(0, 2, 8))(model, task)
    result.accuracy("gold", 8), result.comparisons(), result.figure()

Some items are set aside as queries; demonstrations are drawn from the others, several times
(`draws`). Every query is asked after every set of demonstrations, so conditions and numbers of
demonstrations are compared query by query.

Content-free queries ("N/A", "[MASK]", none at all) are asked too: the calibrated accuracy
divides by the label probabilities there.

References:
    Min et al. (2022), Rethinking the Role of Demonstrations, section 4. Yoo et al. (2022),
    Ground-Truth Labels Matter, section 3. Zhao et al. (2021), Calibrate Before Use, section 5.

Differs from the paper:
    The direct model only (no channel model), on small tasks of the lab's own; labels are scored
    by all their tokens unless told otherwise. What is said of content-free inputs is normalised
    over the labels before it is averaged, so that each such input counts alike; Zhao et al. average
    first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from labkit.arguments import checked
from labkit.icl.asking.queries import Front, ask, prepare, require_settings
from labkit.icl.asking.scoring import Tokens
from labkit.icl.asking.task_result import about_queries
from labkit.icl.behaviour.conditions import SHOWN, Surroundings, require_conditions, shots_of
from labkit.icl.behaviour.demonstrations_result import DemonstrationsResult
from labkit.icl.tasks.items import Item, Task
from labkit.icl.tasks.prompts import Shot
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.stats import numpy_generator

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Inputs that say nothing, as in Zhao et al."""


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Scores of every label, by condition and number of demonstrations.

    Attributes:
        conditions: What is done to the demonstrations; see `labkit.icl.behaviour.conditions`.
        ks: Numbers of demonstrations, ascending; 0 is no demonstration.
        draws: How many sets of demonstrations are drawn; Min et al. use 5.
        queries: How many items are asked about; all that the pool can spare if there are fewer.
        tokens: Whether all tokens of a label are scored, or its first alone.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        How answers change with the number of demonstrations, and with one of their properties at
        a time, query by query.

    Does not show:
        Which part the model *uses*: accuracy that survives random labels can come from labels
        that it knows by itself, the demonstrations only saying which words to choose from;
        flipped labels tell these apart.
    """

    conditions: tuple[str, ...] = ("gold", "random")
    ks: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    draws: int = 4
    queries: int = 50
    tokens: Tokens = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        require_conditions(self.conditions)
        require_settings(tokens=self.tokens, ks=self.ks, draws=self.draws, queries=self.queries)

    @checked
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> DemonstrationsResult:
        """Score the queries of a task after every set of demonstrations.

        Args:
            model: The model.
            task: The task.
            progress: Called as prompts are scored.

        Raises:
            PoolTooSmall: If there are fewer items than the most demonstrations and one query.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels cannot be told apart by the tokens scored.
            ContextTooShort: If the most demonstrations with a query are too long.
        """
        queries, asked, fronts = self._prepared(model, task)
        tables = ask(
            model, task, dict.fromkeys(fronts.values(), asked),
            tokens=self.tokens, progress=progress,
        )  # fmt: skip
        cells = [
            tables[fronts[condition, k, draw]]
            for condition in self.conditions
            for k in self.ks
            for draw in range(self.draws)
        ]
        shape = (len(self.conditions), len(self.ks), self.draws, len(asked), len(task.labels))
        log_probs = np.stack(cells).reshape(shape).astype(np.float32)
        return DemonstrationsResult(
            **about_queries(model, task, queries),
            labels=task.labels,
            conditions=self.conditions,
            ks=self.ks,
            tokens=self.tokens,
            seed=self.seed,
            log_probs=log_probs[..., : len(queries), :],
            content_free=log_probs[..., len(queries) :, :],
        )

    def require(self, model: LabModel, task: Task) -> None:
        """Raise what asking this task would raise, without running the model."""
        _, asked, fronts = self._prepared(model, task)
        prepare(model, task, dict.fromkeys(fronts.values(), asked), tokens=self.tokens)

    def _prepared(
        self, model: LabModel, task: Task
    ) -> tuple[list[Item], list[str], dict[tuple[str, int, int], Front]]:
        """The queries, all inputs that are asked, and the front of every cell."""
        queries, pool = self.split(task)
        sets = self.sets(model, task, pool)
        free = [
            text for text in CONTENT_FREE if task.template.query.replace("{input}", text).strip()
        ]
        asked = [*(item.input for item in queries), *free]
        return queries, asked, {cell: Front(*of) for cell, of in sets.items()}

    def split(self, task: Task) -> tuple[list[Item], list[Item]]:
        """The queries, and the pool that demonstrations are drawn from.

        Raises:
            PoolTooSmall: If the pool is smaller than the most demonstrations.
        """
        return task.queries_and_pool(self.queries, max(self.ks), seed=self.seed)

    def sets(
        self, model: LabModel, task: Task, pool: list[Item]
    ) -> dict[tuple[str, int, int], tuple[tuple[Shot, ...], str | None]]:
        """By condition, number and draw: the demonstrations, and how they are written."""
        surroundings = Surroundings.of(model)
        sets: dict[tuple[str, int, int], Any] = {}
        for draw in range(self.draws):
            order = self._draw(task, "pool", draw).permutation(len(pool))[: max(self.ks)]
            items = [pool[number] for number in order]
            for condition in self.conditions:
                own: Callable = partial(self._draw, task, condition, draw)
                for k in self.ks:
                    shots = shots_of(condition, task, items, k, surroundings=surroundings, draw=own)
                    # Without demonstrations all conditions are one.
                    sets[condition, k, draw] = (shots, SHOWN.get(condition) if k else None)
        return sets

    def _draw(self, task: Task, *content: object) -> np.random.Generator:
        """The generator for some content of this run."""
        return numpy_generator(self.seed, "icl", task.name, *content)
