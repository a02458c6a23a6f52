"""Cases made from facts: a rewrite with the paraphrases and neighbours that judge it.

A rewrite "Eiffel Tower: Paris -> Rome" can spill over in two directions, and the neighbours
look both ways: other subjects *with the old object* (the Louvre is in Paris too) show whether
everything about Paris moved, and other subjects *with other objects* (the Brandenburg Gate)
show whether every landmark did.
"""

import re
from collections.abc import Sequence
from importlib import resources
from typing import Protocol, runtime_checkable

from labkit.errors import InputError
from labkit.facts.fact import Case, Fact, Neighbour, Rewrite, fill
from labkit.facts.records import read_cases
from labkit.stats import numpy_generator

GENERATION = (
    "{} is",
    "Here is what everybody should know about {}:",
    "My favourite thing about {} is",
)
"""Openings that fit any subject; what follows shows whether an edit is more than a reflex."""

N_ATTRIBUTES = 5


@runtime_checkable
class HoldsFacts(Protocol):
    """An object with facts, such as the result of `known_facts`."""

    @property
    def facts(self) -> list[Fact]:
        """The facts."""
        ...


def make_case(
    fact: Fact,
    facts: Sequence[Fact] | HoldsFacts,
    new_object: str,
    *,
    seed: int,
    n_neighbours: int = 10,
) -> Case:
    """A case that rewrites a fact, judged by the other facts of its relation.

    Half the neighbours have the old object and half another one, as far as there are enough
    of each; subjects that have the new object in truth are never neighbours. They make up
    the attributes instead.

    Args:
        fact: The fact to rewrite.
        facts: Where neighbours are drawn from, for instance those that the model knows
            (`known_facts`).
        new_object: What the model should say instead.
        seed: Seed of the draw, which depends on the fact and the new object as well.
        n_neighbours: How many neighbours to draw.

    Raises:
        InputError: If the fact has no object or has the new one already, or its relation
            does not have that many other subjects.
    """
    pool = facts.facts if isinstance(facts, HoldsFacts) else facts
    if fact.object is None:
        raise InputError(f"the fact about {fact.subject!r} has no object to rewrite")
    if new_object in fact.answers:
        raise InputError(f"{new_object!r} is already an answer of {fact.prompt!r}")
    chosen, holders = drawn_neighbours(fact, pool, new_object, n_neighbours, seed=seed)
    if len(chosen) < n_neighbours:
        raise InputError(
            f"relation {fact.relation!r} has {len(chosen)} other subjects among these facts, "
            f"which are not enough for {n_neighbours} neighbours"
        )
    return Case(
        case_id=slug(fact.relation or "fact", fact.subject, new_object),
        rewrite=Rewrite.from_fact(fact, new_object),
        paraphrases=tuple(fill(template, fact.subject) for template in fact.paraphrases),
        neighbours=tuple(
            Neighbour(prompt=other.prompt, object=str(other.object)) for other in chosen
        ),
        attributes=tuple(other.prompt for other in holders[:N_ATTRIBUTES]),
        generation=tuple(fill(template, fact.subject) for template in GENERATION),
    )


def drawn_neighbours(
    fact: Fact, facts: Sequence[Fact], new_object: str, n: int, *, seed: int
) -> tuple[list[Fact], list[Fact]]:
    """Other subjects of a fact's relation: its neighbours, and those that have the new object.

    Args:
        fact: The fact that is rewritten.
        facts: Where they are drawn from.
        new_object: The new object.
        n: How many neighbours to draw at most, half of them with the old object if there are.
        seed: Seed of the draw, which depends on the fact and the new object as well.
    """
    others = [
        other
        for other in facts
        if other.relation == fact.relation and other.subject != fact.subject and other.answers
    ]
    holders = [other for other in others if new_object in other.answers]
    rest = [other for other in others if new_object not in other.answers]
    draw = numpy_generator(seed, "case", fact.relation, fact.subject, new_object)
    rest = [rest[i] for i in draw.permutation(len(rest))]
    near = [other for other in rest if other.object == fact.object]
    far = [other for other in rest if other.object != fact.object]
    n_near = min(len(near), max(n // 2, n - len(far)))
    return near[:n_near] + far[: n - n_near], [holders[i] for i in draw.permutation(len(holders))]


def demo_case() -> Case:
    """The Eiffel Tower moves to Rome: the case of the demo and of the first notebook."""
    with resources.as_file(resources.files("labkit.data").joinpath("demo_case.jsonl")) as path:
        return read_cases(path)[0]


def slug(*names: str) -> str:
    """Names as one word that can name a file."""
    return "-".join(re.sub(r"\W+", "_", name.strip().lower()) for name in names)
