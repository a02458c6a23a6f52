"""Twelve rules of English, as frames for minimal pairs: word lists, and what breaks each rule.

Each function draws words and returns a good sentence and a bad one. They differ in one word,
which is never the first: a model that scores a sentence from its first word on is not asked
how a sentence begins. `labkit.text.acceptability` draws from them.
"""

from collections.abc import Callable, Sequence
from typing import Any

Pick = Callable[[Sequence[Any]], Any]
"""Draws one of some options."""

NAMES = ("Anna", "Nora", "Clara", "Peter", "Martin", "Oliver", "Laura", "Simon")
PEOPLE = (
    ("farmer", "farmers"), ("teacher", "teachers"), ("doctor", "doctors"), ("nurse", "nurses"),
    ("singer", "singers"), ("guest", "guests"), ("student", "students"), ("child", "children"),
    ("neighbor", "neighbors"), ("painter", "painters"), ("driver", "drivers"),
    ("soldier", "soldiers"),
)  # fmt: skip
THINGS = (
    ("book", "books"), ("letter", "letters"), ("key", "keys"), ("lamp", "lamps"),
    ("chair", "chairs"), ("picture", "pictures"), ("bottle", "bottles"), ("basket", "baskets"),
    ("ticket", "tickets"), ("clock", "clocks"),
)  # fmt: skip
PLACES = ("garden", "kitchen", "library", "market", "station", "village", "forest", "museum")
ADJECTIVES = ("old", "new", "heavy", "clean", "expensive", "beautiful", "broken", "small")
INTRANSITIVE = (
    ("sleeps", "sleep"), ("works", "work"), ("waits", "wait"), ("sings", "sing"),
    ("dances", "dance"), ("smiles", "smile"), ("walks", "walk"), ("lives", "live"),
)  # fmt: skip
TRANSITIVE = ("carried", "found", "bought", "sold", "lost", "wanted", "needed", "cleaned")
ONE_PLACE = ("slept", "arrived", "smiled", "laughed", "existed", "appeared", "coughed", "died")
DEEDS = ("hurt", "praised", "blamed", "introduced", "defended", "admired", "hid", "taught")
MEN = ("king", "father", "uncle", "brother", "waiter", "prince", "husband", "boy", "grandfather")
WOMEN = ("queen", "mother", "aunt", "sister", "waitress", "princess", "wife", "girl", "lady")
KNOWS = ("knows", "remembers", "discovered", "understands", "forgot", "noticed")
SAYS = ("says", "thinks", "believes", "claims")
SEEN = ("visited", "seen", "left", "painted", "liked", "entered")
IRREGULAR = (
    ("ate", "eaten", "the bread"), ("drank", "drunk", "the milk"), ("wrote", "written", "a letter"),
    ("took", "taken", "the key"), ("broke", "broken", "the lamp"), ("stole", "stolen", "a car"),
    ("drove", "driven", "the bus"), ("gave", "given", "an answer"), ("saw", "seen", "the river"),
    ("chose", "chosen", "a color"), ("began", "begun", "the work"), ("sang", "sung", "a song"),
)  # fmt: skip
CARRIES = (
    ("carry", "carries"), ("find", "finds"), ("buy", "buys"), ("sell", "sells"),
    ("want", "wants"), ("need", "needs"), ("clean", "cleans"), ("open", "opens"),
)  # fmt: skip
CASES = (("she", "her"), ("he", "him"), ("they", "them"), ("we", "us"), ("I", "me"))


def _agreement(pick: Pick) -> tuple[str, str]:
    number, person, verbs, place = pick((0, 1)), pick(PEOPLE), pick(INTRANSITIVE), pick(PLACES)
    frame = f"The {person[number]} {{}} in the {place}."
    return frame.format(verbs[number]), frame.format(verbs[1 - number])


def _distractor(pick: Pick) -> tuple[str, str]:
    number, thing, person, adjective = pick((0, 1)), pick(THINGS), pick(PEOPLE), pick(ADJECTIVES)
    frame = f"The {thing[number]} of the {person[1 - number]} {{}} very {adjective}."
    good, bad = ("is", "are") if number == 0 else ("are", "is")
    return frame.format(good), frame.format(bad)


