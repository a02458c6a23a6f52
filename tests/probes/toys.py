"""Tasks and states made by hand, with answers that are planted or not there."""

import numpy as np

from probes.states.features import Features
from probes.tasks.task import Example, Task

WIDTH = 12
N_GROUPS, A_GROUP = 60, 5


def task(labels, items, *, numeric=False, groups=None, held_out=None, name="toy"):
    """A task of words of two letters, five per text, each text a group."""
    n = len(labels)
    n_texts = -(-n // A_GROUP)
    groups = [f"text {i // A_GROUP}" for i in range(n)] if groups is None else groups
    examples = tuple(
        Example(
            text=i // A_GROUP,
            span=(3 * (i % A_GROUP), 3 * (i % A_GROUP) + 2),
            label=float(labels[i]) if numeric else str(labels[i]),
            group=groups[i],
            item=str(items[i]),
        )
        for i in range(n)
    )
    texts = tuple("ab cd ef gh ij" for _ in range(n_texts))
    return Task(
        name=name,
        family="lexical",
        texts=texts,
        examples=examples,
        source="the test suite",
        numeric=numeric,
        held_out=held_out,
    )


def features(*states, fingerprint="toy"):
    """Features of one depth for each array."""
    values = np.stack([np.asarray(one, dtype=np.float32) for one in states])
    return Features("resid", tuple(range(len(states))), values, fingerprint, "toys")


def planted(seed=0, n=N_GROUPS * A_GROUP, classes=3, width=WIDTH, strength=2.0):
    """Labels that say nothing of the items, and states that hold the labels at depth 1 only."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=n)
    items = draw.integers(60, size=n)
    means = strength * draw.normal(size=(classes, width))
    noise = draw.normal(size=(3, n, width))
    states = noise.copy()
    states[1] += means[labels]
    states[2] += 0.4 * means[labels]
    return task(labels, items), features(*states)
