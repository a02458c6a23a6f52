"""Grading what students hand in, without trusting it.

`grade` reads a folder of notebooks. A student's code runs in a process of its own, forked from one
that has never run a student's code (`bench`); the checks run in the teacher's process (`session`),
and nothing but plain values passes between the two (`wire`).
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.course.grading.grades import Graded, grade

__getattr__, __dir__, __all__ = door(__name__, __file__)
