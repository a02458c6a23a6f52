"""Rules about characters: where words begin and end, in whatever script they are written.

Everything that has to know how running text is put together asks here: whether a space stands
between a prompt and what follows it, whether a name is a whole word of a text, and where a
sentence ends.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_SPACELESS = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "THAI", "LAO",
    "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE", "YI SYLLABLE", "TAI LE", "NEW TAI LUE",
)  # fmt: skip
_LOOSE = "=+*<>|&~^"
"""What stands between two sides, with a space on both or on none."""
_QUOTES = "\"'`«»‹›“”„‟‘’‚‛"
_PLAIN = re.compile("[A-Za-z]")
_CLITIC = re.compile(r"(?:['’](?:s|t|re|ve|d|ll|m|n)|n['’]t)(?!\w)", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?。！？．।؟։።။\n]*(?:[.!?।؟։።။](?=\s|$)|[。！？．])")
_PARTICLE = re.compile(
    "(?:입니다|이다|이며|이고|이라|라고|란|은|는|이|가|을|를|의|에|로|으로|와|과|도|만|부터|까지|보다|처럼|하고|인|였|이었)"
)


@lru_cache(maxsize=4096)
def spaceless(character: str) -> bool:
    """Whether a character belongs to a script that puts no spaces between words."""
    return unicodedata.name(character, "").startswith(_SPACELESS)


def in_word(character: str) -> bool:
    """Whether a character is part of a word: a letter, a digit, or a mark on one of them."""
    return character.isalnum() or unicodedata.category(character).startswith("M")


def inside_word(text: str, border: int) -> bool:
    """Whether the characters on both sides of a border belong to one word."""
    if border <= 0 or border >= len(text):
        return False
    before, after = text[border - 1], text[border]
    if unicodedata.category(after).startswith("M"):
        return True
    return in_word(before) and in_word(after) and not (spaceless(before) or spaceless(after))


def holds_phrase(text: str, *names: str) -> bool:
    """Whether one of some names occurs in a text as a whole word or phrase.

    Case, and whether accents are composed, make no difference. In scripts without spaces
    between words any occurrence counts; a Korean name may have a particle after it.
    """
    whole, *parts = (unicodedata.normalize("NFC", t.strip()).casefold() for t in (text, *names))
    return any(_holds(whole, part) for part in parts)


def _holds(text: str, name: str) -> bool:
    """Whether a name, not empty, is a whole phrase of a text; both in one form."""
    start = text.find(name) if name else -1
    while start >= 0:
        stop = start + len(name)
        if not inside_word(text, start) and (
            not inside_word(text, stop) or has_particle(text, stop)
        ):
            return True
        start = text.find(name, start + 1)
    return False


def has_particle(text: str, border: int) -> bool:
    """Whether a Korean word ends at a border inside a text and one of its particles follows."""
    korean = unicodedata.name(text[border - 1], "").startswith("HANGUL")
    return korean and _PARTICLE.match(text, border) is not None


def has_ending(text: str, border: int) -> bool:
    """Whether a name ends at a border inside a text, and a particle or a genitive's s follows."""
    genitive = re.compile(r"(?:e?s|ens)(?!\w)").match(text, border)
    return has_particle(text, border) or (genitive is not None and text[border - 1].isalpha())


def n_words(text: str) -> int:
    """Number of words between spaces; two characters count as one in scripts without them."""
    if text.isascii():
        return len(text.split())
    without = sum(map(spaceless, text))
    return len("".join(" " if spaceless(c) else c for c in text).split()) + without // 2


def sentences_of(text: str, *, latin: bool = False) -> list[str]:
    """Sentences of a text, in any script: from a capital letter to the mark that ends it.

    In scripts that do not tell capitals from small letters any letter begins a sentence.
    What stands before the first such letter is left out; lines are never joined.

    Args:
        text: The text.
        latin: Whether only A to Z begin a sentence.
    """
    found = []
    for match in _SENTENCE.finditer(text):
        segment = match.group()
        start = next((i for i, c in enumerate(segment) if _begins(c, latin)), None)
        if start is not None:
            found.append(segment[start:].strip())
    return found


