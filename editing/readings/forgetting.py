"""Known facts unrelated to an edit, and whether they are still known after it.

A model *knows* a fact if the first token of its answer is the argmax after the fact's prompt
(`labkit.facts.known`). Unrelated are facts of other relations than the edits' that name neither
their subjects nor their objects.

References:
    Zhu et al. (2020), Modifying Memories in Transformer Models, section 3: accuracy on
    unmodified facts.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from editing.edits.effect import Wording, as_it_is
from labkit.errors import InputError
from labkit.facts.fact import Deletion, Fact, Rewrite
from labkit.facts.known import asked_in_turn, known_facts
from labkit.facts.worlds import facts_of
from labkit.models.model import LabModel


def unrelated_facts(
    model: LabModel, n: int, *, exclude: Sequence[Rewrite | Deletion] = (), seed: int = 0
) -> tuple[Fact, ...]:
    """Facts that a model knows and that are unrelated to some edits, evenly over relations.

    Relations take turns, each giving its facts in a drawn order.

    Args:
        model: The unedited model.
        n: How many, at most: the model may know fewer, or none.
        exclude: The edits. Published cases have relation ids of their own; of those only
            the names exclude.
        seed: Seed of the draw.

    Raises:
        InputError: If `n` is negative.
    """
    if n < 0:
        raise InputError(f"{n} unrelated facts: the number cannot be negative")
    if not n:
        return ()
    named, relations = _named(exclude), {edit.relation for edit in exclude if edit.relation}
    far = [
        fact
        for fact in facts_of(model)
        if fact.relation not in relations
        and named.isdisjoint(_folded(name) for name in (fact.subject, *fact.answers))
    ]
    asked = asked_in_turn(model, far, seed=seed, purpose="unrelated facts")
    return tuple(islice((row.fact for row in asked if row.rank == 1), n))


def recall(
    model: LabModel, facts: Sequence[Fact], wording: Wording = as_it_is
) -> tuple[tuple[bool, ...], tuple[float, ...]]:
    """Whether each fact's answer is the argmax, and the probability of its first token, 0..1."""
    if not facts:
        return (), ()
    fronts = [wording(fact.prompt).removesuffix(fact.prompt) for fact in facts]
    put = [
        replace(fact, template=front + fact.template, paraphrases=())
        for fact, front in zip(facts, fronts, strict=True)
    ]
    rows = known_facts(model, put).asked
    return tuple(row.rank == 1 for row in rows), tuple(row.probability for row in rows)


def _named(exclude: Sequence[Rewrite | Deletion]) -> set[str]:
    """What the edits name: subjects and objects, old and new."""
    names = {edit.subject for edit in exclude}
    names |= {edit.target_true for edit in exclude if edit.target_true}
    names |= {edit.target_new for edit in exclude if isinstance(edit, Rewrite)}
    return {_folded(name) for name in names}


def _folded(name: str) -> str:
    return name.strip().casefold()
