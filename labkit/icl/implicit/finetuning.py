"""Does seeing demonstrations do to attention what fine-tuning on them does?

    found = FineTuningComparison()(model, told_apart(model, task("past")))
    found.summary()        # similarity of the two updates, beside every control
    found.recall("own")    # of what fine-tuning puts right, the share that context puts right too
    found.figure()

The claim: in context, attention to demonstrations adds to a query's answer what a gradient step on
them would add, W x -> (W0 + dW) x. So, for the same query without demonstrations, (1) after them
and (2) without them but with keys' and values' weights fine-tuned on them, three likenesses:

    outputs      cos(a_context - a_0, a_tuned - a_0), a what attention adds to the stream at the
                 query's last token, brought to length 1, by layer (SimAOU)
    maps         cos(m_context, m_tuned), m where the query looks among its own tokens, before the
                 softmax, by head (SimAM); and by how much that exceeds cos(m_context, m_0)
    predictions  of the queries that fine-tuning puts right, the share that context does (Rec2FTP)

Two updates may be alike for reasons that have nothing to do with learning the task. So everything
is measured again with something in place of fine-tuning on the demonstrations:

    permuted   on the same demonstrations with permuted labels
    other      on demonstrations of another task
    random     weights moved as far, in a random direction
    twin       the whole comparison in a model with random weights, which learns nothing in context
    causal     by steps in which no layer receives gradients from those above it, as in a forward
               pass; this one is no control: it should be more like context if the claim holds
               in this form

References:
    Dai et al. (2023), Why Can GPT Learn In-Context?, section 4.2. Deutch et al. (2024), In-context
    Learning and Gradient Descent Revisited, sections 3 (untrained models) and 4 (layer causality).
    Shen, Mishra and Khashabi (2024), Do pretrained Transformers Really Learn In-context by Gradient
    Descent?, section 4 (order).

Differs from the paper:
    Maps are centred for each head (the softmax does not see the constant that this takes away).
    The step size is chosen by the probability of the right label on other queries, not by accuracy
    on the same. Labels are scored by their first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from labkit.arguments import checked
from labkit.errors import InputError, PoolTooSmall
from labkit.icl.asking.queries import Front, drawn_shots, require_fit
from labkit.icl.asking.task_result import about_queries
from labkit.icl.behaviour.conditions import Surroundings, shots_of
from labkit.icl.implicit.finetuning_bench import Bench, Shots
from labkit.icl.implicit.finetuning_reading import map_cosines, update_cosines
from labkit.icl.implicit.finetuning_result import ARMS, FineTuningResult
from labkit.icl.implicit.finetuning_steps import Lesson, lessons, random_change
from labkit.icl.tasks import own as own_tasks
from labkit.icl.tasks.items import Item, Task
from labkit.models.model import LabModel
from labkit.models.twins import random_twin
from labkit.progress import Progress, listener
from labkit.stats import numpy_generator

DEVELOPMENT_SETS = 2
"""Sets of demonstrations that a step size is chosen on: single steps are unsteady."""

SMALLER = 10
"""How many times smaller steps are that are taken layer by layer."""


@dataclass(frozen=True, kw_only=True)
class FineTuningComparison:
    """Demonstrations in context beside fine-tuning on them, query by query, with controls.

    Fine-tuning is one epoch of plain SGD, one demonstration per step, in the order shown.

    Attributes:
        k: Number of demonstrations, at least 2.
        sets: How many sets of them are drawn.
        queries: How many items are asked about.
        development: How many other items the step size is chosen on, fine-tuned on other sets.
        orders: Orders of each set that `order_spread` looks at, the one shown included.
        rates: Step sizes to choose from, ascending; the one after which the right label is
            likeliest among the labels, on average of its logarithm. Layer by layer, where losses
            are many, steps are a tenth of these.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        How alike the changes are that demonstrations and gradient steps on them make, beside
        other updates of the same size.

    Does not show:
        That a likeness of updates is a likeness of algorithms. `order_spread` asks for one more
        thing: a full batch of gradient descent cannot see the order of demonstrations.
    """

    k: int = 8
    sets: int = 3
    queries: int = 20
    development: int = 10
    orders: int = 3
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        least = {"k": 2, "sets": 1, "queries": 2, "development": 1, "orders": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"{name} = {getattr(self, name)}: at least {bound}")
        if not self.rates or min(self.rates) <= 0 or list(self.rates) != sorted(set(self.rates)):
            raise InputError(f"step sizes above 0, ascending, not {list(self.rates)}")

    @checked
    def __call__(
        self,
        model: LabModel,
        task: Task,
        *,
        other: Task | None = None,
        progress: Progress | None = None,
    ) -> FineTuningResult:
        """Compare the two on a task. The model is restored bit for bit.

        Args:
            model: The model.
            task: The task, its labels told apart by their first token (`told_apart`).
            other: Whose demonstrations stand for another task's; by default the first of the
                lab's own tasks that has another name.
            progress: Called after each set.

        Raises:
            PoolTooSmall: If the task has too few items for queries, development and a set, or
                the other one for a set.
            InputError: If the other task is the same one.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token.
            ContextTooShort: If the demonstrations with a query are too long.
            NonFiniteLoss: If no step size gives a finite loss.
        """
        other = other or _another(model, task)
        asked, tuned_on, pool = self._drawn(model, task, other)
        settled = [self._shots(model, task, other, pool, number) for number in range(self.sets)]
        spare = [
            Front.of(self._chosen(pool, "development", number)).shots
            for number in range(DEVELOPMENT_SETS)
        ]
        bench = Bench.of(model, task, tuned_on, asked)
        twin = Bench.of(random_twin(model, seed=self.seed), task, tuned_on, asked)
        rates, tables = {}, []
        for arm, where in (("own", bench), ("causal", bench), ("twin", twin)):
            by_layer = arm == "causal"
            sizes = [rate / (SMALLER if by_layer else 1) for rate in self.rates]
            chosen_on = spare[:1] if by_layer else spare  # a layer at a time takes long
            rates[arm], table = where.choose(chosen_on, sizes, by_layer=by_layer)
            tables.append(table.assign(arm=arm))
            listener(progress)(f"step size of {ARMS[arm]}", 0.1 * len(tables))
        found = []
        for number, (shown, shuffled, others) in enumerate(settled):
            found.append(self._measured(bench, twin, shown, shuffled, others, rates))
            listener(progress)(
                f"set {number + 1} of {self.sets}", 0.3 + 0.7 * (number + 1) / self.sets
            )
        arrays: dict[str, Any] = {
            name: np.stack([one[name] for one in found], axis=1) for name in found[0]
        }
        return FineTuningResult(
            **about_queries(model, task, asked),
            labels=task.labels,
            other=other.name,
            k=self.k,
            seed=self.seed,
            arms=tuple(ARMS),
            rates=rates,
            choices=pd.concat(tables, ignore_index=True),
            **arrays,
        )

    def _drawn(
        self, model: LabModel, task: Task, other: Task
    ) -> tuple[list[Item], list[Item], list[Item]]:
        """Queries, development queries and the pool; refuses what cannot be measured."""
        if other.name == task.name:
            raise InputError(f"{task.name!r} twice: as a control, name another task")
        n_asked = self.queries + self.development
        if len(task) < n_asked + self.k or len(other) < self.k:
            raise PoolTooSmall(
                f"{self.queries} queries, {self.development} for the step size and {self.k} "
                f"demonstrations of {task.name!r}, which has {len(task)} items, and {self.k} of "
                f"{other.name!r}, which has {len(other)}: ask for fewer"
            )
        items, pool = task.queries_and_pool(n_asked, self.k, seed=self.seed)
        require_fit(model, task, pool, items, self.k, tokens="first")
        return items[: self.queries], items[self.queries :], pool

    def _chosen(self, pool: Sequence[Item], *content: object) -> list[Item]:
        """So many items of a pool, drawn for some content."""
        return drawn_shots(pool, self.k, self.seed, "icl fine-tuning", len(pool), *content)

    def _shots(
        self, model: LabModel, task: Task, other: Task, pool: Sequence[Item], number: int
    ) -> tuple[Shots, Shots, list[Lesson]]:
        """A set of demonstrations, the same with permuted labels, and another task's lessons."""
        chosen = self._chosen(pool, "set", number)
        shuffled = shots_of(
            "permuted", task, chosen, self.k, surroundings=Surroundings(words=()),
            draw=partial(numpy_generator, self.seed, "icl fine-tuning", task.name, number),
        )  # fmt: skip
        others = Front.of(self._chosen(other.items, "other", other.name, number)).shots
        return Front.of(chosen).shots, shuffled, lessons(model, other.template, others)

    def _measured(
        self,
        bench: Bench,
        twin: Bench,
        shown: Shots,
        shuffled: Shots,
        others: list[Lesson],
        rates: dict[str, float],
    ) -> dict[str, np.ndarray]:
        """Everything about one set of demonstrations; names as in the result."""
        rate = rates["own"]
        changed = bench.tuned(bench.lessons(shown), rate)
        context = bench.behind(shown)
        readings = {
            "own": bench.after(changed),
            "permuted": bench.after(bench.tuned(bench.lessons(shuffled), rate)),
            "other": bench.after(bench.tuned(others, rate)),
            "random": bench.after(
                random_change(
                    bench.model, bench.learnt, changed, seed=self.seed, content=repr(shown)
                )
            ),
            "causal": bench.after(
                bench.tuned(bench.lessons(shown), rates["causal"], by_layer=True)
            ),
        }
        in_twin = twin.after(twin.tuned(twin.lessons(shown), rates["twin"]))
        compared = [(bench.plain, context, reading) for reading in readings.values()]
        compared.append((twin.plain, twin.behind(shown), in_twin))
        said = [bench.plain, context, *readings.values()]
        orders = [[context], [readings["own"]]]
        for number in range(1, self.orders):
            draw = numpy_generator(self.seed, "icl fine-tuning order", repr(shown), number)
            order = tuple(shown[place] for place in draw.permutation(self.k))
            orders[0].append(bench.behind(order))
            orders[1].append(bench.after(bench.tuned(bench.lessons(order), rate)))
        tables = {
            "outputs": [
                update_cosines(plain.outputs, one.outputs, reading.outputs)
                for plain, one, reading in compared
            ],
            "maps": [map_cosines(one, reading) for _, one, reading in compared],
            "maps_before": [map_cosines(one, plain) for plain, one, _ in compared],
            "log_probs": [one.log_probs for one in said],
            "order_log_probs": [torch.stack([one.log_probs for one in way]) for way in orders],
        }
        return {name: torch.stack(parts).numpy() for name, parts in tables.items()}


def _another(model: LabModel, task: Task) -> Task:
    """The first of the lab's own tasks that has another name."""
    names = own_tasks.task_names(model)
    return own_tasks.task(next(name for name in names if name != task.name), model)
