"""Probe a task at every depth of a model, controls included.

    result = probe(model, task)
    result.best.score          # accuracy with its interval over sentences or subjects
    result.figure()

What is the same for all depths is done once: the split, the control labels, the baselines, the
states of all depths in one pass, and the strength of the probe, which grouped cross-validation on
the training side chooses at three depths together. At each depth the states are scaled once; then
the same probe is fitted to the labels, to the control labels, to shuffled labels, to the
portions of the online code, and to the states of the random-weight twin.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from threadpoolctl import threadpool_limits

from labkit import arguments
from labkit.errors import ClassTooSmall, InputError
from labkit.models.model import LabModel
from labkit.progress import Progress, listener, part_of
from labkit.stats import holm
from probes.probing.bench import Answered, Bench
from probes.probing.configuration import USUAL, Probing
from probes.probing.controls import no_selectivity, random_twin
from probes.probing.estimators import make
from probes.probing.fitted import FittedProbes
from probes.probing.probe_result import ProbeResult
from probes.states.alignment import encoded
from probes.states.features import Features, features_of_tasks, readable
from probes.tasks.task import Task

SMALL = 10_000
"""Examples up to which fits run on one thread: products so small cost more to share than to do."""


@arguments.checked
def probe(
    model: LabModel,
    task: Task,
    how: Probing = USUAL,
    *,
    twin: LabModel | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> ProbeResult:
    """Fit and score one probe per depth.

        probe(model, task)
        probe(model, task, Probing(estimator="ridge", depths=(0, 8), controls=False))

    Args:
        model: The model.
        task: What is asked.
        how: Which probe, on which states, beside which controls, with which seed: see `Probing`.
        twin: The random-weight model; made from `model` by default.
        cache: Whether states are kept in the user's cache.
        progress: Called with what is being done and the share that is done.

    Returns:
        Scores by depth with their controls; `fitted[depth]` tries a probe on other states.

    Raises:
        OneClass, ClassTooSmall, EmptySplit, LeakingSplit: If the task cannot be learned from.
        InputError: If the model has no such depth, or the probe cannot learn the task.
        NotAligned: If the tokenizer does not report character offsets. Words without a token
            of their own are left out, and counted in the result's source.

    Shows:
        From which depths a task can be read by a probe of one kind, beyond what the word, the
        text, random weights and memorising give away.

    Does not show:
        That the model uses what is read (`probes.use.interventions`), or that a depth that scores
        higher holds more: curves are often flat.
    """
    checked(model, [task], how)
    if how.controls and twin is None:
        twin = random_twin(model, seed=how.seed)
    told = listener(progress)
    told(f"{task.name}: reading the states", 0.0)
    read = next(read_together(model, [task], how, twin=twin, cache=cache))
    return read.probed(model, how, part_of(told, 0.05, 0.95))


def checked(model: LabModel, tasks: Sequence[Task], how: Probing) -> None:
    """Refuse tasks that cannot be probed so, before any work.

    Raises:
        InputError: If the model has no such depth, or the probe cannot learn a task.
        OneClass, ClassTooSmall, EmptySplit, LeakingSplit: If a task cannot be learned from.
    """
    how.states.depths_of(model)
    for task in tasks:
        chosen_estimator(how.estimator, task)
        task.split(seed=how.seed)


@dataclass(frozen=True, eq=False)
class Read:
    """A task as it is probed, and its states.

    Attributes:
        task: The task without words that have no token, limited in number.
        left_out: Classes that are then too rare to learn.
        states: The model's states.
        twin: Those of the random-weight model; None without controls.
    """

    task: Task
    left_out: tuple[str, ...]
    states: Features
    twin: Features | None

    def probed(self, model: LabModel, how: Probing, progress: Progress | None) -> ProbeResult:
        """The result, from what was read."""
        return probe_features(
            self.task,
            self.states,
            how,
            model=model.name,
            twin=self.twin,
            left_out=self.left_out,
            progress=progress,
        )


def read_together(
    model: LabModel,
    tasks: Sequence[Task],
    how: Probing,
    *,
    twin: LabModel | None,
    cache: bool = True,
) -> Iterator[Read]:
    """Limit tasks over the same texts, and read the states of all of them in one pass.

    Args:
        model: The model.
        tasks: The tasks, at least one, all of the same texts.
        how: Which states, how many examples, which seed, and whether with controls.
        twin: The random-weight model, for the controls.
        cache: Whether the model's states are kept in the user's cache.

    Yields:
        The tasks in their order; the states of one are held at a time.

    Raises:
        OneClass, ClassTooSmall, EmptySplit: If too little of a task can be read.
        NotAligned: If the tokenizer does not report character offsets.
    """
    known = encoded(model, tasks[0].texts)
    ready = [limited(readable(model, task, known), how.n_train, seed=how.seed) for task in tasks]
    smaller = [task for task, _ in ready]
    states = features_of_tasks(model, smaller, how.states, known=known, cache=cache)
    others: Iterator[Features | None] = repeat(None)
    if how.controls and twin is not None:
        others = features_of_tasks(twin, smaller, how.states, known=known, cache=False)
    for (task, left_out), own, other in zip(ready, states, others, strict=False):
        yield Read(task, left_out, own, other)


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
    how: Probing = USUAL,
    *,
    model: str,
    twin: Features | None = None,
    left_out: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> ProbeResult:
    """`probe` on states that were read before.

    Args:
        task: The task, as long as the features.
        features: The states.
        how: Which probe, beside which controls, with which seed; its states, and how many
            examples, were settled when they were read.
        model: Name of the model.
        twin: The same states of a random-weight model; left out where it is None.
        left_out: Classes that `limited` left out.
        progress: Called as depths are done.

    Raises:
        InputError: If the features are of another number of examples.
    """
    if len(features) != len(task):
        raise InputError(f"{len(features)} states for the {len(task)} examples of {task.name!r}")
    found, made = [], []
    with threadpool_limits(1 if len(task) <= SMALL else None):
        bench = Bench.of(task, features, chosen_estimator(how.estimator, task), how)
        for place, depth in enumerate(features.depths):
            listener(progress)(f"{task.name}: depth {depth}", place / len(features.depths))
            other = None if twin is None else twin.at(depth)
            at, answered = bench.probed(depth, features.at(depth), other)
            found.append(at)
            made.append(answered)
    scorer = bench.scorer
    credit = [scorer.by_group(scorer.credits(one.answers)) for one in made]
    code = made[int(np.argmax([at.score.mean for at in found]))].code
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
        baselines={name: scorer.score(given) for name, given in bench.baselines.items()},
        no_selectivity=no_selectivity(task, bench.split),
        no_code=bench.no_code,
        depths=tuple(replace(at, p_holm=float(p)) for at, p in zip(found, corrected, strict=True)),
        curve=() if code is None else code.portions,
        credit=tuple(tuple(row.tolist()) for row in credit),
        weight=tuple(scorer.by_group(scorer.weights).tolist()),
        seed=how.seed,
        kept=_kept(task, bench, features, made),
    )


def _kept(
    task: Task, bench: Bench, features: Features, made: Sequence[Answered]
) -> FittedProbes | None:
    """The probes, where they are kept."""
    layers = [one.layers for one in made if one.layers is not None]
    return FittedProbes.of(task, bench.split.train, features.depths, layers) if layers else None
