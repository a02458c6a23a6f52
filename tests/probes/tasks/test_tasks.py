"""A task refuses what nothing could be learned from, and splits whole groups."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ClassTooSmall, EmptySplit, InputError, LeakingSplit, OneClass
from probes.tasks.task import Example, Split, Task, check_classes, check_split


def example(label="a", group="g", text=0, span=(0, 1)):
    return Example(text=text, span=span, label=label, group=group, item="x")


def task(*examples, **more):
    values = {"name": "t", "family": "surface", "texts": ("ab",), "source": "by hand"}
    return Task(**{**values, "examples": examples, **more})


EIGHT = tuple(example("ab"[n % 2], f"g{n // 2}") for n in range(8))


@pytest.mark.parametrize(
    ("error", "examples", "more"),
    [
        (EmptySplit, (), {}),
        (OneClass, (example("a"), example("a", "h")), {}),
        (OneClass, (example(1.0), example(1.0, "h")), {"numeric": True}),
        (InputError, (*EIGHT, example(text=1)), {}),
        (InputError, (*EIGHT, example(span=(1, 1))), {}),
        (InputError, (*EIGHT, example(span=(0, 3))), {}),
        (InputError, (*EIGHT, example(1.0)), {}),
        (InputError, EIGHT, {"numeric": True}),
        (InputError, EIGHT, {"held_out": (8,)}),
        (EmptySplit, EIGHT, {"held_out": ()}),
        (EmptySplit, EIGHT, {"held_out": tuple(range(8))}),
        (LeakingSplit, EIGHT, {"held_out": (0,)}),
        (ClassTooSmall, EIGHT, {"held_out": (2, 3, 4, 5, 6, 7)}),
        (OneClass, (*EIGHT, example("a", "h"), example("a", "h")), {"held_out": tuple(range(8))}),
    ],
)
def test_bad_tasks_are_refused_by_name(error, examples, more):
    with pytest.raises(error):
        task(*examples, **more)


def test_a_class_too_small_is_named_when_it_is_split():
    small = task(*EIGHT, example("c", "h"), example("c", "i"))
    with pytest.raises(ClassTooSmall, match="'c' of 't'"):
        for seed in range(20):
            small.split(seed=seed)


@given(
    st.lists(st.integers(0, 9), min_size=30, max_size=60), st.integers(0, 5), st.floats(0.1, 0.6)
)
def test_every_draw_keeps_groups_whole_and_loses_nothing(groups, seed, share):
    if len(set(groups)) < 2:
        groups = [*groups[:-1], 99]
    whole = task(*(example(float(n), f"{g}") for n, g in enumerate(groups)), numeric=True)
    split = whole.split(test_share=share, seed=seed)
    assert sorted([*split.train, *split.test]) == list(range(len(groups)))
    assert not set(whole.groups[split.train]) & set(whole.groups[split.test])
    again = whole.split(test_share=share, seed=seed)
    assert again.train.tolist() == split.train.tolist()
    limited = whole.limited(10, seed=seed)
    sides = limited.split()
    assert max(len(sides.train), len(sides.test)) <= 10
    assert set(limited.groups[sides.train]) <= set(whole.groups[whole.split(seed=seed).train])


def test_a_source_that_holds_out_decides():
    chosen = task(*EIGHT, held_out=(2, 3))
    assert chosen.split(seed=5).test.tolist() == [2, 3]
    assert dataclasses.replace(chosen, held_out=None).split(seed=5).test.size in (2, 4)


def test_a_leaking_split_is_refused_whoever_makes_it():
    with pytest.raises(LeakingSplit, match="'b' and 0 other groups"):
        check_split("t", Split(np.array([0, 1]), np.array([2])), ["a", "b", "b"])
    with pytest.raises(OneClass):
        check_classes("t", np.array(["a", "a"]))
    for bad in (0, 1, -0.2):
        with pytest.raises(InputError):
            task(*EIGHT).split(test_share=bad)
    with pytest.raises(InputError):
        task(*EIGHT).limited(1)
