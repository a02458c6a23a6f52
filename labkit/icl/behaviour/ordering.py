"""The same demonstrations in other orders: how far accuracy spreads, and what explains it.

    result = Orders(k=4)(model, task)
    result.spread(), result.best_on_new_queries(), result.by_position(), result.figure()

Some sets of demonstrations are drawn; each is shown in all its orders, or a sample of them.

Which order is good can be guessed without a single label (Lu et al.): ask some inputs whose labels
are not used. A bad order makes the model give them all the same answer, so

    global entropy   H(mean over inputs of "this label is the likeliest")
    local entropy    mean over inputs of H(p(label | input))

should be high. The best of many orders is partly luck: `best_on_new_queries` chooses on one half
of the queries and measures on the other.

References:
    Lu et al. (2022), Fantastically Ordered Prompts and Where to Find Them, section 3.
    Zhao et al. (2021), Calibrate Before Use, section 4: majority and recency bias.

Differs from the paper:
    Lu et al. let the model write the inputs that the entropy is measured on; here they are items
    of the task that are neither shown nor asked, without their labels.
"""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Int

from labkit.arguments import checked
from labkit.errors import InputError, PoolTooSmall
from labkit.icl.asking.queries import Front, ask, require_settings
from labkit.icl.asking.scoring import Tokens
from labkit.icl.asking.task_result import about_task
from labkit.icl.behaviour.order_result import OrdersResult
from labkit.icl.tasks.items import Task
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.stats import numpy_generator

ALL_ORDERS = 8
"""Demonstrations up to which all orders are listed before some are drawn."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """Scores of every label after the same demonstrations in different orders.

    Attributes:
        k: Number of demonstrations, at least 2.
        sets: How many sets of demonstrations are drawn.
        orders: How many orders of each set at most; Lu et al. use all 24 of 4.
        queries: How many items are asked about, at least 2.
        probes: How many other items the entropies are measured on.
        tokens: Whether all tokens of a label are scored, or its first alone.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        How far the order of the same demonstrations moves accuracy, and whether a good one can be
        told without labels.

    Does not show:
        That a good order is good on other queries: the best of many is partly luck, so it is
        measured on queries that did not choose it.
    """

    k: int = 4
    sets: int = 4
    orders: int = 24
    queries: int = 30
    probes: int = 20
    tokens: Tokens = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        require_settings(
            tokens=self.tokens, ks=(self.k,), least=2, sets=self.sets, probes=self.probes
        )
        for name, value in {"orders": self.orders, "queries": self.queries}.items():
            if value < 2:
                raise InputError(f"{name} = {value}: choose at least 2, since one has no order")

    @checked
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> OrdersResult:
        """Score the queries of a task after every order of every set.

        Args:
            model: The model.
            task: The task.
            progress: Called as prompts are scored.

        Raises:
            PoolTooSmall: If the task has too few items for queries, probes and demonstrations.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels cannot be told apart by the tokens scored.
            ContextTooShort: If the demonstrations with a query are too long.
        """
        asked = self.queries + self.probes
        if len(task) < asked + self.k:
            raise PoolTooSmall(
                f"{self.queries} queries, {self.probes} probes and {self.k} demonstrations of "
                f"{task.name!r}, which has {len(task)} items: ask for fewer"
            )
        draw = numpy_generator(self.seed, "icl orders", task.name)
        items = [task.items[number] for number in draw.permutation(len(task))]
        pool = items[asked:]
        orders = self.listed(draw)
        chosen = [draw.permutation(len(pool))[: self.k] for _ in range(self.sets)]
        fronts = [
            Front.of([pool[numbers[place]] for place in order])
            for numbers in chosen
            for order in orders
        ]
        texts = [item.input for item in items[:asked]]
        tables = ask(
            model, task, dict.fromkeys(fronts, texts), tokens=self.tokens, progress=progress
        )
        scored = np.stack([tables[front] for front in fronts]).astype(np.float32)
        table = scored.reshape(self.sets, len(orders), asked, -1)
        return OrdersResult(
            **about_task(model, task, items[: self.queries]),
            labels=task.labels,
            shown=tuple(tuple(pool[n].label for n in numbers) for numbers in chosen),
            orders=orders,
            seed=self.seed,
            log_probs=table[:, :, : self.queries],
            probe_log_probs=table[:, :, self.queries :],
        )

    def listed(self, draw: np.random.Generator) -> Int[np.ndarray, "order k"]:
        """All orders where they are few enough, else so many different ones."""
        if math.factorial(self.k) <= self.orders:
            return np.array(list(permutations(range(self.k))))
        if self.k <= ALL_ORDERS:
            every = np.array(list(permutations(range(self.k))))
            return every[np.sort(draw.permutation(len(every))[: self.orders])]
        found: dict[tuple[int, ...], None] = {}
        while len(found) < self.orders:
            found[tuple(draw.permutation(self.k).tolist())] = None
        return np.array(list(found))
