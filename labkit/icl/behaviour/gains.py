"""Which tasks gain from demonstrations, and how much of the gain depends on their labels.

    found = Gains(k=8)(model, [task(name) for name in task_names()])
    found.to_frame()         # by task: accuracy without and with, the gain, Holm's p
    found.by_labels()        # by task: own labels less random ones
    found.figure()

Every task is asked without demonstrations, after k with their own labels, and after the same
k with labels drawn at random. Each task is a test of its own, so that of twenty-nine about one
would "gain" by luck at 5 %: p-values are corrected for their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.arguments import checked
from labkit.errors import EmptySplit, InputError
from labkit.icl.asking.measures import MEASURES, tested
from labkit.icl.asking.queries import scorable
from labkit.icl.behaviour.demonstrations import Demonstrations
from labkit.icl.tasks.items import Task
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.results.measured import Measured, measured_on
from labkit.stats import Estimate, average, share

ARMS = {"none": "none", "gold": "own labels", "random": "random labels"}
"""What is in front of a query, and what each is called in a figure."""

Answered = Literal["accuracy", "gold"]


@dataclass(frozen=True, kw_only=True)
class Gains:
    """Accuracy without and after demonstrations, task by task.

    Attributes:
        k: Number of demonstrations, at least 1.
        draws: How many sets of them are drawn.
        queries: How many items of a task are asked about; all that its pool can spare if there
            are fewer.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        Which tasks gain from demonstrations more than luck over many tests would give, and how
        much of it goes with their labels.

    Does not show:
        Why: a gain that survives random labels may be format, label space or what the model
        knows.
    """

    k: int = 8
    draws: int = 2
    queries: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.k < 1:
            raise InputError(
                f"k = {self.k}: choose at least 1, since gains are over no demonstration"
            )
        self._method("all")

    def _method(self, tokens: Any) -> Demonstrations:
        return Demonstrations(
            conditions=("gold", "random"), ks=(0, self.k), draws=self.draws,
            queries=self.queries, tokens=tokens, seed=self.seed,
        )  # fmt: skip

    @checked
    def __call__(
        self, model: LabModel, tasks: Sequence[Task], *, progress: Progress | None = None
    ) -> "GainsResult":
        """Ask the queries of every task; labels that cannot be told apart are left out.

        Args:
            model: The model.
            tasks: The tasks.
            progress: Called as prompts are scored.

        Raises:
            EmptySplit: If there is no task.
            InputError: If two tasks have the same name.
            PoolTooSmall: If a task has no item to spare for a query.
            EmptyTarget: If a label tokenises to nothing.
            ContextTooShort: If the demonstrations of a task with a query are too long.
        """
        if not tasks:
            raise EmptySplit("no task was given: name at least one")
        if len({task.name for task in tasks}) < len(tasks):
            raise InputError(f"tasks, each once, not {[task.name for task in tasks]}")
        fitted = [scorable(model, task) for task in tasks]
        for task, tokens in fitted:
            self._method(tokens).require(model, task)
        frames = []
        for number, (task, tokens) in enumerate(fitted):
            told = part_of(progress, number / len(fitted), 1 / len(fitted), f"{task.name}: ")
            found = self._method(tokens)(model, task, progress=told)
            answers = {name: found.values(name).mean(axis=2) for name in ("accuracy", "gold")}
            for arm, (condition, place) in {
                "none": (0, 0), "gold": (0, 1), "random": (1, 1),
            }.items():  # fmt: skip
                own = {name: values[condition, place] for name, values in answers.items()}
                head = {"task": task.name, "labels": len(task.labels), "arm": arm}
                asked = {"query": found.queries, "label": found.gold}
                frames.append(pd.DataFrame(head | asked | own))
        return GainsResult(
            **measured_on(model),
            k=self.k,
            draws=self.draws,
            seed=self.seed,
            answers=pd.concat(frames, ignore_index=True),
        )


@dataclass(frozen=True, kw_only=True)
class GainsResult(Measured):
    """Answers to every query of every task, without demonstrations and after them.

    Attributes:
        k: Number of demonstrations.
        draws: Sets of demonstrations that each answer is the mean of.
        seed: Seed of the draws.
        answers: Columns `task, labels` (their number), `arm` (none, gold, random), `query`, its
            `label`, `accuracy` and `gold` (probability of the right label), in 0..1.
    """

    k: int
    draws: int
    seed: int
    answers: pd.DataFrame

    @property
    def title(self) -> str:
        """What was measured, on what."""
        n_tasks = self.answers["task"].nunique()
        return f"{n_tasks} tasks with {self.k} demonstrations and without: {self.model}"

    def values(self, task: str, arm: str, measure: Answered = "accuracy") -> np.ndarray:
        """A measure of one task, query by query, in 0..1."""
        rows = self.answers
        return rows[(rows["task"] == task) & (rows["arm"] == arm)][measure].to_numpy()

    def to_frame(self, measure: Answered = "accuracy") -> pd.DataFrame:
        """One row per task, the largest gain first.

        Columns `task, labels, majority` (accuracy of always giving the most frequent label),
        `none, gold, random` (means), `mean, low, high, n` of the gain (gold - none, query by
        query), `p`, `p_holm`, and `clear`: the interval lies above 0, so does the test after
        Holm's correction, at 5 %, and the accuracy after demonstrations is above the majority's.
        """
        frame = self._tested(self._ranked(measure), "gold", "none", measure)
        means = self._means(measure)
        for place, arm in enumerate(ARMS, start=1):
            frame.insert(place, arm, means.loc[frame["task"], arm].to_numpy())
        asked = self.answers[self.answers["arm"] == "none"].groupby("task")
        majority = asked["label"].agg(lambda own: own.value_counts(normalize=True).iloc[0])
        frame.insert(1, "majority", majority.loc[frame["task"]].to_numpy())
        frame.insert(1, "labels", asked["labels"].first().loc[frame["task"]].to_numpy())
        better = self._means("accuracy").loc[frame["task"], "gold"].to_numpy() > frame["majority"]
        clear = (frame["low"] > 0) & (frame["p_holm"] < 0.05) & better
        return frame.assign(clear=clear)

    def by_labels(self, measure: Answered = "accuracy") -> pd.DataFrame:
        """The loss from random labels, task by task: columns as in `to_frame`, of gold - random."""
        names = list(dict.fromkeys(self.answers["task"]))
        return self._tested(names, "gold", "random", measure)

    def clear(self, measure: Answered = "accuracy") -> tuple[str, ...]:
        """The tasks that clearly gain, the largest gain first."""
        frame = self.to_frame(measure)
        return tuple(frame["task"][frame["clear"]])

    def over_tasks(self, one: str, other: str, *, tasks: Sequence[str] | None = None) -> Estimate:
        """Mean difference in accuracy of two arms over tasks, which are its unit.

        Args:
            one: An arm.
            other: What it is compared with.
            tasks: Some of the tasks; all by default.

        Raises:
            InputError: If there is no such arm or task.
        """
        return average(self.differences(one, other, tasks=tasks), within=(-1.0, 1.0))

    def differences(
        self, one: str, other: str, *, tasks: Sequence[str] | None = None
    ) -> Float[np.ndarray, " task"]:
        """The difference in accuracy of two arms, by task; arguments as in `over_tasks`.

        Raises:
            InputError: If there is no such arm or task.
        """
        means = self._means("accuracy")
        wanted = list(means.index) if tasks is None else list(tasks)
        unknown = [name for name in wanted if name not in means.index]
        unknown += [arm for arm in (one, other) if arm not in means.columns]
        if unknown:
            raise InputError(f"not measured: {unknown}; there are {list(means.columns)}")
        return (means[one] - means[other]).loc[wanted].to_numpy()

    def figure(self, measure: Answered = "accuracy") -> Any:
        """Every task (down) without demonstrations, with random labels and with its own."""
        from labkit.plots.icl.demonstrations import measure_by_row

        rows = [
            {"row": task, "series": words} | share(self.values(task, arm, measure)).to_dict()
            for task in self._ranked(measure)
            for arm, words in ARMS.items()
        ]
        return measure_by_row(
            pd.DataFrame(rows),
            measure=MEASURES[measure],
            title=self.title,
            subtitle="95 % intervals over queries; the largest gain on top",
        )

    def _ranked(self, measure: Answered) -> list[str]:
        """The tasks, the largest gain first."""

        def gain(task: str) -> float:
            both = (self.values(task, arm, measure) for arm in ("gold", "none"))
            return float(np.subtract(*both).mean())

        return sorted(dict.fromkeys(self.answers["task"]), key=gain, reverse=True)

    def _means(self, measure: Answered) -> pd.DataFrame:
        """Mean of a measure by task (down) and arm."""
        return self.answers.pivot_table(index="task", columns="arm", values=measure)

    def _tested(self, names: list[str], one: str, other: str, measure: Answered) -> pd.DataFrame:
        """The difference of two arms in every task, tested together."""
        pairs = (
            ({"task": name}, self.values(name, one, measure), self.values(name, other, measure))
            for name in names
        )
        return tested(pairs, ("task",), seed=self.seed)
