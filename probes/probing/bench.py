"""The bench of a task: what is shared by all depths, and what is done at each.

Hyperparameters are chosen once, on the training side, by their mean score at three depths (a
quarter, half and three quarters up); every probe and every control of the task then has the same.
A strength is the width of a prior and no weight per example, so that of a large training side is
chosen on `CHOICE` of its examples.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from labkit.stats import Estimate
from probes.probing.configuration import Probing
from probes.probing.controls import (
    baselines,
    control_labels,
    no_selectivity,
    recurring,
    shuffled_labels,
)
from probes.probing.description_length import DescriptionLength, OnlineCode, online_code
from probes.probing.estimators import choose_strength, make
from probes.probing.fitted import Layer, layers_of
from probes.probing.probe_result import ProbedDepth
from probes.probing.scores import Scorer
from probes.states.features import Features
from probes.tasks.task import Split, Task

CHOICE = 5000
"""Training examples that the strength of a probe is chosen on, at most."""


@dataclass(frozen=True, eq=False)
class Answered:
    """What stands behind the scores of one depth.

    Attributes:
        answers: The probe's answers to the test side.
        code: The online code; None where there is none.
        layers: What the probe computes; None where it is not kept.
    """

    answers: np.ndarray
    code: DescriptionLength | None
    layers: tuple[Layer, ...] | None


@dataclass(frozen=True, eq=False)
class Bench:
    """What is the same for all depths of a task.

    Attributes:
        task: The task.
        split: Its sides.
        scorer: Of the test side.
        estimator: Name of the probe.
        strength: Its strength; None if it has none.
        baselines: Answers without using a state, by name.
        control: A random label of each example, by its item.
        how: Which controls, portions and seed.
        unconverged: Convergence warnings of scikit-learn.
    """

    task: Task
    split: Split
    scorer: Scorer
    estimator: str
    strength: float | None
    baselines: dict[str, np.ndarray]
    control: np.ndarray
    how: Probing
    unconverged: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, task: Task, features: Features, estimator: str, how: Probing) -> "Bench":
        """Prepare a task."""
        seed = how.seed
        split = task.split(seed=seed)
        labels, groups = task.labels, task.groups
        n = len(features.depths)
        some = {features.depths[place] for place in (n // 4, n // 2, 3 * n // 4)}
        few = task.drawn(split.train, CHOICE, seed=seed)
        unconverged: list[str] = []
        with _counted(unconverged):
            strength = choose_strength(
                estimator,
                [features.at(depth)[few] for depth in sorted(some)],
                labels[few],
                groups[few],
                numeric=task.numeric,
                seed=seed,
            )
        unconverged.clear()  # those of the choice are not the result's
        scorer = Scorer.of(
            labels[split.test],
            groups[split.test],
            labels[split.train],
            numeric=task.numeric,
            seed=seed,
        )
        return cls(
            task=task,
            split=split,
            scorer=scorer,
            estimator=estimator,
            strength=strength,
            baselines=baselines(task, split, seed=seed),
            control=control_labels(task, split, seed=seed),
            how=how,
            unconverged=unconverged,
        )

    @property
    def head(self) -> Any:
        """A fresh probe, without its scaler."""
        return clone(self._pipeline[-1])

    @property
    def _pipeline(self) -> Any:
        return make(
            self.estimator, numeric=self.task.numeric, strength=self.strength, seed=self.how.seed
        )

    @property
    def no_code(self) -> str | None:
        """Why there is no description length; None if there is."""
        if self.task.numeric:
            return "an online code is of classes, not of numbers"
        if not hasattr(self.head, "predict_proba"):
            return f"a {self.estimator} probe has no probabilities to code with"
        return None

    def probed(
        self,
        depth: int,
        states: Float[np.ndarray, "example width"],
        twin: Float[np.ndarray, "example width"] | None,
    ) -> tuple[ProbedDepth, Answered]:
        """One depth: what was found, and what it was found with."""
        scaler, train, test = self._scaled(states)
        labels = self.task.labels[self.split.train]
        with _counted(self.unconverged):
            head = self.head.fit(train, labels)
        answers = head.predict(test)
        control = selectivity = shuffled = None
        code: DescriptionLength | None = None
        if self.how.controls:
            control, selectivity = self._selectivity(train, test, answers)
            mixed = shuffled_labels(self.task, self.split, seed=self.how.seed)
            shuffled = self.scorer.score(self._answers(train, mixed, test))
            code = self._code(train, labels, test)
        name = max(self.baselines, key=lambda name: self.scorer.credits(self.baselines[name]).sum())
        p = self.scorer.above(answers, self.baselines[name])
        at = ProbedDepth(
            depth=depth,
            score=self.scorer.score(answers),
            control=control,
            selectivity=selectivity,
            shuffled=shuffled,
            twin=None if twin is None else self._twin_score(twin, labels),
            bits=None if code is None else code.bits,
            compression=None if code is None else code.compression,
            p=p,
            p_holm=p,
        )
        return at, Answered(answers, code, layers_of(scaler, head) if self.how.keep else None)

    def _scaled(self, states: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """The scaler of the training side's moments, and both sides scaled by it."""
        scaler = clone(self._pipeline[0])
        train = scaler.fit_transform(states[self.split.train])
        return scaler, train, scaler.transform(states[self.split.test])

    def _answers(self, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Answers to the test side of a probe fitted to these labels."""
        if len(set(labels.tolist())) < 2:  # a control task may draw one label for all
            return np.full(len(test), labels[0])
        with _counted(self.unconverged):
            return self.head.fit(train, labels).predict(test)

    def _selectivity(
        self, train: np.ndarray, test: np.ndarray, answers: np.ndarray
    ) -> tuple[Estimate | None, Estimate | None]:
        """Control score and selectivity, over the examples of recurring word types."""
        if no_selectivity(self.task, self.split) is not None:
            return None, None
        among = recurring(self.task, self.split)
        given = self._answers(train, self.control[self.split.train], test)
        control = replace(self.scorer, labels=self.control[self.split.test])
        selectivity = self.scorer.difference(answers, control, given, among=among)
        return control.score(given, among=among), selectivity

    def _twin_score(self, states: np.ndarray, labels: np.ndarray) -> Estimate:
        _, train, test = self._scaled(states)
        return self.scorer.score(self._answers(train, labels, test))

    def _code(
        self, train: np.ndarray, labels: np.ndarray, test: np.ndarray
    ) -> DescriptionLength | None:
        """The online code of the training side's labels."""
        if self.no_code is not None:
            return None
        with _counted(self.unconverged):
            return online_code(
                self.head,
                train,
                labels,
                self.task.groups[self.split.train],
                OnlineCode(portions=self.how.portions, seed=self.how.seed),
                score=lambda fitted: float(self.scorer.credits(fitted.predict(test)).mean()),
            )


@contextmanager
def _counted(stopped: list[str]) -> Iterator[None]:
    """Count the fits that stop at their number of steps, instead of a warning for each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            stopped.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
