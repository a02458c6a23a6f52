"""The map: many tasks, every depth of one model, and which kind of knowledge lies lower.

    found = probe_map(model, default_tasks(model), run=RunDirectory.create(...))
    found.figure()
    found.order()                  # do linguistic tasks arise at lower depths than factual ones?

One random-weight twin serves all tasks. With a run directory every finished task is saved at once,
and the same call on the same directory resumes with the next.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.results.encoding import from_json, to_json
from labkit.results.measured import measured_on
from labkit.results.runs import RunDirectory
from probes.probing.by_depth import chosen_estimator, probe
from probes.probing.controls import random_twin
from probes.probing.description_length import FEW_PORTIONS
from probes.probing.map_result import FAMILIES, ProbeMap
from probes.probing.probe_result import ProbeResult
from probes.states.features import Pieces, Where
from probes.tasks.task import Task

__all__ = ["ProbeMap", "map_config", "named", "probe_map"]

MAP_TRAIN = 1000


def probe_map(
    model: LabModel,
    tasks: Mapping[str, Task] | Sequence[Task],
    *,
    estimator: str = "logistic",
    where: Where = "resid",
    depths: Sequence[int] | None = None,
    pieces: Pieces = "last",
    controls: bool = True,
    n_train: int | None = MAP_TRAIN,
    portions: Sequence[float] = FEW_PORTIONS,
    run: RunDirectory | None = None,
    cache: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeMap:
    """Probe every task at every depth.

    All tasks are looked at before the first is run.

    Args:
        model: The model.
        tasks: The tasks.
        estimator: Which probe; for numbers ridge takes the place of logistic.
        where: Which states.
        depths: Which depths; all by default.
        pieces: Which of a word's tokens.
        controls: As in `probe`.
        n_train: Examples of either side at most, per task.
        portions: Ends of the portions of the online code.
        run: Keeps every finished task; those that are there already are not run again. Make it
            with `map_config`.
        cache: Whether states are kept in the user's cache.
        seed: Seed of every draw.
        progress: Called with what is being done and the share that is done.

    Raises:
        InputError: If there is no task, or two of one name, or a bad argument of `probe`.
        OneClass, ClassTooSmall, EmptySplit, LeakingSplit: If a task cannot be learned.
    """
    asked = named(tasks)
    for task in asked:
        chosen_estimator(estimator, task)
        task.split(seed=seed)
    finished = {} if run is None else {case["case_id"]: case["result"] for case in run.cases()}
    twin = None
    results = []
    for place, task in enumerate(asked):
        if task.name in finished:
            results.append(from_json(finished[task.name], ProbeResult))
            continue
        if controls and twin is None:
            twin = random_twin(model, seed=seed)

        result = probe(
            model,
            task,
            estimator=estimator,
            where=where,
            depths=depths,
            pieces=pieces,
            controls=controls,
            twin=twin,
            n_train=n_train,
            portions=portions,
            cache=cache,
            seed=seed,
            progress=part_of(progress, place / len(asked), 1 / len(asked)),
        )
        if run is not None:
            run.append_case({"case_id": task.name, "result": to_json(asdict(result))})
        results.append(result)
    order = {family: place for place, family in enumerate(FAMILIES)}
    results.sort(key=lambda found: order[found.family])  # stable: tasks keep their order
    return ProbeMap(
        **measured_on(model),
        where=where,
        estimator=estimator,
        probes=tuple(results),
        seed=seed,
    )


def map_config(tasks: Mapping[str, Task] | Sequence[Task], **settings: Any) -> dict[str, Any]:
    """What determines the outcome of a map: the config of its run directory.

    Args:
        tasks: The tasks; each goes in as a digest of its data.
        **settings: What else `probe_map` is called with, but for `run` and `progress`.
    """
    digests = {
        task.name: hashlib.sha256(repr(task).encode()).hexdigest()[:24] for task in named(tasks)
    }
    return {"command": "probe map", "tasks": digests, **settings}


def named(tasks: Mapping[str, Task] | Sequence[Task]) -> list[Task]:
    """The tasks as a list, each of its own name.

    Raises:
        InputError: If there is none, or two of one name.
    """
    asked = [*tasks.values()] if isinstance(tasks, Mapping) else [*tasks]
    if not asked:
        raise InputError("there is no task to probe")
    names = [task.name for task in asked]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two tasks are called {name!r}")
    return asked
