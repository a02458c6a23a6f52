"""Facts in chains: what follows for a subject from a new object, and how to ask for it.

The project's facts chain wherever the object of one is the subject of another: the Eiffel
Tower's city has a country, the country a language. `labkit/data/steps.jsonl` holds, for each
relation, the words that a chain is asked with (a noun phrase for the object, "the city where
the {} is located", into which the next question is put), and those that ask for the reverse
and for the negation. Other names of subjects are in `labkit/data/aliases.jsonl`. All written
by hand.

    chains = chains_of(model)                      # labkit.facts.worlds: of the model's world
    for path in chains.onward("landmark_city", "Eiffel Tower", "Rome"):
        path.prompt, path.answer.object            # "... in the country of", "Italy"
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from labkit.facts.fact import Fact, Relation, fill


@dataclass(frozen=True, kw_only=True)
class Wordings:
    """How a relation is asked for in a chain, in reverse, and denied.

    Attributes:
        relations: The relation, and others whose facts answer the same question.
        asked: A prompt for its object into which a name or a noun phrase goes, where it can
            follow another relation.
        phrase: A noun phrase for the object, where another relation can follow.
        reversed: A prompt for the subject, into which the object goes.
        negated: A prompt that the object must not follow.
        one_to_one: Whether an object has one subject.
        direct: By a following relation, how the two are asked for in one: `asked`, and where
            a third can follow `phrase`.
    """

    relations: tuple[str, ...]
    asked: str | None = None
    phrase: str | None = None
    reversed: str | None = None
    negated: str | None = None
    one_to_one: bool = False
    direct: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True, kw_only=True)
class Path:
    """A question about a subject that its new object answers by way of other facts.

    Attributes:
        prompt: The question.
        facts: The facts after the first one, in order; the last one's object is the answer.
    """

    prompt: str
    facts: tuple[Fact, ...]

    @property
    def answer(self) -> Fact:
        """The fact whose object is the answer."""
        return self.facts[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chains:
    """Facts, indexed for walking from one to the next.

    Attributes:
        relations: The relations by id.
        facts: The facts.
        wordings: How chains are asked for.
        names: Other names by the subject's type and its name.
    """

    relations: Mapping[str, Relation]
    facts: tuple[Fact, ...]
    wordings: tuple[Wordings, ...]
    names: Mapping[tuple[str, str], tuple[str, ...]]

    @property
    def digest(self) -> str:
        """sha256 of the facts and of how they are asked for, 64 hex digits."""
        held = dict(self.relations), self.facts, self.wordings, dict(self.names)
        return hashlib.sha256(repr(held).encode()).hexdigest()

    @cached_property
    def _index(self) -> dict[tuple[str, str], Fact]:
        """The facts by relation and subject, the first of several."""
        return {(str(f.relation), folded(f.subject)): f for f in reversed(self.facts)}

    def fact(self, relations: Iterable[str], subject: str) -> Fact | None:
        """The fact about a subject in the first of some relations that has one."""
        found = (self._index.get((relation, folded(subject))) for relation in relations)
        return next((fact for fact in found if fact is not None), None)

    def wording(self, relation: str | None) -> Wordings | None:
        """How a relation is asked for; None for a relation that is not in the table."""
        return next((w for w in self.wordings if w.relations[0] == relation), None)

    def subjects(self, relation: str, object: str) -> list[str]:
        """The subjects that have an object, by any of its names, in the order of the facts."""
        return [f.subject for f in self.facts if f.relation == relation and object in f.answers]

    def other_names(self, relation: str | None, subject: str) -> tuple[str, ...]:
        """Other names of a subject; those of any type of thing for an unknown relation."""
        known = self.relations.get(relation or "")
        if known is not None:
            return self.names.get((known.subject_type, subject), ())
        return next((names for (_, name), names in self.names.items() if name == subject), ())

    def onward(self, relation: str | None, subject: str, object: str) -> Iterator[Path]:
        """Questions about a subject that follow from one fact about it: one and two steps on.

        Args:
            relation: The relation of the fact.
            subject: Its subject.
            object: Its object, as it is or as it would be.
        """
        first = self.wording(relation)
        known = self.relations.get(relation or "")
        if first is None or known is None:
            return
        around = None if first.phrase is None else fill(first.phrase, subject)
        for step, fact in self._steps(known.object_type, object):
            short = (first.direct or {}).get(step.relations[0], {})
            if "asked" in short:
                yield Path(prompt=fill(short["asked"], subject), facts=(fact,))
            if around is not None:
                yield Path(prompt=_sentence(fill(str(step.asked), around)), facts=(fact,))
            if "phrase" in short:
                onward = fill(short["phrase"], subject)
            elif around is not None and step.phrase is not None:
                onward = fill(step.phrase, around)
            else:
                continue
            for further, last in self._steps(self._object_type(step), str(fact.object)):
                prompt = _sentence(fill(str(further.asked), onward))
                yield Path(prompt=prompt, facts=(fact, last))

    def _steps(self, subject_type: str, subject: str) -> Iterator[tuple[Wordings, Fact]]:
        """The known facts that can be asked about the object that a chain has reached."""
        for step in self.wordings:
            if step.asked is None or self._relation(step).subject_type != subject_type:
                continue
            fact = self.fact(step.relations, subject)
            if fact is not None:
                yield step, fact

    def _relation(self, wording: Wordings) -> Relation:
        return self.relations[wording.relations[0]]

    def _object_type(self, wording: Wordings) -> str:
        return self._relation(wording).object_type


def wordings_of(world: str) -> tuple[Wordings, ...]:
    """Wordings of the chains of a world; empty for a world that the package does not have."""
    rows = (row for row in _rows("steps.jsonl") if row.pop("world") == world)
    return tuple(Wordings(**{**row, "relations": tuple(row["relations"])}) for row in rows)


def names_of_subjects() -> dict[tuple[str, str], tuple[str, ...]]:
    """Other names of the subjects of the bundled facts, by the subject's type and its name."""
    return {(row["type"], row["name"]): tuple(row["aliases"]) for row in _rows("aliases.jsonl")}


def _rows(name: str) -> Iterator[dict[str, Any]]:
    """The rows of one of the package's own JSONL files."""
    text = resources.files("labkit.data").joinpath(name).read_text(encoding="utf-8")
    return (json.loads(line) for line in text.splitlines())


def folded(name: str) -> str:
    """A name without the changes that its place in a sentence makes."""
    return name.strip().casefold().removeprefix("the ")


def _sentence(prompt: str) -> str:
    """A prompt that begins as sentences do."""
    return prompt[0].upper() + prompt[1:]
