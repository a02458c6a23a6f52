"""Tasks for learning in context: inputs, their labels, and how both are written down.

A task is data: items (an input and its label), the space of labels that an answer is chosen
from, a template, and instructions that say in words what the labels should be. The lab's own
are in `labkit.icl.tasks.own`; published lists are read by `labkit.icl.tasks.readers`.

Where the label space is small and the same for all (sentiment: two words), a task is one of
classification; where nearly every input has a label of its own (capital), the label space is
all labels that occur, and chance is close to zero.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from labkit.errors import EmptySplit, EmptyTarget, InputError, PoolTooSmall
from labkit.facts.fact import Fact
from labkit.stats import numpy_generator

CLOSED = 16
"""Labels that a label space has at most where all of each label is scored by default."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a demonstration is written, and what separates two.

    Attributes:
        demonstration: With one `{input}` and, at its end, one `{label}`; white space stands
            before the label. A query is the same up to there.
        separator: Between demonstrations, and before the query.
        instruction: Text before all demonstrations, followed by a separator; none if empty.

    Raises:
        InputError: If the demonstration is not of that form.
    """

    demonstration: str = "Q: {input}\nA: {label}"
    separator: str = "\n\n"
    instruction: str = ""

    def __post_init__(self) -> None:
        """Refuse a template from which no query can be made."""
        text = self.demonstration
        counts = (text.count("{input}"), text.count("{label}"))
        if counts != (1, 1) or not text.endswith("{label}") or not self.gap:
            raise InputError(
                f"the template {text!r} needs one {{input}}, then white space and one {{label}} "
                "at its end"
            )

    @property
    def gap(self) -> str:
        """The white space between a query and its label."""
        before = self.demonstration.removesuffix("{label}")
        return before[len(before.rstrip()) :]

    @property
    def query(self) -> str:
        """A query: the demonstration up to the white space before the label."""
        return self.demonstration.removesuffix("{label}").rstrip()


@dataclass(frozen=True, kw_only=True)
class Item:
    """An input and its label.

    Raises:
        EmptyTarget: If the label has no text.
        InputError: If the input has no text.
    """

    input: str
    label: str

    def __post_init__(self) -> None:
        """Refuse an empty input or label."""
        if not self.label.strip():
            raise EmptyTarget(f"the label of {self.input!r} is empty: name what should follow")
        if not self.input.strip():
            raise InputError(f"an item labelled {self.label!r} has an empty input")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Items with labels out of one space.

    Attributes:
        name: Its name, such as "capital".
        items: Inputs with their labels, no input twice.
        source: Where they come from, in words.
        template: How they are written.
        labels: The label space; by default every label of an item, in order of appearance.
        instructions: Ways to say in words what is to be done. They are shown only where a
            template says so (`instructed`).

    Raises:
        EmptySplit: If there is no item.
        InputError: If an input is there twice, a label of an item is outside the space, the
            space has fewer than two labels, or an instruction has no text.
    """

    name: str
    items: tuple[Item, ...]
    source: str
    template: Template = field(default_factory=Template)
    labels: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Work out the label space; refuse what cannot be asked."""
        if not self.items:
            raise EmptySplit(f"the task {self.name!r} ({self.source}) has no items")
        own = dict.fromkeys(item.label for item in self.items)
        if not self.labels:
            object.__setattr__(self, "labels", tuple(own))
        outside = [label for label in own if label not in set(self.labels)]
        if outside:
            raise InputError(f"{self.name!r} has labels outside its label space: {outside[:3]}")
        if len(set(self.labels)) < max(2, len(self.labels)):
            raise InputError(
                f"the label space of {self.name!r} needs at least two labels, each once, not "
                f"{list(self.labels)[:5]}"
            )
        (twice, times), *_ = Counter(item.input for item in self.items).most_common(1)
        if times > 1:
            raise InputError(f"{self.name!r} has the input {twice!r} {times} times")
        if not all(instruction.strip() for instruction in self.instructions):
            raise InputError(f"{self.name!r} has an instruction without text")

    def __len__(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def closed(self) -> bool:
        """Whether the label space is small: a task of classification."""
        return len(self.labels) <= CLOSED

    def queries_and_pool(
        self, n_queries: int, n_shots: int, *, seed: int
    ) -> tuple[list[Item], list[Item]]:
        """Items to ask about, and those that demonstrations are drawn from, in a drawn order.

        Args:
            n_queries: How many queries, at most.
            n_shots: How many demonstrations the pool has to hold.
            seed: Seed of the order.

        Raises:
            PoolTooSmall: If the task has no item to spare for a query.
        """
        spare = len(self) - n_shots
        if spare < 1:
            raise PoolTooSmall(
                f"{n_shots} demonstrations and a query of {self.name!r}, which has {len(self)} "
                "items: ask for fewer"
            )
        order = numpy_generator(seed, "icl", self.name, "queries").permutation(len(self))
        items = [self.items[number] for number in order]
        return items[: min(n_queries, spare)], items[min(n_queries, spare) :]

    def keeping(self, labels: Sequence[str]) -> "Task":
        """The task with some of its labels, and the items that have them.

        Raises:
            EmptySplit: If no item has one of these labels.
        """
        kept = set(labels)
        return replace(
            self,
            items=tuple(item for item in self.items if item.label in kept),
            labels=tuple(label for label in self.labels if label in kept),
        )

    def instructed(self, instruction: str) -> "Task":
        """The task with an instruction in front of every prompt."""
        return replace(self, template=replace(self.template, instruction=instruction))


def pairs_task(
    name: str, facts: Sequence[Fact], *, source: str, template: Template | None = None
) -> Task:
    """A task whose inputs are the subjects of facts, and whose labels are their objects.

    Of a subject with several objects only the first counts.

    Args:
        name: The task's name.
        facts: Facts of one relation.
        source: Where they come from.
        template: By default "Q: ...", "A: ...".

    Raises:
        EmptySplit: If no fact has an object.
    """
    labels: dict[str, str] = {}
    for fact in facts:
        if fact.object is not None:
            labels.setdefault(fact.subject, fact.object)
    items = tuple(Item(input=subject, label=label) for subject, label in labels.items())
    return Task(name=name, items=items, source=source, template=template or Template())
