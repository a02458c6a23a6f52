"""Worlds: what a model can be asked about, chosen once and kept with the model.

Most models have read English text about the real world; the pocket model knows an invented one.
Whatever needs facts, running text, openings or a case for the demo asks the model's world:

    world_of(model).facts
    load("my-model", world=World(name="games", facts=my_facts))    # a world of your own
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.bundled import bundled_facts, bundled_relations
from labkit.facts.cases import demo_case
from labkit.facts.chains import Chains, names_of_subjects, wordings_of
from labkit.facts.fact import Case, Fact, Relation, fill

if TYPE_CHECKING:
    from labkit.models.model import LabModel

OPENINGS = (
    "On the first day of spring,",
    "The old man opened the letter and",
    "There are three things to remember when cooking rice:",
    "When I was a child, my family",
    "The company announced on Monday that",
    "To learn a new language, you should",
    "Once upon a time there was",
    "The results of the study show that",
    "Dear Sir or Madam,",
    "The best way to spend a rainy afternoon is",
    "In the middle of the night,",
    "Our teacher always told us that",
)
"""Openings of free text that are about nothing in particular. Written for the lab."""


def _prose() -> tuple[str, ...]:
    """A few paragraphs of plain prose, written for this project."""
    text = resources.files("labkit.data").joinpath("held_out.txt").read_text(encoding="utf-8")
    return tuple(paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip())


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """What the models of one kind of text can be asked about. Only the facts have no default.

    Attributes:
        name: What it is called; its rows in `labkit/data/steps.jsonl` carry this name.
        facts: What is true there.
        relations: The relations of these facts.
        subject_names: Other names of subjects, by the subject's type and its name.
        case: The rewrite that the demo makes, with the prompts that judge it.
        sentences: The text that its models were trained on, sentence by sentence, where it is
            known; None where statistics rest on text that a model writes itself.
        held_out: Text for perplexity that no training of the lab has seen.
        openings: Openings of free text.
        reads_english: Whether its models read English at large: tasks, minimal pairs and
            instructions in English are for these only.
    """

    name: str
    facts: tuple[Fact, ...]
    relations: tuple[Relation, ...] = ()
    subject_names: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    case: Case | None = None
    sentences: tuple[str, ...] | None = None
    held_out: tuple[str, ...] = field(default_factory=_prose)
    openings: tuple[str, ...] = OPENINGS
    reads_english: bool = True

    def __repr__(self) -> str:
        """Name and size; the facts themselves are many pages."""
        return f"World({self.name!r}, {len(self.facts)} facts)"

    @cached_property
    def chains(self) -> Chains:
        """Its facts in chains, asked in its own words."""
        return Chains(
            relations={relation.id: relation for relation in self.relations},
            facts=self.facts,
            wordings=wordings_of(self.name),
            names=self.subject_names,
        )


@cache
def real_world() -> World:
    """The bundled facts, for every model that has read English text."""
    return World(
        name="real",
        facts=tuple(bundled_facts()),
        relations=tuple(bundled_relations().values()),
        subject_names=names_of_subjects(),
        case=demo_case(),
    )


@checked
def world_of(model: "LabModel") -> World:
    """The world that a model was opened with.

    Raises:
        InputError: If it is no opened model.
    """
    return real_world() if model.world is None else model.world


@checked
def facts_of(model: "LabModel") -> list[Fact]:
    """The facts that a model can be asked about."""
    return list(world_of(model).facts)


def another_subject(model: "LabModel", fact: Fact) -> str | None:
    """What is odd about a subject, in one line: the prompt is a known fact's about another.

    None where no fact of the model's world is asked for in these words, or it has this subject.
    """
    asked = [
        known
        for known in world_of(model).facts
        if known.subject in fact.prompt and fact.prompt in _wordings(known)
    ]
    if not asked or any(known.subject == fact.subject for known in asked):
        return None
    return (
        f"the prompt is known as a fact about {asked[0].subject!r}; what is taken for its subject "
        f"here is {fact.subject!r}"
    )


def _wordings(fact: Fact) -> list[str]:
    """The prompts of a fact, in all its words."""
    return [fill(template, fact.subject) for template in (fact.template, *fact.paraphrases)]


@checked
def chains_of(model: "LabModel") -> Chains:
    """The chains of facts of a model's world."""
    return world_of(model).chains


@checked
def demo_case_of(model: "LabModel") -> Case:
    """The demo's case in a model's world: the Eiffel Tower moves to Rome in the real one.

    Whether the model knows the fact is up to the caller to check: the case does not depend on it.

    Raises:
        InputError: If the world has no such case.
    """
    case = world_of(model).case
    if case is None:
        raise InputError(
            f"the world {world_of(model).name!r} has no case for the demo: give it one, "
            "World(..., case=make_case(fact, facts))"
        )
    return case
