"""Tasks about facts: what can be read of an object at its subject alone.

| task | label | read at | group |
|---|---|---|---|
| continent | continent of a city, country, landmark, mountain or river | the subject | subject |
| maker_country | country of the company behind a product or car | the subject | subject |
| occupation | what a person is known for, in five fields | the subject | subject |
| truth | whether a statement is true | its full stop | subject |
| birth_year | year in which a person was born, a number | the subject | subject |
| a relation's id | its object, where that has enough subjects | the subject | subject |

A subject stands at the end of openings that say nothing of what is asked, so that its last token
is read with the name before it and no question; a subject is wholly on one side of a split. A bag
of tokens can do what names give away (an Italian name, "Lake"), and no more: what it does is the
baseline that a model's states have to beat.

False statements swap objects within a relation, so that every object is in as many true as false
statements, and every subject in one of each: neither gives the answer away.

References:
    Hernandez et al. (2024), Linearity of Relation Decoding in Transformer Language Models,
    section 2. Marks and Tegmark (2023), The Geometry of Truth, section 2.

Differs from the papers:
    Facts of our own, few and well known ones; classes are merged where objects are too many.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from labkit.errors import EmptySplit
from labkit.facts.bundled import bundled_facts, bundled_relations
from labkit.facts.fact import Fact
from labkit.stats import numpy_generator
from labkit.tokens.words import joined
from probes.tasks.task import Example, Label, Task

SOURCE = "labkit's bundled facts"

OPENINGS = ("{}", "Let me tell you about {}", "This page is about {}")
"""A subject stands at the end of each: what is read is what its name brings to mind."""

LEAST = 8
"""Subjects that a class has at least; rarer classes are left out."""

FIELDS = {
    "arts": "painter sculptor architect photographer designer composer singer musician pianist "
    "guitarist actor actress dancer director filmmaker",
    "letters": "writer poet novelist playwright philosopher author historian journalist",
    "science": "physicist mathematician chemist biologist astronomer inventor psychologist "
    "economist engineer naturalist physician scientist botanist geologist computer",
    "power": "king queen president emperor politician general pharaoh statesman",
}
"""Occupations by field; athletes and rulers also come from their own relations."""


def continent(facts: Sequence[Fact] | None = None) -> Task:
    """On which continent a place lies: of countries as stated, of others through their country."""
    known = _by_relation(facts)
    of_country = known["country_continent"]
    labels = dict(of_country) | known["river_continent"]
    for relation in ("city_country", "capital_country", "landmark_country", "mountain_country"):
        for subject, country in known[relation].items():
            if country in of_country and subject not in labels:
                labels[subject] = of_country[country]
    return subject_task("continent", labels, source=SOURCE)


def maker_country(facts: Sequence[Fact] | None = None) -> Task:
    """In which country the company behind something is at home: two facts in a chain."""
    known = _by_relation(facts)
    labels = dict(known["company_country"])
    for relation in ("product_company", "car_maker", "software_company"):
        for subject, company in known[relation].items():
            if company in known["company_country"] and subject not in labels:
                labels[subject] = known["company_country"][company]
    return subject_task("maker_country", labels, source=SOURCE, least=20)


def occupation(facts: Sequence[Fact] | None = None) -> Task:
    """What a person is known for: arts, letters, science, power or sport."""
    known = _by_relation(facts)
    fields = {word: field for field, words in FIELDS.items() for word in words.split()}
    labels = {
        person: fields[job] for person, job in known["person_occupation"].items() if job in fields
    }
    for relation, field in (
        ("scientist_field", "science"), ("athlete_sport", "sport"), ("leader_country", "power"),
    ):  # fmt: skip
        for person in known[relation]:
            labels.setdefault(person, field)
    return subject_task("occupation", labels, source=SOURCE)


def birth_year() -> Task:
    """In which year a person was born: 1162 to 2003, as a number.

    References:
        Gurnee and Tegmark (2023), Language Models Represent Space and Time, section 2.
    """
    rows = (files("labkit") / "data" / "birth_years.txt").read_text(encoding="utf-8").splitlines()
    years: dict[str, Label] = {}
    for row in rows:
        year, _, person = row.partition(" ")
        years[person] = float(year)
    return subject_task("birth_year", years, source=SOURCE, numeric=True)


def of_relation(facts: Sequence[Fact], *, least: int = LEAST) -> Task:
    """The object of a relation's facts, read at the subject (LRE's relations, for example).

    Args:
        facts: Facts of one relation, such as `labkit.facts.datasets.read_relations` gives.
        least: Subjects that an object needs.

    Raises:
        EmptySplit, OneClass: If no object, or only one, has that many.
    """
    if not facts:
        raise EmptySplit("there are no facts to make a task of")
    name = facts[0].relation or "facts"
    labels = {fact.subject: str(fact.object) for fact in facts}
    return subject_task(name, labels, source=facts[0].source or SOURCE, least=least)


def subject_task(
    name: str,
    labels: Mapping[str, Label],
    *,
    source: str,
    least: int = LEAST,
    numeric: bool = False,
    openings: Sequence[str] = OPENINGS,
    held_out: Iterable[str] = (),
) -> Task:
    """A task that reads a label off subjects, each at the end of some openings.

    Args:
        name: Its name.
        labels: Label of every subject.
        source: Where they come from.
        least: Subjects that a class has at least.
        numeric: Whether labels are numbers.
        openings: Texts with one `{}` at their end.
        held_out: Subjects for testing; drawn if there are none.

    Raises:
        EmptySplit: If no class has that many subjects.
    """
    counts = Counter(labels.values())
    subjects = [s for s, label in labels.items() if numeric or counts[label] >= least]
    if not subjects:
        raise EmptySplit(f"no class of {name!r} ({source}) has {least} subjects")
    texts = tuple(opening.format(subject) for subject in subjects for opening in openings)
    of_text = [subject for subject in subjects for _ in openings]
    test = set(held_out)
    return Task(
        name=name,
        family="factual",
        texts=texts,
        examples=tuple(
            Example(
                text=number,
                span=(len(text) - len(subject), len(text)),
                label=labels[subject],
                group=subject,
                item=subject,
            )
            for number, (text, subject) in enumerate(zip(texts, of_text, strict=True))
        ),
        source=source,
        numeric=numeric,
        held_out=tuple(n for n, s in enumerate(of_text) if s in test) if test else None,
    )


def truth(
    facts: Sequence[Fact] | None = None,
    *,
    relations: Sequence[str] | None = None,
    source: str = SOURCE,
    seed: int = 0,
) -> Task:
    """Whether a statement is true, read at its full stop: each subject once with each.

    Args:
        facts: Facts with objects; by default the bundled ones of factual relations.
        relations: Which relations; by default all of the facts. One with an object that more
            than half of its subjects have is left out.
        source: Where the facts come from, in words.
        seed: Seed of the swaps.

    Raises:
        EmptySplit: If no relation is left.
    """
    if facts is None:
        kinds = bundled_relations()
        facts = [f for f in bundled_facts() if kinds[str(f.relation)].kind == "factual"]
    by_relation: dict[str, list[Fact]] = {}
    for fact in facts:
        if relations is None or fact.relation in relations:
            by_relation.setdefault(str(fact.relation), []).append(fact)
    statements = [
        (fact, str(answer), label)
        for relation, several in by_relation.items()
        for fact, other in _swapped(relation, several, seed)
        for answer, label in ((fact.object, "true"), (other, "false"))
    ]
    if not statements:
        raise EmptySplit("no relation has objects that can be swapped")
    texts = tuple(f"{joined(fact.prompt, answer)}." for fact, answer, _ in statements)
    return Task(
        name="truth",
        family="factual",
        texts=texts,
        examples=tuple(
            Example(
                text=number,
                span=(len(texts[number]) - 1, len(texts[number])),
                label=label,
                group=fact.subject,
                item=answer,
            )
            for number, (fact, answer, label) in enumerate(statements)
        ),
        source=source,
    )


def _swapped(relation: str, facts: Sequence[Fact], seed: int) -> list[tuple[Fact, str]]:
    """Facts of a relation, each with another's object; none that would be true.

    Facts sorted by object and turned by at least as many places as the most frequent object
    has: every fact meets another object, and every object is handed on as often as it occurs.
    Pairs that other facts make true are left out, with the fact that lost its object.
    """
    draw = numpy_generator(seed, "swapped", relation)
    order = [facts[n] for n in draw.permutation(len(facts)).tolist()]
    order.sort(key=lambda fact: str(fact.object))
    most = max(Counter(fact.object for fact in facts).values())
    if 2 * most > len(facts):
        return []
    turn = int(draw.integers(most, len(facts) - most + 1))
    right: dict[str, set[str]] = {}
    for fact in facts:
        right.setdefault(fact.subject, set()).update(fact.answers)
    pairs = [
        (fact, str(order[(place + turn) % len(order)].object)) for place, fact in enumerate(order)
    ]
    return _balanced([(fact, other) for fact, other in pairs if other not in right[fact.subject]])


def _balanced(pairs: Sequence[tuple[Fact, str]]) -> list[tuple[Fact, str]]:
    """The pairs among which every object is as often the right one as the other."""
    kept = list(pairs)
    while True:
        true = Counter(str(fact.object) for fact, _ in kept)
        false = Counter(other for _, other in kept)
        surplus = [
            number
            for number, (fact, other) in enumerate(kept)
            if true[str(fact.object)] > false[str(fact.object)] or false[other] > true[other]
        ]
        if not surplus:
            return kept
        del kept[surplus[-1]]


def _by_relation(facts: Sequence[Fact] | None) -> dict[str, dict[str, str]]:
    """Object of every subject, by relation; the first where a subject has several."""
    found: dict[str, dict[str, str]] = {}
    for fact in bundled_facts() if facts is None else facts:
        found.setdefault(str(fact.relation), {}).setdefault(fact.subject, str(fact.object))
    return found
