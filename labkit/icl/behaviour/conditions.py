"""Changes to demonstrations that show which of their properties help.

    gold            inputs with their own labels
    random          labels drawn from the label space at random
    permuted        the same labels in another order: label frequencies are kept exactly
    flipped         every label replaced by another, always the same one
    correct-75      three quarters of the labels right, the others wrong (any percentage)
    out-of-space    words that are no labels, drawn at random, as many as there are labels
    foreign         inputs replaced by as many words of unrelated text, labels kept
    no-format       inputs and labels without the words of the template
    labels-only     labels alone
    inputs-only     inputs alone

The query keeps its template throughout, and is scored over the true label space. Between
conditions of the same draw the demonstrations are about the same items in the same order.

References:
    Min et al. (2022), Rethinking the Role of Demonstrations, sections 4 and 5: gold, random,
    out-of-space, foreign, labels-only, inputs-only. Yoo et al. (2022), Ground-Truth Labels Matter,
    section 3: correct-NN. Wei et al. (2023), Larger Language Models Do In-Context Learning
    Differently, section 3: flipped.

Differs from the paper:
    Min et al. pair foreign inputs with random labels; here they keep the labels of the items
    that they stand for, which are just as unrelated to them and have the task's own
    frequencies. `no-format` keeps the pairing, which their format ablations drop.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.errors import InputError
from labkit.icl.tasks.items import Item, Task
from labkit.icl.tasks.prompts import Shot
from labkit.models.model import LabModel
from labkit.text.corpus import held_out

Draw = np.random.Generator

CONDITIONS = {
    "gold": "own labels",
    "random": "random labels",
    "permuted": "permuted labels",
    "flipped": "flipped labels",
    "out-of-space": "words that are no labels",
    "foreign": "unrelated inputs",
    "no-format": "no format",
    "labels-only": "labels only",
    "inputs-only": "inputs only",
}
"""Names of the conditions, and what each is called in a figure."""

SHOWN = {
    "no-format": "{input} {label}",
    "labels-only": "{label}",
    "inputs-only": "{input}",
}
"""How demonstrations are written where that is what a condition changes."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Text that has nothing to do with a task: where foreign inputs and words come from.

    Attributes:
        words: Running text, word by word.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, model: LabModel) -> "Surroundings":
        """Plain prose; for the pocket model sentences of its own world."""
        return cls(words=tuple(" ".join(held_out(model)).split()))

    def stretch(self, n_words: int, draw: Draw) -> str:
        """So many words in a row, from a drawn place on."""
        n_words = min(n_words, len(self.words))
        start = int(draw.integers(len(self.words) - n_words + 1))
        return " ".join(self.words[start : start + n_words]).strip(".,;:!?")

    def strangers(self, task: Task, draw: Draw) -> list[str]:
        """As many different words as the task has labels (or as there are), none of them one."""
        own = {word.lower() for label in task.labels for word in label.split()}
        plain = (word.strip(".,;:!?\"'()") for word in self.words)
        found = sorted({word for word in plain if re.fullmatch(r"[^\W\d_]{3,}", word)})
        found = [word for word in found if word.lower() not in own]
        chosen = draw.permutation(len(found))[: len(task.labels)]
        return [found[number] for number in chosen]


def require_conditions(names: Sequence[str]) -> None:
    """Raise unless all are conditions, each once.

    Raises:
        InputError: With the name of the first that is not one.
    """
    for name in names:
        if name not in CONDITIONS and _share(name) is None:
            known = ", ".join((*CONDITIONS, "correct-NN (a percentage)"))
            raise InputError(f"no condition {name!r}; there are {known}")
    if not names or len(set(names)) < len(names):
        raise InputError(f"conditions, each once and at least one, not {list(names)}")


def words_of(condition: str) -> str:
    """The label of a condition in a figure, its own name by default."""
    share = _share(condition)
    return CONDITIONS.get(condition, condition) if share is None else f"{share:.0%} own labels"


def shots_of(
    condition: str,
    task: Task,
    items: Sequence[Item],
    k: int,
    *,
    surroundings: Surroundings,
    draw: Callable[..., Draw],
) -> tuple[Shot, ...]:
    """The first `k` of some items as demonstrations, under a condition.

    For a smaller `k` the demonstrations are the beginning of those for a larger one, except
    where a condition is about all of them (permuted, correct-NN).

    Args:
        condition: Its name.
        task: The task.
        items: The items, in order; at least `k`.
        k: Number of demonstrations.
        surroundings: Where foreign inputs and words come from.
        draw: Gives the generator for some content; the same for the same content.

    Raises:
        InputError: If there is no such condition.
    """
    require_conditions([condition])
    chosen = items[:k]
    inputs, labels = [item.input for item in chosen], [item.label for item in chosen]
    share = _share(condition)
    if share is not None:
        wrong = draw("places", k).permutation(k)[round(share * k) :]
        others = _wrong(task, items, draw("wrong"))
        for place in wrong:
            labels[place] = others[place]
    elif condition == "random":
        numbers = draw("labels").integers(len(task.labels), size=len(items))
        labels = [task.labels[number] for number in numbers[:k]]
    elif condition == "permuted":
        labels = [labels[place] for place in draw("order", k).permutation(k)]
    elif condition == "flipped":
        flip = flipped(task, draw("cycle"))
        labels = [flip[label] for label in labels]
    elif condition == "out-of-space":
        words = surroundings.strangers(task, draw("words"))
        if not words:
            raise InputError(f"there is no word that is no label of {task.name!r}")
        numbers = draw("labels").integers(len(words), size=len(items))
        labels = [words[number] for number in numbers[:k]]
    elif condition == "foreign":
        place = draw("text")
        inputs = [surroundings.stretch(len(text.split()), place) for text in inputs]
    return tuple(Shot(input=a, label=b) for a, b in zip(inputs, labels, strict=True))


def flipped(task: Task, draw: Draw) -> dict[str, str]:
    """Every label of the space with another in its place: one cycle through all of them."""
    order = [task.labels[number] for number in draw.permutation(len(task.labels))]
    return dict(zip(order, (*order[1:], order[0]), strict=True))


def _wrong(task: Task, items: Sequence[Item], draw: Draw) -> list[str]:
    """For each item a label of the space that is not its own, at random."""
    steps = draw.integers(1, len(task.labels), size=len(items))
    places = {label: place for place, label in enumerate(task.labels)}
    return [
        task.labels[(places[item.label] + int(step)) % len(task.labels)]
        for item, step in zip(items, steps, strict=True)
    ]


def _share(condition: str) -> float | None:
    """The share of right labels of `correct-NN`; None for any other name."""
    match = re.fullmatch(r"correct-(\d{1,3})", condition)
    return int(match[1]) / 100 if match and int(match[1]) <= 100 else None