def _determiner(pick: Pick) -> tuple[str, str]:
    number, thing, verb, name = pick((0, 1)), pick(THINGS), pick(TRANSITIVE), pick(NAMES)
    frame = f"{name} {verb} {pick(('this', 'that') if number == 0 else ('these', 'those'))} {{}}."
    return frame.format(thing[number]), frame.format(thing[1 - number])


def _gender(pick: Pick) -> tuple[str, str]:
    male, deed, place = pick((True, False)), pick(DEEDS), pick(PLACES)
    frame = f"The {pick(MEN if male else WOMEN)} {deed} {{}} in the {place}."
    good, bad = ("himself", "herself") if male else ("herself", "himself")
    return frame.format(good), frame.format(bad)


def _number(pick: Pick) -> tuple[str, str]:
    male, plural, deed, place = (
        pick((True, False)), pick((True, False)), pick(DEEDS), pick(PLACES)
    )  # fmt: skip
    one = "himself" if male else "herself"
    name = ("boy" if male else "girl") + ("s" if plural else "")
    frame = f"The {pick(ADJECTIVES[:2])} {name} {deed} {{}} in the {place}."
    good, bad = ("themselves", one) if plural else (one, "themselves")
    return frame.format(good), frame.format(bad)


def _polarity(pick: Pick) -> tuple[str, str]:
    name, says, person = pick(NAMES), pick(SAYS), pick(PEOPLE)[0]
    frame = f"{name} {says} that {{}} {person} has ever {pick(SEEN)} the {pick(PLACES)}."
    return frame.format("no"), frame.format("one")


def _filler(pick: Pick) -> tuple[str, str]:
    gap, person, verb = pick((True, False)), pick(PEOPLE)[0], pick(TRANSITIVE)
    rest = "" if gap else f" the {pick(THINGS)[0]}"
    frame = f"{pick(NAMES)} {pick(KNOWS)} {{}} the {person} {verb}{rest}."
    good, bad = ("what", "that") if gap else ("that", "what")
    return frame.format(good), frame.format(bad)


def _irregular(pick: Pick) -> tuple[str, str]:
    perfect, person, (past, participle, what) = pick((True, False)), pick(PEOPLE), pick(IRREGULAR)
    if perfect:
        frame, good, bad = f"The {person[0]} has {{}} {what}.", participle, past
    else:
        frame, good, bad = f"Yesterday the {person[0]} {{}} {what}.", past, participle
    return frame.format(good), frame.format(bad)


def _transitivity(pick: Pick) -> tuple[str, str]:
    frame = f"The {pick(PEOPLE)[0]} {{}} the {pick(THINGS)[0]}."
    return frame.format(pick(TRANSITIVE)), frame.format(pick(ONE_PLACE))


def _case(pick: Pick) -> tuple[str, str]:
    (subject, object_), deed, person = pick(CASES), pick(DEEDS[:-2]), pick(PEOPLE)
    frame = f"The {person[pick((0, 1))]} {deed} {{}} in the {pick(PLACES)}."
    return frame.format(object_), frame.format(subject)


def _auxiliary(pick: Pick) -> tuple[str, str]:
    modal, (bare, inflected) = pick(("will", "can", "should", "must", "may")), pick(CARRIES)
    frame = f"The {pick(PEOPLE)[0]} {modal} {{}} the {pick(THINGS)[0]}."
    return frame.format(bare), frame.format(inflected)


def _existential(pick: Pick) -> tuple[str, str]:
    noun, adjective = pick((*PEOPLE, *THINGS))[0], pick(("small", "new", "beautiful", "heavy"))
    frame = f"There is {{}} {adjective} {noun} in the {pick(PLACES)}."
    return frame.format("a"), frame.format("every")


PHENOMENA: dict[str, Callable[[Pick], tuple[str, str]]] = {
    "subject-verb agreement": _agreement,
    "agreement across a distractor": _distractor,
    "determiner-noun agreement": _determiner,
    "reflexive gender": _gender,
    "reflexive number": _number,
    "negative polarity": _polarity,
    "filler and gap": _filler,
    "irregular forms": _irregular,
    "transitivity": _transitivity,
    "pronoun case": _case,
    "auxiliary and verb form": _auxiliary,
    "existential there": _existential,
}
"""What the module can draw pairs of, by name."""
