"""The lab's own tasks, each with its instructions.

Word pairs come from the bundled facts (capital, antonym, past tense...), classification from
lists written by hand (sentiment, topic, subjectivity), and symbols from a rule that no text has
taught (parity, vowel).

    capital = task("capital")
    capital.items[0], len(capital.labels), capital.template, capital.instructions
"""

import itertools
from dataclasses import replace
from importlib import resources

from labkit import pocket
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.bundled import bundled_facts, bundled_relations
from labkit.facts.worlds import World, world_of
from labkit.icl.tasks.items import Item, Task, Template, pairs_task
from labkit.models.model import LabModel
from labkit.stats import numpy_generator

TASKS = {
    "antonym": "word_antonym",
    "past": "verb_past",
    "plural": "noun_plural",
    "comparative": "adjective_comparative",
    "superlative": "adjective_superlative",
    "french": "word_french",
    "spanish": "word_spanish",
    "capital": "country_capital",
    "country": "capital_country",
    "continent": "country_continent",
    "currency": "country_currency",
    "language": "country_language",
    "demonym": "country_demonym",
    "state_capital": "us_state_capital",
    "symbol": "element_symbol",
    "sport": "athlete_sport",
    "occupation": "person_occupation",
    "nationality": "person_nationality",
    "animal": "animal_class",
    "young": "animal_young",
    "instrument": "instrument_family",
    "colour": "thing_color",
    "landmark": "landmark_city",
}
"""Tasks of word pairs, and the bundled relation that each is made of."""

WRITTEN = ("sentiment", "topic", "subjectivity")
"""Tasks of classification, written by hand."""

SYMBOLS = ("parity", "vowel", "uppercase")
"""Tasks of symbols, made by a rule."""


@checked
def task_names(model: LabModel | None = None) -> tuple[str, ...]:
    """The tasks that `task` knows; for a model that reads no English, its world's relations."""
    if model is not None and not world_of(model).reads_english:
        facts = world_of(model).facts
        return tuple(dict.fromkeys(fact.relation for fact in facts if fact.relation))
    return (*TASKS, *WRITTEN, *SYMBOLS)


def task(name: str, model: LabModel | None = None) -> Task:
    """One of the project's own tasks.

    Args:
        name: One of `task_names()`, or the id of a bundled relation.
        model: For a model that reads no English, such as the pocket model, a task is a relation
            of its world, and each demonstration a sentence of it.

    Raises:
        InputError: If there is no such task.
    """
    if model is not None and not world_of(model).reads_english:
        return _relation(name, world_of(model))
    if name in WRITTEN:
        own = _written(name)
    elif name in SYMBOLS:
        own = _symbols(name)
    else:
        relation = TASKS.get(name, name)
        if relation not in bundled_relations():
            raise InputError(f"no task {name!r}; there are {', '.join(task_names())}")
        own = pairs_task(name, bundled_facts(relation), source=f"bundled facts: {relation}")
    return replace(own, instructions=_instructions(name))


def require_task(name: str) -> None:
    """Refuse a name that no task of a world of the lab's has, before a model is opened.

    Raises:
        InputError: With the names that there are.
    """
    if name not in {fact.relation for fact in pocket.facts()}:
        task(name)


def _instructions(name: str) -> tuple[str, ...]:
    """Instructions written by hand: one per line, the task's name in front of a tab."""
    path = resources.files("labkit.data").joinpath("icl", "instructions.txt")
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(instruction for own, instruction in rows if own == name)


def _relation(name: str, world: World) -> Task:
    """A relation of a world: sentences, one after the other.

    Its instructions are the words of its other templates: its models know no imperative.
    """
    facts = [fact for fact in world.facts if fact.relation == name]
    if not facts:
        known = sorted({str(fact.relation) for fact in world.facts})
        raise InputError(f"the {world.name} world has no task {name!r}; it has {', '.join(known)}")
    sentence = facts[0].template.replace("{}", "{input}") + " {label}"
    template = Template(demonstration=sentence, separator=". ")
    own = pairs_task(name, facts, source=f"the {world.name} world", template=template)
    said = (" ".join(other.replace("{}", "").split()) for other in facts[0].paraphrases)
    return replace(own, instructions=tuple(said))


def _written(name: str) -> Task:
    """A list of texts: one per line, its label in front of a tab."""
    path = resources.files("labkit.data").joinpath("icl", f"{name}.txt")
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    words = {"sentiment": "Review", "topic": "Headline", "subjectivity": "Sentence"}[name]
    asked = {"sentiment": "Sentiment", "topic": "Topic", "subjectivity": "Kind"}[name]
    return Task(
        name=name,
        items=tuple(Item(input=text, label=label) for label, text in rows),
        source="written by hand for labkit",
        template=Template(demonstration=f"{words}: {{input}}\n{asked}: {{label}}"),
    )


def _symbols(name: str) -> Task:
    """Symbols and what a rule says of them; drawn in a fixed order."""
    draw = numpy_generator(0, "icl symbols", name)
    if name == "parity":
        strings = [" ".join(signs) for signs in itertools.product("XO", repeat=7)]
        items = [(text, "odd" if text.count("X") % 2 else "even") for text in strings]
    else:
        words = sorted({fact.subject for fact in bundled_facts("word_antonym")})
        if name == "vowel":
            items = [(word, "vowel" if word[0] in "aeiou" else "consonant") for word in words]
        else:
            items = [(word, word.upper()) for word in words]
    return Task(
        name=name,
        items=tuple(
            Item(input=items[i][0], label=items[i][1]) for i in draw.permutation(len(items))
        ),
        source="made by a rule",
    )
