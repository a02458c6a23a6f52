"""Checks of the course's exercises, one per exercise and named like it.

    from labkit.course import check

    check.rome_update(rome_update, model=model, seed=SEED)

A check calls the student's function on random inputs and asserts laws that an answer must keep. It
raises `CheckFailed`, which says what kind of mistake the answer looks like; what the function
itself raises passes through, a stub's NotImplementedError too.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.course.check.hooks import capture_stream, logits_of, parts_of_block
    from labkit.course.check.rome import after_edit, key_star, rome_update

__getattr__, __dir__, __all__ = door(__name__, __file__)
