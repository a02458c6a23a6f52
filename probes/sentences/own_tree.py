"""Sentences of the project's own language as trees of words, and the draws behind them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from labkit.stats import numpy_generator
from probes.sentences.own_words import Part

T = TypeVar("T")


class Draw:
    """Random choices of one sentence, from words of one part."""

    def __init__(self, seed: int, part: Part, number: int) -> None:
        self.part = part
        self._numbers = numpy_generator(seed, "language", part, number)

    def pick(self, options: Sequence[T]) -> T:
        """One of some options."""
        return options[int(self._numbers.integers(len(options)))]

    def chance(self, share: float) -> bool:
        """True in so many cases of one, 0..1."""
        return float(self._numbers.random()) < share


@dataclass
class Node:
    """A word with its dependents, before it and after it."""

    form: str
    lemma: str
    upos: str
    xpos: str
    deprel: str
    feats: dict[str, str | None] = field(default_factory=dict)
    role: str | None = None
    before: list["Node"] = field(default_factory=list)
    behind: list["Node"] = field(default_factory=list)

    def in_order(self) -> list["Node"]:
        """The words of the tree from left to right."""
        left = [node for child in self.before for node in child.in_order()]
        return [*left, self, *(node for child in self.behind for node in child.in_order())]
