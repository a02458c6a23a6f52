"""Probe a task at every depth of a model, controls included.

    result = probe(model, task)
    result.best.score          # accuracy with its interval over sentences or subjects
    result.figure()

What is the same for all depths is done once: the split, the control labels, the baselines, the
states of all depths in one pass, and the strength of the probe, which grouped cross-validation on
the training side chooses at three depths together. At each depth the states are scaled once; then
the same probe is fitted to the labels, to the control labels, to shuffled labels, to the
portions of the online code, and to the states of the random-weight twin.

What a probe reads, the model need not use: see `probes.use.interventions`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from labkit.errors import ClassTooSmall, InputError
from labkit.models.model import LabModel
from labkit.progress import Progress, listener, part_of
from labkit.stats import holm
from probes.probing.bench import Bench
from probes.probing.controls import no_selectivity, random_twin
from probes.probing.description_length import PORTIONS, DescriptionLength
from probes.probing.estimators import make
from probes.probing.probe_result import ProbeResult
from probes.states.features import Features, Pieces, Where, depths_of, features_of, readable
from probes.tasks.task import Task

N_TRAIN = 2000

SMALL = 10_000
"""Examples up to which fits run on one thread: products so small cost more to share than to do."""


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
    """Fit and score one probe per depth.

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
        OneClass, ClassTooSmall, EmptySplit, LeakingSplit: If the task cannot be learned from.
        InputError: If there is no such probe, site or depth, or the probe does not fit.
        NotAligned: If the tokenizer does not report character offsets. Words without a token
            of their own are left out, and counted in the result's source.
    """
    estimator = chosen_estimator(estimator, task)
    depths = depths_of(model, where, depths)
    task.split(seed=seed)
    task, left_out = limited(readable(model, task), n_train, seed=seed)
    told = listener(progress)
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
        left_out=left_out,
        seed=seed,
        progress=part_of(told, 0.05, 0.95),
    )


def chosen_estimator(name: str, task: Task) -> str:
    """The probe of this name, ridge in place of logistic where labels are numbers.

    Raises:
        InputError: If there is no such probe, or it cannot learn the task.
    """
    name = "ridge" if task.numeric and name == "logistic" else name
    make(name, numeric=task.numeric)
    if name == "mean_difference" and (n_classes := len(set(task.labels.tolist()))) > 2:
        raise InputError(
            f"a mean difference needs two classes, {task.name!r} has {n_classes}: use centroid"
        )
    return name


def limited(task: Task, n: int | None, *, seed: int = 0) -> tuple[Task, tuple[str, ...]]:
    """At most `n` examples on either side, without the classes that are then too rare to learn.

    Args:
        task: A task whose own classes are large enough.
        n: Examples of a side at most; None leaves the task as it is.
        seed: Seed of the draw.

    Returns:
        The smaller task, and the classes that were left out, rarest first.
    """
    left_out: list[str] = []
    while n is not None:
        try:
            return task.limited(n, seed=seed), tuple(left_out)
        except ClassTooSmall:
            counts = Counter(task.labels.tolist())
            if len(counts) < 3:
                raise
            rarest = min(counts, key=lambda label: (counts[label], label))
            left_out.append(rarest)
            task = _without(task, rarest)
    return task, ()


def _without(task: Task, label: str) -> Task:
    """A task without one of its classes."""
    kept = [number for number, example in enumerate(task.examples) if example.label != label]
    held_out = task.held_out
    if held_out is not None:
        test = set(held_out)
        held_out = tuple(place for place, number in enumerate(kept) if number in test)
    return replace(
        task, examples=tuple(task.examples[number] for number in kept), held_out=held_out
    )


def probe_features(
    task: Task,
    features: Features,
    *,
    model: str,
    estimator: str = "logistic",
    controls: bool = True,
    twin: Features | None = None,
    portions: Sequence[float] = PORTIONS,
    left_out: tuple[str, ...] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeResult:
    """`probe` on states that were read before.

    Args:
        task: The task, as long as the features.
        features: The states.
        model: Name of the model.
        estimator: A name in `ESTIMATORS`.
        controls: Whether to fit the controls.
        twin: The same states of a random-weight model; left out where it is None.
        portions: Ends of the portions of the online code.
        left_out: Classes that `limited` left out.
        seed: Seed of every draw.
        progress: Called as depths are done.

    Raises:
        InputError: If the features are of another number of examples.
    """
    if len(features) != len(task):
        raise InputError(f"{len(features)} states for the {len(task)} examples of {task.name!r}")
    found, credit = [], []
    best: tuple[float, DescriptionLength | None] = (-np.inf, None)
    with threadpool_limits(1 if len(task) <= SMALL else None):
        bench = Bench.of(task, features, chosen_estimator(estimator, task), tuple(portions), seed)
        for place, depth in enumerate(features.depths):
            listener(progress)(f"{task.name}: depth {depth}", place / len(features.depths))
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
        left_out=left_out,
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