def mostly_latin(texts: Iterable[str]) -> bool:
    """Whether more than half of all letters of some texts are a to z."""
    latin = others = 0
    for text in texts:
        plain = len(_PLAIN.findall(text))
        latin += plain
        others += 0 if text.isascii() else sum(map(str.isalpha, text)) - plain
    return latin > others


def _begins(character: str, latin: bool) -> bool:
    """Whether a sentence may begin with a character: a capital, or a letter of no case."""
    if latin:
        return "A" <= character <= "Z"
    return character.isupper() or unicodedata.category(character) in ("Lo", "Lt")


def separator(prompt: str, target: str) -> str:
    """What stands between a prompt and a target in running text: a space, or nothing.

    Nothing after white space, after what opens (a bracket, a quotation mark, a currency
    sign), after what joins (a hyphen, a slash, an equals sign that touches what is before
    it), within a number, before a closing mark, a clitic such as `'s` or a bare sign, and
    where either side is written without spaces. A target that begins with white space says for
    itself how it is joined.
    """
    if not prompt or not target or prompt[-1].isspace() or target[0].isspace():
        return ""
    before, after = prompt[-1], target[0]
    if spaceless(before) or spaceless(after) or _opens(prompt) or _attaches(prompt, after):
        return ""
    if not any(map(in_word, target)) or after in ",;:!?%‰…":
        return ""
    if unicodedata.category(after) == "Pe" or unicodedata.name(after, "").startswith("FULLWIDTH"):
        return ""
    if in_word(before) and _CLITIC.match(target):
        return ""
    return "" if after.isdigit() and _in_number(prompt) else " "


def joined(prompt: str, target: str) -> str:
    """A prompt and a target as running text: see `separator`."""
    return prompt + separator(prompt, target) + target


def _in_number(prompt: str) -> bool:
    """Whether a prompt ends within a number: "in the year 19", "3.", "at 12:"."""
    match = re.search(r"(\d+)\s+\d+$", prompt)
    return match is None and re.search(r"\d[.:]?$", prompt) is not None


def _opens(prompt: str) -> bool:
    """Whether a prompt ends in a mark that opens what follows."""
    last, rest = prompt[-1], prompt[:-1]
    category = unicodedata.category(last)
    if category == "Ps":
        return True
    if category == "Sc":
        return not rest[-1:].isdigit()
    if last not in _QUOTES:
        return False
    front = rest.rstrip(_QUOTES)[-1:]
    if not front or front.isspace() or unicodedata.category(front) in ("Ps", "Pd", "Sm"):
        return True
    if last not in "'’" or not in_word(front):
        return False
    # l'eau, dell'arte, O'Neil; not the Beatles' nor 'dog'.
    quoted = len(re.findall(r"(?:^|[\s(])['‘]\w", rest)) > len(re.findall(r"\w['’](?=\s)", rest))
    word = re.search(r"\w+$", rest)
    return not quoted and word is not None and (len(word[0]) == 1 or word[0][-1] not in "sSxz")


def _attaches(prompt: str, after: str) -> bool:
    """Whether a prompt ends in a sign that is written next to what follows."""
    last, rest = prompt[-1], prompt[:-1]
    if last in "_/\\":
        return True
    if last in "#@":
        return not rest[-1:].isalpha() or last == "@"  # C# is a word
    if unicodedata.category(last) != "Pd" and last not in _LOOSE:
        return False
    front = prompt.rstrip(_LOOSE + "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212")
    n_signs = len(prompt) - len(front)
    apart = not front or front[-1].isspace()
    number = front.rstrip()[-1:].isdigit()
    if apart and last in "*~":
        return n_signs > 1 or not number  # emphasis that opens
    if apart and last in "-\u2212":
        return not number and n_signs == 1 and after.isdigit()  # minus forty
    return not apart and not (last in "*~" or (last == "+" and n_signs > 1))
