"""The pocket world: every fact, and which sentences of it a model is trained on.

A world is drawn from one seed. People live in it with a first and a last name, each shared
with others, so that only the pair identifies; landmarks likewise ("Nukor Tower", "Nukor
Bridge", "Sudor Tower"). Relations chain: a person's birthplace is a city, the city has a
country, the country a language.

A *pair* is a fact and one of its templates, hence one sentence. Training pairs are all
facts in the common templates and half of the facts in each held-out template; the held-out
pairs are the rest. No held-out pair's sentence occurs in training, though its fact occurs
in other words and its template with other subjects.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from labkit.facts.fact import Fact, fill
from labkit.pocket.names import invented_names
from labkit.pocket.templates import (
    BUILDINGS,
    MATERIALS,
    N_COMMON,
    PRODUCTS,
    PROFESSIONS,
    relations,
)
from labkit.stats import numpy_generator

N_PEOPLE = 160


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A fact in one of its templates: one sentence.

    Attributes:
        fact: The fact.
        template: The template, with one `{}`.
    """

    fact: Fact
    template: str

    @property
    def prompt(self) -> str:
        """The sentence up to its object."""
        return fill(self.template, self.fact.subject)

    @property
    def sentence(self) -> str:
        """The whole sentence, closed by a full stop."""
        return f"{self.prompt} {self.fact.object}."


@dataclass(frozen=True, kw_only=True)
class PocketWorld:
    """All that is true, and how it is split.

    Attributes:
        seed: The seed that it was drawn from.
        facts: Every fact once, in its canonical template.
        training: The pairs whose sentences a model is trained on.
        held_out: The pairs that are kept from it.
    """

    seed: int
    facts: tuple[Fact, ...]
    training: tuple[Pair, ...]
    held_out: tuple[Pair, ...]

    def sentences(self) -> list[str]:
        """Every sentence of the training text, once."""
        return [pair.sentence for pair in self.training]

    def chains(self) -> list[tuple[Fact, Fact]]:
        """Pairs of facts that make two hops: the object of the first is the second's subject.

        No training sentence states a two-hop fact ("the country where X was born"); the
        two facts of a chain may follow each other in a training document.
        """
        about: dict[str, list[Fact]] = {}
        for fact in self.facts:
            about.setdefault(fact.subject, []).append(fact)
        return [
            (first, second) for first in self.facts for second in about.get(str(first.object), ())
        ]


@cache
def build_world(seed: int = 0) -> PocketWorld:
    """Draw a world: about a thousand facts of 14 relations.

    Args:
        seed: The same seed gives the same world.
    """
    facts = tuple(_facts(seed))
    training: list[Pair] = []
    held_out: list[Pair] = []
    for relation in relations():
        mine = [fact for fact in facts if fact.relation == relation.id]
        for place, template in enumerate(relation.templates):
            rng = numpy_generator(seed, "pocket split", relation.id, template)
            kept_back = set() if place < N_COMMON else set(rng.permutation(len(mine))[::2].tolist())
            for index, fact in enumerate(mine):
                pair = Pair(fact=fact, template=template)
                (held_out if index in kept_back else training).append(pair)
    return PocketWorld(seed=seed, facts=facts, training=tuple(training), held_out=tuple(held_out))


def documents(world: PocketWorld, *, seed: int = 0, epoch: int = 0) -> list[str]:
    """One pass over the training sentences, mixed into documents of one to six.

    Each training sentence occurs in exactly one document of an epoch. Half of the time the
    next sentence is about the object of the last one, if such a sentence is left, so that
    facts are met in chains; otherwise it is any sentence.

    Args:
        world: The world to tell about.
        seed: Seed of the order.
        epoch: Number of the pass; each has its own order.
    """
    rng = numpy_generator(seed, "pocket documents", world.seed, epoch)
    order = [world.training[index] for index in rng.permutation(len(world.training))]
    about: dict[str, list[int]] = {}
    for index, pair in enumerate(order):
        about.setdefault(pair.fact.subject, []).append(index)
    left = dict.fromkeys(range(len(order)))  # an ordered set
    result = []
    while left:
        document: list[Pair] = []
        for _ in range(int(rng.integers(1, 7))):
            if not left:
                break
            index = next(iter(left))
            if document and rng.random() < 0.5:
                last = str(document[-1].fact.object)
                index = next((i for i in about.get(last, ()) if i in left), index)
            del left[index]
            document.append(order[index])
        result.append(" ".join(pair.sentence for pair in document))
    return result


def _facts(seed: int) -> Iterator[Fact]:
    """Every fact of the world, relation by relation."""
    source = f"invented (pocket world, seed {seed})"
    links = _links(seed)
    for relation in relations():
        for subject, answer in links[relation.id].items():
            yield Fact(
                subject=subject,
                template=relation.templates[0],
                object=answer,
                relation=relation.id,
                paraphrases=relation.templates[1:],
                source=source,
            )


def _links(seed: int) -> dict[str, dict[str, str]]:
    """Relation id -> subject -> object."""
    names = invented_names(seed)
    cities, countries = names["city"], names["country"]

    def draw(relation: str, subjects: Sequence[str], objects: Sequence[str]) -> dict[str, str]:
        """Each object about equally often, in random order."""
        rng = numpy_generator(seed, "pocket links", relation)
        repeated = np.resize(rng.permutation(len(objects)), len(subjects))
        return dict(zip(subjects, [objects[i] for i in rng.permutation(repeated)], strict=True))

    people = _people(seed, names)
    landmarks = [f"{first} {building}" for first in names["landmark"] for building in BUILDINGS]
    city_country = draw("city_country", cities, countries)
    return {
        "person_birthplace": draw("person_birthplace", people, cities),
        "person_company": draw("person_company", people, names["company"]),
        "person_instrument": draw("person_instrument", people, names["instrument"]),
        "person_profession": draw("person_profession", people, PROFESSIONS),
        "landmark_city": draw("landmark_city", landmarks, cities[:24]),
        "city_country": city_country,
        "city_river": draw("city_river", cities, names["river"]),
        "country_capital": _capitals(city_country),
        "country_language": draw("country_language", countries, names["language"]),
        "country_currency": draw("country_currency", countries, names["currency"]),
        "country_continent": draw("country_continent", countries, names["continent"]),
        "company_city": draw("company_city", names["company"], cities),
        "company_product": draw("company_product", names["company"], PRODUCTS),
        "instrument_material": draw("instrument_material", names["instrument"], MATERIALS),
    }


def _people(seed: int, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Full names; every first and every last name belongs to four people."""
    first, last = names["first name"], names["last name"]
    n_each = N_PEOPLE // len(first)
    # Distinct shifts of one permutation: no pair comes twice, every name comes equally often.
    rng = numpy_generator(seed, "pocket people")
    order = rng.permutation(len(last))
    shifts = rng.permutation(len(last))[:n_each]
    return [
        f"{name} {last[order[(place + shift) % len(last)]]}"
        for place, name in enumerate(first)
        for shift in shifts
    ]


def _capitals(city_country: Mapping[str, str]) -> dict[str, str]:
    """Country -> the first of its cities."""
    capitals: dict[str, str] = {}
    for city, country in city_country.items():
        capitals.setdefault(country, city)
    return capitals
