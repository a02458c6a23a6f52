"""A probing task: words in texts, each with a label that its state may reveal.

A task is data and nothing else. Where it comes from (a treebank, the project's own language, a
fact collection) is a reader's business; which states are read, and by which probe, is not its
own either. It knows what must not stand on both sides of a split, and refuses one that leaks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from labkit.errors import ClassTooSmall, EmptySplit, InputError, LeakingSplit, OneClass
from labkit.stats import numpy_generator

Family = Literal["surface", "lexical", "syntactic", "semantic", "factual"]
"""What kind of knowledge a task asks for, as in claims C1 and C2."""

Label = str | float
"""A class, or a number."""

LEAST = 2
"""Examples that every class has on the training side at least."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A word in a text, and what is asked about it.

    Attributes:
        text: Number of its text in the task.
        span: Its characters there, start and end.
        label: The answer: a class, or a number.
        group: What must not be split: its sentence, or its subject.
        item: Its type, such as the word form: a control task gives one random label to each.
        less: Another word, text and span, whose state is taken off this one's: what is then
            read is what tells the two apart.
    """

    text: int
    span: tuple[int, int]
    label: Label
    group: str
    item: str
    less: tuple[int, tuple[int, int]] | None = None

    @property
    def words(self) -> list[tuple[int, int, int]]:
        """The words that are read, one or two: text, first character, character after."""
        own = (self.text, *self.span)
        return [own] if self.less is None else [own, (self.less[0], *self.less[1])]


@dataclass(frozen=True)
class Split:
    """Numbers of the examples on either side.

    Attributes:
        train: What a probe is fitted to.
        test: What it is scored on.
    """

    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question about words in texts.

    Attributes:
        name: Its name, such as "upos".
        family: What kind of knowledge it asks for.
        texts: The texts.
        examples: The words that are asked about.
        source: Where the data comes from, in words.
        numeric: Whether labels are numbers; they are classes otherwise.
        held_out: Numbers of the examples that the source sets aside for testing; by default
            a share of the groups is drawn.

    Raises:
        EmptySplit: If there is no example, or none on one side.
        OneClass: If all labels are alike.
        InputError: If an example's text or characters do not exist, a label is of the other
            kind, or states are taken off those of some examples and not of others.
        LeakingSplit: If `held_out` splits a group.
    """

    name: str
    family: Family
    texts: tuple[str, ...]
    examples: tuple[Example, ...]
    source: str
    numeric: bool = False
    held_out: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a task that cannot be learned."""
        if not self.examples:
            raise EmptySplit(f"the task {self.name!r} ({self.source}) has no examples")
        for number, example in enumerate(self.examples):
            for text, start, stop in example.words:
                if not 0 <= text < len(self.texts):
                    raise InputError(
                        f"example {number} of {self.name!r} stands in text {text}, of "
                        f"{len(self.texts)}"
                    )
                if not 0 <= start < stop <= len(self.texts[text]):
                    raise InputError(
                        f"example {number} of {self.name!r} is at characters {start} to {stop} "
                        f"of a text of {len(self.texts[text])}"
                    )
            if isinstance(example.label, str) == self.numeric:
                kind = "numbers" if self.numeric else "classes"
                raise InputError(
                    f"example {number} of {self.name!r} is labelled {example.label!r}: the "
                    f"task's labels are {kind}"
                )
        if len({example.less is None for example in self.examples}) > 1:
            raise InputError(
                f"{self.name!r} reads differences of states for some words and states for others: "
                "choose one"
            )
        if len(set(self.labels.tolist())) < 2:
            raise OneClass(
                f"every example of {self.name!r} is labelled {self.examples[0].label!r}: at least "
                "two labels are needed"
            )
        if self.held_out is not None:
            outside = [number for number in self.held_out if number not in range(len(self))]
            if outside:
                raise InputError(f"{self.name!r} holds out examples {outside[:3]}, of {len(self)}")
            self._checked(np.asarray(sorted(set(self.held_out)), dtype=int))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    @property
    def of_differences(self) -> bool:
        """Whether differences of states are read, and not states."""
        return self.examples[0].less is not None

    @property
    def labels(self) -> np.ndarray:
        """The label of every example: strings, or float64."""
        labels = [example.label for example in self.examples]
        return np.asarray(labels, dtype=float) if self.numeric else np.asarray(labels)

    @property
    def groups(self) -> np.ndarray:
        """The group of every example."""
        return np.asarray([example.group for example in self.examples])

    @property
    def items(self) -> np.ndarray:
        """The type of every example."""
        return np.asarray([example.item for example in self.examples])

    def split(self, *, test_share: float = 0.3, seed: int = 0) -> Split:
        """The two sides: the source's own, or a draw of whole groups.

        Args:
            test_share: Share of the groups that is drawn for testing, above 0 and below 1.
            seed: Seed of the draw.

        Raises:
            InputError: If `test_share` is out of range.
            EmptySplit: If a side is empty.
            ClassTooSmall: If a class has fewer than two examples on the training side.
        """
        if self.held_out is not None:
            return self._checked(np.asarray(sorted(set(self.held_out)), dtype=int))
        if not 0 < test_share < 1:
            raise InputError(f"a test share of {test_share}: choose one above 0 and below 1")
        groups = self.groups
        names = sorted(set(groups.tolist()))
        order = numpy_generator(seed, "split", self.name, len(names)).permutation(len(names))
        n_test = min(max(1, round(test_share * len(names))), len(names) - 1)
        chosen = {names[number] for number in order[:n_test]}
        return self._checked(np.flatnonzero([group in chosen for group in groups]))

    def limited(self, n: int, *, seed: int = 0) -> "Task":
        """At most `n` examples on either side, drawn group by group; texts stay as they are.

        Args:
            n: Examples of a side at most (a group is kept whole unless it alone has more).
            seed: Seed of the draw.

        Raises:
            InputError: If `n` is below 2.
        """
        if n < 2:
            raise InputError(f"{n} examples are too few for a probe")
        sides = self.split(seed=seed)
        kept = [self.drawn(side, n, seed=seed) for side in (sides.train, sides.test)]
        chosen = np.sort(np.concatenate(kept))
        test = set(kept[1].tolist())
        return Task(
            name=self.name,
            family=self.family,
            texts=self.texts,
            examples=tuple(self.examples[number] for number in chosen),
            source=self.source,
            numeric=self.numeric,
            held_out=tuple(place for place, number in enumerate(chosen) if number in test),
        )

    def drawn(self, side: np.ndarray, n: int, *, seed: int = 0) -> np.ndarray:
        """At most `n` examples of a side, groups in a random order, the last one cut short."""
        by_group: dict[str, list[int]] = {}
        for number in side.tolist():
            by_group.setdefault(self.examples[number].group, []).append(number)
        names = sorted(by_group)
        order = numpy_generator(seed, "limited", self.name, len(names)).permutation(len(names))
        kept: list[int] = []
        for place in order:
            kept += by_group[names[place]]
            if len(kept) >= n:
                break
        return np.asarray(kept[:n], dtype=int)

    def _checked(self, test: np.ndarray) -> Split:
        """A split with these on the test side, if it is one that a probe can be trusted on."""
        train = np.setdiff1d(np.arange(len(self)), test)
        split = Split(train, test)
        check_split(self.name, split, self.groups)
        if not self.numeric:
            check_classes(self.name, self.labels[train])
        return split


def check_split(name: str, split: Split, groups: Sequence[str] | np.ndarray) -> None:
    """Refuse a split with an empty side, or with a group on both sides.

    Args:
        name: What the split is of, for the error.
        split: The split.
        groups: The group of every example.

    Raises:
        EmptySplit, LeakingSplit: If so.
    """
    for side, numbers in (("training", split.train), ("test", split.test)):
        if not len(numbers):
            raise EmptySplit(f"the {side} side of {name!r} has no examples")
    groups = np.asarray(groups)
    both = set(groups[split.train].tolist()) & set(groups[split.test].tolist())
    if both:
        raise LeakingSplit(
            f"{sorted(both)[0]!r} and {len(both) - 1} other groups of {name!r} stand on both "
            "sides of the split: split by group"
        )


def check_classes(name: str, labels: np.ndarray) -> None:
    """Refuse labels of one class, or with a class that is hardly there.

    Args:
        name: What the labels are of, for the error.
        labels: Those of the training side.

    Raises:
        OneClass, ClassTooSmall: If so.
    """
    counts = Counter(labels.tolist())
    if len(counts) < 2:
        raise OneClass(f"the training side of {name!r} has one class only: {next(iter(counts))!r}")
    rare, n = min(counts.items(), key=lambda pair: pair[1])
    if n < LEAST:
        raise ClassTooSmall(
            f"class {rare!r} of {name!r} has {n} example on the training side, {LEAST} are "
            "needed: leave it out, or merge it with another"
        )
