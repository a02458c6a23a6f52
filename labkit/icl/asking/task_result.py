"""What the results of one task share: the task, and the queries that were asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.icl.tasks.items import Item, Task
from labkit.models.model import LabModel
from labkit.results.measured import Measured, MeasuredOn, measured_on


class AboutTask(MeasuredOn):
    """What `about_task` fills in."""

    task: str
    source: str
    gold: tuple[str, ...]


class AboutQueries(AboutTask):
    """What `about_queries` fills in."""

    queries: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskResult(Measured):
    """Base of the results of one task.

    Attributes:
        task: Name of the task.
        source: Where its items come from.
        gold: Labels of the queries.
    """

    task: str
    source: str
    gold: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class QueriesResult(TaskResult):
    """Base of the results that keep the queries.

    Attributes:
        queries: Inputs that were asked about.
    """

    queries: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelsResult(QueriesResult):
    """Base of the results that keep a score of every label for every query.

    Attributes:
        labels: The label space.
    """

    labels: tuple[str, ...]


def about_task(model: LabModel, task: Task, queries: Sequence[Item]) -> AboutTask:
    """The keyword arguments of `TaskResult`."""
    return {
        **measured_on(model),
        "task": task.name,
        "source": task.source,
        "gold": tuple(item.label for item in queries),
    }


def about_queries(model: LabModel, task: Task, queries: Sequence[Item]) -> AboutQueries:
    """The keyword arguments of `QueriesResult`."""
    return {
        **about_task(model, task, queries),
        "queries": tuple(item.input for item in queries),
    }
