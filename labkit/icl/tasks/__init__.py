"""Tasks for learning in context: items, templates, instructions, and prompts with known spans."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.icl.tasks.items import Item, Task, Template, pairs_task
    from labkit.icl.tasks.own import task, task_names
    from labkit.icl.tasks.prompts import Prompt, Shot, ShotSpans, render, write
    from labkit.icl.tasks.readers import read_tasks

__getattr__, __dir__, __all__ = door(__name__, __file__)
