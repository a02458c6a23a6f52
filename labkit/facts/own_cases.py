"""A case for a rewrite of your own: judged by facts of its world, or by prompts that you give."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.cases import GENERATION, N_ATTRIBUTES, drawn_neighbours, slug
from labkit.facts.fact import Case, Fact, Neighbour, Relation, Rewrite, fill
from labkit.facts.worlds import world_of
from labkit.running.logits import next_token_logits

if TYPE_CHECKING:
    from labkit.models.model import LabModel

Asked = Neighbour | Fact | str
"""A neighbour as people write it: with its answer, as a fact, or as a bare prompt."""


@checked
def case_of(
    model: "LabModel",
    rewrite: Rewrite,
    *,
    paraphrases: Sequence[str] | None = None,
    neighbours: Sequence[Asked] | None = None,
    attributes: Sequence[str] | None = None,
    n_neighbours: int = 10,
    seed: int = 0,
) -> Case:
    """A case for one rewrite: prompts that should change with it, and prompts that should not.

    What is not given comes from the facts of the model's world that ask the same thing:
    the relation that the rewrite names, or the one that has its template.

        rewrite = Rewrite.from_prompt("The Louvre is in the city of", "Louvre", "Rome", "Paris")
        case = case_of(model, rewrite, neighbours=["The Prado is in the city of"])

    Neighbours with answers of your own are `Neighbour(prompt="The Prado is in", object="Madrid")`.

    Args:
        model: The model; a bare prompt takes what this says after it for its answer.
        rewrite: What the edit is asked for.
        paraphrases: Whole prompts that should give the new object too; where neither these nor
            the world's relations have any, the audit does not ask in other words, and says so.
        neighbours: What should stay as it is: prompts, facts, or `Neighbour`s with an answer.
        attributes: Whole prompts about subjects that have the new object in truth.
        n_neighbours: How many neighbours to draw at most, if none are handed in.
        seed: Seed of that draw.

    Raises:
        InputError: If an argument is of another kind, such as one prompt for a list of them; if
            there are no neighbours: none were handed in, and no relation of the
            world asks what the rewrite asks; or if one has the prompt of the rewrite.
    """
    for name, given, taken in (
        ("paraphrases", paraphrases, (str,)),
        ("neighbours", neighbours, (str, Fact, Neighbour)),
        ("attributes", attributes, (str,)),
    ):
        _require_list(name, given, taken)
    if neighbours is not None and not neighbours:
        raise InputError("neighbours=[] leaves nothing to tell damage by: name one prompt at least")
    relation = _relation(model, rewrite)
    same = [fact for fact in world_of(model).facts if relation and fact.relation == relation.id]
    if relation is None and neighbours is None:
        raise InputError(
            f"no relation of the world {world_of(model).name!r} asks {rewrite.template!r}: hand "
            "over neighbours=[...], prompts whose answers should stay as they are"
        )
    fact = Fact(
        subject=rewrite.subject,
        template=rewrite.template,
        object=rewrite.target_true,
        relation=relation.id if relation else None,
    )
    asked_too = [asked for asked in neighbours or () if _prompt(asked) == rewrite.prompt]
    if asked_too:
        raise InputError(f"a neighbour asks what the rewrite asks: {rewrite.prompt!r}")
    near, holders = drawn_neighbours(fact, same, rewrite.target_new, n_neighbours, seed=seed)
    if paraphrases is None:
        templates = [t for t in relation.templates if t != rewrite.template] if relation else []
        paraphrases = [fill(template, rewrite.subject) for template in templates]
    return Case(
        case_id=slug(relation.id if relation else "own", rewrite.subject, rewrite.target_new),
        rewrite=rewrite,
        paraphrases=tuple(paraphrases),
        neighbours=tuple(
            _neighbour(model, asked) for asked in (near if neighbours is None else neighbours)
        ),
        attributes=tuple(holder.prompt for holder in holders[:N_ATTRIBUTES])
        if attributes is None
        else tuple(attributes),
        generation=tuple(fill(template, rewrite.subject) for template in GENERATION),
    )


def _require_list(name: str, given: object, taken: tuple[type, ...]) -> None:
    """Refuse one thing for a list of them, and a list of other things."""
    if given is None:
        return
    if isinstance(given, taken) or not isinstance(given, Sequence):
        raise InputError(f"{name} are a list, one too: {name}=[...], not a {type(given).__name__}")
    for one in given:
        if not isinstance(one, taken):
            kinds = " or ".join("a prompt" if kind is str else kind.__name__ for kind in taken)
            more = (
                "; with an answer: Neighbour(prompt=..., object=...)" if Neighbour in taken else ""
            )
            raise InputError(f"one of the {name} is a {type(one).__name__}, not {kinds}{more}")


def _relation(model: "LabModel", rewrite: Rewrite) -> Relation | None:
    """The relation that a rewrite names, or whose template it has."""
    relations = world_of(model).relations
    named = (one for one in relations if one.id == rewrite.relation)
    alike = (one for one in relations if rewrite.template in one.templates)
    return next(named, None) or next(alike, None)


def _prompt(asked: Asked) -> str:
    """What a neighbour asks."""
    return asked if isinstance(asked, str) else asked.prompt


def _neighbour(model: "LabModel", asked: Asked) -> Neighbour:
    """A neighbour with its answer; the model's own, where none is given."""
    if isinstance(asked, Neighbour):
        return asked
    if isinstance(asked, Fact) and asked.object is not None:
        return Neighbour(prompt=asked.prompt, object=asked.object)
    prompt = _prompt(asked)
    top = int(next_token_logits(model, model.tokens([prompt]))[0].argmax())
    return Neighbour(prompt=prompt, object=model.tokenizer.decode([top]))
