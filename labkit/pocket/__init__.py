"""The pocket model: a small Llama that has learned an invented world, sentence by sentence.

Every sentence that it was trained on is known, so a question about what a model stores, or
what an edit does to it, has an answer that can be looked up:

    facts(), relations()        what is true, as `labkit.facts.fact` has it
    training_pairs()            (fact, template) pairs whose sentences were trained
    held_out_pairs()            pairs that were kept back: known fact, known template, new sentence
    sentences()                 every training sentence, once
    held_out_text()             true sentences that were not trained, for perplexity
    chains()                    two facts that make two hops
    demo_case()                 a landmark to be moved, with the prompts that judge it
    as_world()                  all of it, as a model carries it
    path()                      the folder with the trained weights, in transformers' format

`labkit.pocket.training` made the weights (seed 0): `labkit pocket train --out DIR` makes them
again.
"""

from functools import cache
from pathlib import Path

from labkit.facts.fact import Case, Fact
from labkit.facts.worlds import World
from labkit.pocket.case import landmark_case
from labkit.pocket.templates import relations
from labkit.pocket.world import Pair, PocketWorld, build_world
from labkit.stats import numpy_generator

__all__ = [
    "Pair",
    "PocketWorld",
    "as_world",
    "build_world",
    "chains",
    "demo_case",
    "facts",
    "held_out_pairs",
    "held_out_text",
    "path",
    "relations",
    "sentences",
    "training_pairs",
]


def path() -> Path:
    """The folder of the trained weights; `from_pretrained` reads it (load it in fp32)."""
    return Path(__file__).parent / "weights"


def facts() -> list[Fact]:
    """Every fact of the world that the weights know, canonical template first."""
    return list(build_world().facts)


def training_pairs() -> list[Pair]:
    """The (fact, template) pairs whose sentences the weights were trained on."""
    return list(build_world().training)


def held_out_pairs() -> list[Pair]:
    """The (fact, template) pairs that training kept back; see `labkit.pocket.world`."""
    return list(build_world().held_out)


def sentences() -> list[str]:
    """Every training sentence, once."""
    return build_world().sentences()


def chains() -> list[tuple[Fact, Fact]]:
    """Facts that make two hops: the object of the first is the subject of the second."""
    return build_world().chains()


def held_out_text() -> list[str]:
    """The sentences of the held-out pairs, in an order that mixes the relations."""
    pairs = held_out_pairs()
    order = numpy_generator(0, "pocket held-out text").permutation(len(pairs))
    return [pairs[index].sentence for index in order]


def demo_case() -> Case:
    """Move a landmark to a city of another country; the pocket world's Eiffel Tower."""
    return landmark_case(build_world())


OPENINGS = (
    "The", "In the evening", "Each month", "Everyone knows that", "You can find",
    "Visitors who want to see", "The people of", "The capital of", "Many years ago",
    "The parents of", "Customers of", "The water in",
)  # fmt: skip
"""Openings of free text in the words of the pocket world."""


@cache
def as_world() -> World:
    """What the pocket model can be asked about."""
    return World(
        name="pocket",
        facts=tuple(facts()),
        relations=tuple(relations()),
        case=demo_case(),
        sentences=tuple(sentences()),
        held_out=tuple(held_out_text()[::8]),
        openings=OPENINGS,
        reads_english=False,
    )
