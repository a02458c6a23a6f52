"""Probe a task at every depth of a model, controls included.

    result = probe(model, task)
    result.best.score          # accuracy with its interval over sentences or subjects
    result.figure()

What is the same for all depths is done once: the split, the control labels, the baselines, the
states of all depths in one pass, and the strength of the probe, which grouped cross-validation on
the training side chooses at the middle depth. At each depth the states are scaled once; then
the same probe is fitted to the labels, to the control labels, to shuffled labels, to the
portions of the online code, and to the states of the random-weight twin.

What a probe reads, the model need not use: see `probes.use`.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from labkit.corpus import Progress
from labkit.errors import InputError
from labkit.models import LabModel
from labkit.stats import Estimate
from probes.controls import (
    baselines,
    control_labels,
    no_selectivity,
    random_twin,
    recurring,
    shuffled_labels,
)
from probes.description_length import PORTIONS, DescriptionLength, online_code
from probes.estimators import choose_strength, make
from probes.features import Features, Pieces, Where, features_of, n_rows
from probes.probe_result import ProbedDepth, ProbeResult
from probes.scores import Scorer, holm
from probes.tasks import Split, Task

N_TRAIN = 2000


def probe(
    model: LabModel,
    task: Task,
    *,
    estimator: str = "logistic",
    where: Where = "resid",
    depths: Sequence[int] | None = None,
    pieces: Pieces = "last",
    controls: bool = True,
    twin: LabModel | None = None,
    n_train: int | None = N_TRAIN,
    portions: Sequence[float] = PORTIONS,
    cache: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeResult:
    """Fit and score one probe a depth.

    Args:
        model: The model.
        task: What is asked.
        estimator: A name in `ESTIMATORS`; a logistic probe is replaced by ridge for numbers.
        where: Which states: the residual stream, or another site.
        depths: Which depths (or layers); all by default.
        pieces: Which of a word's tokens are read.
        controls: Whether to fit the control task, shuffled labels, the twin and the code; the
            baselines are always there.
        twin: The random-weight model; made from `model` by default.
        n_train: Examples of either side at most; all with None.
        portions: Ends of the portions of the online code, as shares of the training side.
        cache: Whether states are kept in the user's cache.
        seed: Seed of every draw.
        progress: Called with what is being done and the share that is done.

    Raises:
        OneClass, ClassTooSmall, EmptySplit, LeakingSplit: If the task is not one to learn from.
        InputError: If there is no such probe, site or depth, or the probe does not fit.
        NotAligned: If a word has no tokens of its own.
    """
    estimator = chosen_estimator(estimator, task)
    make(estimator, numeric=task.numeric)
    there = range(n_rows(model, where))
    missing = [] if depths is None else [depth for depth in depths if depth not in there]
    if missing or (depths is not None and not len(depths)):
        raise InputError(f"depths {missing} of {where}: {model.name} has 0..{len(there) - 1}")
    task = task if n_train is None else task.limited(n_train, seed=seed)
    task.split(seed=seed)
    told = progress or (lambda what, share: None)
    read: dict[str, Any] = {"where": where, "depths": depths, "pieces": pieces}
    told(f"{task.name}: reading the states", 0.0)
    features = features_of(model, task, **read, cache=cache)
    other = None
    if controls:
        told(f"{task.name}: reading the random-weight twin", 0.02)
        other = features_of(twin or random_twin(model, seed=seed), task, **read, cache=False)
    return probe_features(
        task,
        features,
        model=model.name,
        estimator=estimator,
        controls=controls,
        twin=other,
        portions=portions,
        seed=seed,
        progress=lambda what, share: told(what, 0.05 + 0.95 * share),
    )


def chosen_estimator(name: str, task: Task) -> str:
    """The probe of this name, ridge in the place of logistic where labels are numbers."""
    return "ridge" if task.numeric and name == "logistic" else name


def probe_features(
    task: Task,
    features: Features,
    *,
    model: str,
    estimator: str = "logistic",
    controls: bool = True,
    twin: Features | None = None,
    portions: Sequence[float] = PORTIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeResult:
    """`probe` on states that were read before.

    Args:
        task: The task, as long as the features.
        features: The states.
        model: What to call the model.
        estimator: A name in `ESTIMATORS`.
        controls: Whether to fit the controls.
        twin: The same states of a random-weight model; left out where it is None.
        portions: Ends of the portions of the online code.
        seed: Seed of every draw.
        progress: Called as depths are done.

    Raises:
        InputError: If the features are of another number of examples.
    """
    if len(features) != len(task):
        raise InputError(f"{len(features)} states for the {len(task)} examples of {task.name!r}")
    bench = _Bench.of(task, features, chosen_estimator(estimator, task), tuple(portions), seed)
    found, credit = [], []
    best: tuple[float, DescriptionLength | None] = (-np.inf, None)
    for place, depth in enumerate(features.depths):
        if progress is not None:
            progress(f"{task.name}: depth {depth}", place / len(features.depths))
        other = None if twin is None else twin.at(depth)
        at, answers, code = bench.probed(depth, features.at(depth), other, controls)
        found.append(at)
        credit.append(bench.scorer.by_group(bench.scorer.credits(answers)))
        if at.score.mean > best[0]:
            best = at.score.mean, code
    corrected = holm([at.p for at in found])
    return ProbeResult(
        task=task.name,
        family=task.family,
        source=task.source,
        model=model,
        fingerprint=features.fingerprint,
        where=features.where,
        estimator=bench.estimator,
        strength=bench.strength,
        numeric=task.numeric,
        n_train=len(bench.split.train),
        n_test=len(bench.split.test),
        n_classes=None if task.numeric else len(set(task.labels[bench.split.train].tolist())),
        unconverged=len(bench.unconverged),
        baselines={name: bench.scorer.score(given) for name, given in bench.baselines.items()},
        no_selectivity=no_selectivity(task, bench.split),
        no_code=bench.no_code,
        depths=tuple(replace(at, p_holm=float(p)) for at, p in zip(found, corrected, strict=True)),
        curve=() if best[1] is None else best[1].portions,
        credit=tuple(tuple(row.tolist()) for row in credit),
        weight=tuple(bench.scorer.by_group(bench.scorer.weights).tolist()),
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class _Bench:
    """What is the same for all depths of a task."""

    task: Task
    split: Split
    scorer: Scorer
    estimator: str
    strength: float | None
    baselines: dict[str, np.ndarray]
    control: np.ndarray
    portions: tuple[float, ...]
    seed: int
    unconverged: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, task: Task, features: Features, estimator: str, portions: tuple[float, ...], seed: int
    ) -> "_Bench":
        split = task.split(seed=seed)
        labels, groups = task.labels, task.groups
        middle = features.at(features.depths[len(features.depths) // 2])[split.train]
        unconverged: list[str] = []
        with _counted(unconverged):
            strength = choose_strength(
                estimator,
                middle,
                labels[split.train],
                groups[split.train],
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
            portions=portions,
            seed=seed,
            unconverged=unconverged,
        )

    @property
    def head(self) -> Any:
        """A fresh probe, without its scaler."""
        return clone(self._pipeline[-1])

    @property
    def _pipeline(self) -> Any:
        return make(
            self.estimator, numeric=self.task.numeric, strength=self.strength, seed=self.seed
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
        controls: bool,
    ) -> tuple[ProbedDepth, np.ndarray, DescriptionLength | None]:
        """One depth: what was found, the answers, and the code."""
        train, test = self._scaled(states)
        labels = self.task.labels[self.split.train]
        answers = self._answers(train, labels, test)
        control = selectivity = shuffled = None
        code: DescriptionLength | None = None
        if controls:
            control, selectivity = self._selectivity(train, test, answers)
            mixed = shuffled_labels(self.task, self.split, seed=self.seed)
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
        return at, answers, code

    def _scaled(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both sides, scaled by the training side's moments."""
        scaler = clone(self._pipeline[0])
        train = scaler.fit_transform(states[self.split.train])
        return train, scaler.transform(states[self.split.test])

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
        train, test = self._scaled(states)
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
                portions=self.portions,
                seed=self.seed,
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
