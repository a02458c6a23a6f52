"""Invented words: what the pocket world's people, cities and currencies are called.

A name is a stem of random sounds and an ending that tells a reader its category
("Dravomere" is a city, "Tokelia" a country). Endings are for people; to the model every
name is one token with nothing inside.
"""

import numpy as np

from labkit.stats import numpy_generator

#: Letter of a pattern -> sounds: opening consonants, vowels, closing consonants.
SOUNDS = {
    "O": (*"bdfghklmnprstvz", "br", "dr", "fl", "gr", "kr", "pr", "sk", "st", "tr", "vr"),
    "V": tuple("aeiou"),
    "C": tuple("dklmnrstv"),
}

#: Category -> number of names, sounds of the stem, endings, capitalised or not.
CATEGORIES = {
    "first name": (40, "OV", ("ra", "lin", "mo", "vek", "nia", "dan", "sa", "rik"), True),
    "last name": (40, "OVC", ("asko", "eth", "ander", "ovar", "uin"), True),
    "city": (60, "OVCV", ("burg", "holm", "mere", "ford", "haven"), True),
    "country": (20, "OVCVC", ("ia", "eland", "istan"), True),
    "continent": (5, "OVCVC", ("ica", "ea"), True),
    "language": (12, "OVCVC", ("ish", "ese"), True),
    "currency": (15, "OVC", ("imar", "utal", "enar", "okel"), False),
    "river": (20, "OVC", ("awey", "une"), True),
    "company": (40, "OVC", ("otek", "ex", "ona", "ix"), True),
    "instrument": (16, "OVC", ("ophon", "alute", "ihorn", "odrum"), False),
    "landmark": (24, "OVC", ("or", "eshi", "ago"), True),
}


def invented_names(seed: int = 0) -> dict[str, tuple[str, ...]]:
    """The names of every category, all different.

    Args:
        seed: Seed of the world; the same seed gives the same names.

    Returns:
        Category (a key of `CATEGORIES`) to its names, in order.
    """
    taken: set[str] = set()
    names: dict[str, tuple[str, ...]] = {}
    for category, (count, pattern, endings, capital) in CATEGORIES.items():
        rng = numpy_generator(seed, "pocket names", category)
        found: list[str] = []
        while len(found) < count:
            stem = _stem(rng, pattern)
            if stem not in taken:  # a stem names one thing in the world, whatever its ending
                taken.add(stem)
                word = stem + endings[len(found) % len(endings)]
                found.append(word.capitalize() if capital else word)
        names[category] = tuple(found)
    return names


def _stem(rng: np.random.Generator, pattern: str) -> str:
    """One sound for each letter of the pattern: onset, vowel or closing consonant."""
    return "".join(str(rng.choice(SOUNDS[sound])) for sound in pattern)
