"""The words of the project's own language: real English words, with the forms that they take.

Many have two lives on purpose: "walks" is a noun and a verb, "clean" an adjective and a verb,
"sheep" one or several, "cut" present or past. Every list is parted into words for training and
words for testing, every third one for testing, so that what is learned of a word cannot be
looked up in the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from labkit.text.grammar import NAMES, PEOPLE

Part = Literal["train", "test", "all"]
T = TypeVar("T")


@dataclass(frozen=True)
class Noun:
    """A noun: singular, plural, and what it names."""

    singular: str
    plural: str
    kind: Literal["person", "thing", "place", "event"]


@dataclass(frozen=True)
class Verb:
    """A verb: bare form (also present), third person, past, participle."""

    bare: str
    third: str
    past: str
    participle: str


def _nouns(kind: Literal["person", "thing", "place", "event"], words: str) -> tuple[Noun, ...]:
    """Nouns from singulars, with a plural after a slash where it is no plain -s."""
    pairs = [word.partition("/") for word in words.split()]
    return tuple(Noun(one, many or f"{one}s", kind) for one, _, many in pairs)


def _verbs(words: str) -> tuple[Verb, ...]:
    """Verbs from bare forms; irregular ones as bare/third/past/participle."""
    return tuple(_verb(*word.split("/")) for word in words.split())


def _verb(bare: str, *forms: str) -> Verb:
    """A verb, its forms by rule where they are not given."""
    if forms:
        third, past, participle = forms
        return Verb(bare, third, past, participle)
    hissing = bare.endswith(("s", "sh", "ch", "x"))
    past = f"{bare}d" if bare.endswith("e") else f"{bare}ed"
    return Verb(bare, f"{bare}es" if hissing else f"{bare}s", past, past)


PEOPLE_NOUNS = (
    *(Noun(one, many, "person") for one, many in PEOPLE),
    *_nouns("person", "lawyer sailor hunter judge writer poet dancer miner pilot baker actor "
            "king queen boy girl man/men woman/women visitor stranger captain"),
)  # fmt: skip
"""Persons: agents, patients, recipients, and now and then the place where somebody stands."""

SHEEP = _nouns("person", "sheep/sheep deer/deer moose/moose bison/bison reindeer/reindeer "
               "salmon/salmon trout/trout cod/cod")  # fmt: skip
"""Animals of one form: what stands in front says how many there are."""

THING_NOUNS = _nouns(
    "thing",
    "book letter key lamp chair picture bottle basket ticket clock hammer rope knife/knives "
    "coat bag stone wheel blanket candle mirror kettle ladder carpet coin",
)

PLACE_NOUNS = _nouns(
    "place",
    "garden kitchen library/libraries market station village forest museum river bridge tower "
    "harbor island hotel castle farm field church/churches",
)

TWO_LIVES = (
    "walk", "dance", "answer", "visit", "call", "dream", "laugh", "smile", "sleep", "march",
    "work", "talk", "wait", "shout", "jump", "rest", "climb", "hope",
)  # fmt: skip
"""Nouns for what happens that are verbs for doing it."""

HANDLED = (
    "paint", "plant", "cook", "guard", "help", "watch", "judge", "stamp", "mark", "nail",
    "pack", "load", "bottle", "hammer", "ship", "pilot", "doctor", "captain",
)  # fmt: skip
"""Nouns for persons and things that are verbs with an object."""

EVENT_NOUNS = tuple(
    Noun(word, f"{word}es" if word.endswith("ch") else f"{word}s", "event") for word in TWO_LIVES
)
HANDLED_NOUNS = tuple(
    Noun(word, f"{word}es" if word.endswith("ch") else f"{word}s", "thing") for word in HANDLED
)

INTRANSITIVE_VERBS = _verbs(
    " ".join(w for w in TWO_LIVES if w not in ("dream", "sleep", "hope"))
    + " dream/dreams/dreamed/dreamed sleep/sleeps/slept/slept hope/hopes/hoped/hoped"
)
TRANSITIVE_VERBS = _verbs(
    " ".join(HANDLED)
    + " admire praise blame follow greet push pull kick notice remember describe trust"
    " find/finds/found/found see/sees/saw/seen meet/meets/met/met choose/chooses/chose/chosen"
    " take/takes/took/taken forget/forgets/forgot/forgotten"
)
SAME_FORM_VERBS = _verbs(
    "cut/cuts/cut/cut hit/hits/hit/hit hurt/hurts/hurt/hurt set/sets/set/set shut/shuts/shut/shut "
    "put/puts/put/put split/splits/split/split spread/spreads/spread/spread beat/beats/beat/beaten"
)
"""Present and past are spelled alike: an adverb in front tells them apart."""

GIVING_VERBS = _verbs(
    "offer hand show/shows/showed/shown promise send/sends/sent/sent give/gives/gave/given "
    "sell/sells/sold/sold teach/teaches/taught/taught lend/lends/lent/lent"
)
SAYING_VERBS = _verbs(
    "think/thinks/thought/thought say/says/said/said claim know/knows/knew/known "
    "believe hear/hears/heard/heard"
)
ADJECTIVES = (
    "old", "new", "clean", "empty", "warm", "heavy", "broken", "small", "young", "tall",
    "dry", "cold", "clever", "lonely", "friendly", "early", "light", "open",
)  # fmt: skip
CLEANING_VERBS = _verbs("clean open warm empty/empties/emptied/emptied dry/dries/dried/dried")
"""Adjectives that are verbs as well."""

NAMES_OF_PEOPLE = (*NAMES, "Alice", "Henry", "Emma", "Thomas", "Julia", "David")
PAST_ADVERBS = ("once", "recently", "previously", "formerly")
PRESENT_ADVERBS = ("now", "often", "usually", "nowadays")
MANNER_ADVERBS = ("quietly", "slowly", "early", "fast", "gladly", "badly", "twice", "together")


def part_of(words: Sequence[T], part: Part) -> Sequence[T]:
    """The words of a list for training (two thirds), for testing, or all.

    Words with two lives are on the same side in each: a word's side is that of its place in
    `TWO_LIVES`, `HANDLED` or `ADJECTIVES` wherever it is in one of them.
    """
    if part == "all":
        return words
    return [word for place, word in enumerate(words) if _for_test(word, place) == (part == "test")]


def _for_test(word: object, place: int) -> bool:
    """Whether a word is one for testing."""
    base = getattr(word, "bare", None) or getattr(word, "singular", None) or word
    for lives in (TWO_LIVES, HANDLED, ADJECTIVES):
        if base in lives:
            return lives.index(str(base)) % 3 == 2
    return place % 3 == 2
