"""Assignments that check themselves.

An assignment is one source (`notebooks/course/`), out of which `build` makes a notebook of
exercises and one of solutions. `check` holds one check per exercise, which a student calls in the
notebook: `check.rome_update(rome_update, model=model, seed=SEED)`. `labkit.course.grading`
grades what comes back.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.course.building import build
    from labkit.course.drawing import drawn
    from labkit.course.sources import Assignment, Exercise, assignment_names, read_assignment

__getattr__, __dir__, __all__ = door(__name__, __file__)
