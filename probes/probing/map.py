"""The map: many tasks, every depth of one model, and which kind of knowledge lies lower.

    found = probe_map(model, default_tasks(model), run=RunDirectory.create(...))
    found.figure()
    found.order()                  # do linguistic tasks arise at lower depths than factual ones?

Tasks over the same texts are read in one pass, and one random-weight twin serves all. With a run
directory every finished task is saved at once, and the same call on the same directory resumes with
the next.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from labkit import arguments
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.progress import Progress, listener, part_of
from labkit.results.encoding import from_json, to_json
from labkit.results.measured import measured_on
from labkit.results.runs import RunDirectory
from probes.probing.by_depth import Read, checked, read_together
from probes.probing.configuration import MAP, Probing
from probes.probing.controls import random_twin
from probes.probing.map_result import FAMILIES, ProbeMap
from probes.probing.probe_result import ProbeResult
from probes.tasks.task import Task

__all__ = ["ProbeMap", "map_config", "named", "probe_map"]


@arguments.checked
def probe_map(
    model: LabModel,
    tasks: Mapping[str, Task] | Sequence[Task],
    how: Probing = MAP,
    *,
    run: RunDirectory | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> ProbeMap:
    """Probe every task at every depth.

        probe_map(model, tasks)
        probe_map(model, tasks, dataclasses.replace(MAP, depths=(0, 8), controls=False))

    All tasks are looked at before the first is run.

    Args:
        model: The model.
        tasks: The tasks.
        how: As in `probe`; by default `MAP`, with fewer examples of a task.
        run: Keeps every finished task; those that are there already are not run again. Make it
            with `map_config`.
        cache: Whether states are kept in the user's cache.
        progress: Called with what is being done and the share that is done.

    Raises:
        InputError: If there is no task, or two of one name, or as `probe`.
        OneClass, ClassTooSmall, EmptySplit, LeakingSplit: If a task cannot be learned.
    """
    asked = named(tasks)
    checked(model, asked, how)
    finished = {} if run is None else {case["case_id"]: case["result"] for case in run.cases()}
    twin = None
    readers: dict[tuple[str, ...], Iterator[Read]] = {}
    results = []
    for place, task in enumerate(asked):
        if task.name in finished:
            results.append(from_json(finished[task.name], ProbeResult))
            continue
        told = part_of(progress, place / len(asked), 1 / len(asked))
        listener(told)(f"{task.name}: reading the states", 0.0)
        if how.controls and twin is None:
            twin = random_twin(model, seed=how.seed)
        if task.texts not in readers:
            # With those that are finished: a map that is resumed reads the very same states.
            together = [other for other in asked if other.texts == task.texts]
            readers[task.texts] = read_together(model, together, how, twin=twin, cache=cache)
        read = next(own for own in readers[task.texts] if own.task.name == task.name)
        if all(other.texts != task.texts for other in asked[place + 1 :]):
            del readers[task.texts]  # and with it the states
        result = read.probed(model, how, told)
        if run is not None:
            run.append_case({"case_id": task.name, "result": to_json(asdict(result))})
        results.append(result)
    order = {family: place for place, family in enumerate(FAMILIES)}
    results.sort(key=lambda found: order[found.family])  # stable: tasks keep their order
    return ProbeMap(
        **measured_on(model),
        where=how.where,
        estimator=how.estimator,
        probes=tuple(results),
        seed=how.seed,
    )


def map_config(tasks: Mapping[str, Task] | Sequence[Task], how: Probing = MAP) -> dict[str, Any]:
    """What determines the outcome of a map: the config of its run directory.

    Args:
        tasks: The tasks; each goes in as a digest of its data.
        how: How they are probed.
    """
    digests = {
        task.name: hashlib.sha256(repr(task).encode()).hexdigest()[:24] for task in named(tasks)
    }
    return {"command": "probe map", "tasks": digests, **asdict(how)}


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
