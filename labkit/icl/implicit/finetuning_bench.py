"""A model's answers to the queries of a task: as it is, after demonstrations, and fine-tuned."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from labkit.errors import NonFiniteLoss
from labkit.icl.asking.queries import Front
from labkit.icl.asking.scoring import label_ids, prompt_ids
from labkit.icl.implicit.finetuning_reading import Reading, n_common, read
from labkit.icl.implicit.finetuning_steps import (
    Learnt,
    Lesson,
    Weights,
    descend,
    key_value_weights,
    lessons,
    other_weights,
)
from labkit.icl.tasks.items import Item, Task
from labkit.icl.tasks.prompts import Shot
from labkit.models.model import LabModel

Shots = tuple[Shot, ...]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One model and the queries of one task.

    Attributes:
        model: The model; as before after every call.
        task: The task.
        learnt: Which weights fine-tuning changes.
        firsts: The first token of each label.
        texts: The queries.
        plain: Queries without demonstrations.
        n_compared: How many tokens each query ends on, with demonstrations as without.
        development: Development queries and the number of the right label of each.
    """

    model: LabModel
    task: Task
    learnt: Learnt
    firsts: tuple[int, ...]
    texts: tuple[str, ...]
    plain: Reading
    n_compared: tuple[int, ...]
    development: tuple[tuple[str, ...], tuple[int, ...]] = field(repr=False)

    @classmethod
    def of(
        cls, model: LabModel, task: Task, development: Sequence[Item], asked: Sequence[Item]
    ) -> "Bench":
        """Everything that does not depend on demonstrations, computed once."""
        firsts = [ids[0] for ids in label_ids(model, task.template, task.labels, tokens="first")]
        texts = tuple(item.input for item in asked)
        alone = prompt_ids(model, [Front().before(task, text) for text in texts])
        some = Front.of(development[:1])
        behind = prompt_ids(model, [some.before(task, text) for text in texts])
        n_compared = tuple(map(n_common, alone, behind))
        return cls(
            model=model,
            task=task,
            learnt=key_value_weights(model),
            firsts=tuple(firsts),
            texts=texts,
            plain=read(model, alone, firsts, n_compared),
            n_compared=n_compared,
            development=(
                tuple(item.input for item in development),
                tuple(task.labels.index(item.label) for item in development),
            ),
        )

    def lessons(self, shots: Shots) -> list[Lesson]:
        """Demonstrations of the task as lessons."""
        return lessons(self.model, self.task.template, shots)

    def behind(self, shots: Shots) -> Reading:
        """The queries after demonstrations."""
        prompts = [Front(shots).before(self.task, text) for text in self.texts]
        return read(self.model, prompt_ids(self.model, prompts), self.firsts, self.n_compared)

    def tuned(self, own: Sequence[Lesson], rate: float, *, by_layer: bool = False) -> Weights:
        """The weights after an epoch, one lesson per step."""
        return descend(
            self.model, self.learnt, [[one] for one in own], rate=rate, by_layer=by_layer
        )

    def after(self, changed: Weights) -> Reading:
        """The queries without demonstrations, with other weights."""
        prompts = prompt_ids(self.model, [Front().before(self.task, text) for text in self.texts])
        with other_weights(self.model, changed):
            return read(self.model, prompts, self.firsts, self.n_compared)

    def choose(
        self, sets: Sequence[Shots], rates: Sequence[float], *, by_layer: bool
    ) -> tuple[float, pd.DataFrame]:
        """The step size that is best on the development queries, and the effect of each on them.

        Raises:
            NonFiniteLoss: If none gives a finite loss.
        """
        texts, gold = self.development
        prompts = prompt_ids(self.model, [Front().before(self.task, text) for text in texts])
        rows = []
        for rate in (0.0, *rates):
            right, accuracy = [], []
            for shots in sets if rate else sets[:1]:
                own = self.lessons(shots)
                changed = self.tuned(own, rate, by_layer=by_layer) if rate else {}
                with other_weights(self.model, changed):
                    said = read(self.model, prompts, self.firsts, [1] * len(prompts)).log_probs
                shares = said.log_softmax(dim=-1)
                right.append(float(shares[range(len(gold)), gold].mean()))
                accuracy.append(
                    float((shares.argmax(dim=-1) == torch.tensor(gold)).double().mean())
                )
            rows.append({"rate": rate, "log_share": np.mean(right), "accuracy": np.mean(accuracy)})
        table = pd.DataFrame(rows)
        tried = table[(table["rate"] > 0) & np.isfinite(table["log_share"])]
        if tried.empty:
            raise NonFiniteLoss(
                f"every step size of {list(rates)} gives a loss that is not finite: choose "
                "smaller ones"
            )
        return float(tried.loc[tried["log_share"].idxmax(), "rate"]), table
