"""The controls with which a probe's score has to be compared.

A probe that is right 90 times in 100 may have read that off the state, worked it out from the
word's form, memorised it, or said the commonest class. Each of these has its control:

    majority    the commonest class (the mean) of the training side, whatever the state
    form        the commonest class (the mean) of the same word in training; the majority for others
    bag         a probe on the words of the text up to and including the one that is asked about,
                less those of the other text where a difference of states is read
    control     the probe trained on random labels, one per word type: what it can memorise
    shuffled    the probe trained on permuted labels: at chance, or something leaks (it is one
                permutation: where one direction dominates the states, its score scatters around
                chance by more than its interval over groups)
    twin        the probe on a model of the same shape with random weights: what the
                architecture and the words alone give away

`selectivity` is the score less that on the control task (Hewitt and Liang 2019, section 2.2):
high where the probe reads, low where it memorises.

References:
    Hewitt and Liang (2019), Designing and Interpreting Probes with Control Tasks, sections 2
    and 3. Conneau et al. (2018), What you can cram into a single vector (random-weight models).

Differs from the paper:
    Score and control score are both over the test examples whose word type occurs in training:
    on others a control task has no answer that could be learned. Where fewer than
    `RECURRING` do, as always when a split by subject is a split by item, there is no
    selectivity, and the reason is given in its place. The paper scores both over all test
    examples: there the control cannot be right on new types, and the same probe is called more
    selective (.284 by that rule, .043 by this one, on a task of SmolLM2-135M).
"""

from collections import Counter
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from labkit.models.twins import random_twin as random_twin
from labkit.stats import numpy_generator
from probes.tasks.task import Split, Task

RECURRING = 20
"""Test examples with a word type of the training side that selectivity needs at least."""

BAG_STRENGTH = 1.0
"""C of the probe on words, 1 / alpha for numbers."""


def majority(task: Task, split: Split) -> np.ndarray:
    """The commonest class of the training side, or its mean, for every test example."""
    return np.full(len(split.test), _typical(task.labels[split.train], task.numeric))


def form(task: Task, split: Split) -> np.ndarray:
    """What the same word mostly is in training, for every test example; the majority for others."""
    by_item: dict[str, list[Any]] = {}
    labels, items = task.labels, task.items
    for number in split.train:
        by_item.setdefault(items[number], []).append(labels[number])
    usual = _typical(labels[split.train], task.numeric)
    of_item = {item: _typical(np.asarray(seen), task.numeric) for item, seen in by_item.items()}
    return np.asarray([of_item.get(items[number], usual) for number in split.test])


def bag(task: Task, split: Split, *, seed: int = 0) -> np.ndarray | None:
    """What the words up to the one asked about say without their order.

    Returns:
        One answer per test example; None for tasks that ask about several words of a text, where
        the words that stand beside a word say little about it, and for texts without words.
    """
    if len({example.text for example in task.examples}) < len(task):
        return None
    read = [task.texts[text][:stop] for example in task.examples for text, _, stop in example.words]
    each = 2 if task.of_differences else 1
    try:
        counts = CountVectorizer(binary=True, token_pattern=r"\w+").fit(
            [read[each * number + which] for number in split.train for which in range(each)]
        )
    except ValueError:  # scikit-learn's word for an empty vocabulary
        return None
    words = counts.transform(read)
    if task.of_differences:
        words = words.astype(float)[::2] - words.astype(float)[1::2]
    head = (
        Ridge(alpha=1 / BAG_STRENGTH, random_state=seed)
        if task.numeric
        else LogisticRegression(C=BAG_STRENGTH, tol=1e-3, random_state=seed)
    )
    return head.fit(words[split.train], task.labels[split.train]).predict(words[split.test])


def baselines(task: Task, split: Split, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Answers to the test side without using any state, by name."""
    answers = {"majority": majority(task, split), "form": form(task, split)}
    of_words = bag(task, split, seed=seed)
    return answers if of_words is None else {**answers, "bag": of_words}


def control_labels(task: Task, split: Split, *, seed: int = 0) -> np.ndarray:
    """A random label for each word type, drawn from the labels of the training side.

    All examples of a type get the same one, on both sides of the split.
    """
    pool = np.sort(task.labels[split.train])
    names = sorted(set(task.items.tolist()))
    drawn = {
        name: pool[numpy_generator(seed, "control task", task.name, name).integers(len(pool))]
        for name in names
    }
    return np.asarray([drawn[item] for item in task.items])


def shuffled_labels(task: Task, split: Split, *, seed: int = 0) -> np.ndarray:
    """The labels of the training side in a random order."""
    draw = numpy_generator(seed, "shuffled labels", task.name, len(split.train))
    return task.labels[split.train][draw.permutation(len(split.train))]


def recurring(task: Task, split: Split) -> np.ndarray:
    """Whether the word type of each test example occurs in training."""
    items = task.items
    seen = set(items[split.train].tolist())
    return np.asarray([item in seen for item in items[split.test].tolist()])


def no_selectivity(task: Task, split: Split) -> str | None:
    """Why a task has no selectivity, in words; None if it has."""
    n = int(recurring(task, split).sum())
    if n < RECURRING:
        return (
            f"{n} of {len(split.test)} test examples have a word type that occurs in training "
            f"({RECURRING} are needed): a control task has nothing there to memorise"
        )
    return None


def _typical(labels: np.ndarray, numeric: bool) -> Any:
    """The mean of numbers; of classes the commonest, the first by name among several."""
    if numeric:
        return float(labels.mean())
    counts = Counter(labels.tolist())
    return min(counts, key=lambda label: (-counts[label], label))
