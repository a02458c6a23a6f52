"""Probing tasks: words in texts with labels, split so that nothing leaks."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.tasks.data import tasks_of
    from probes.tasks.defaults import default_tasks
    from probes.tasks.task import Example, Split, Task

__getattr__, __dir__, __all__ = door(__name__, __file__)
