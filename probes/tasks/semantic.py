"""Tasks about meaning: what a noun names, whether that lives, and which sense a word has here.

| task | label | group | what a bag of tokens could do |
|---|---|---|---|
| noun_category | one of ten categories | lemma | nothing: no test noun is in training |
| animacy | animate (persons, animals) or not | lemma | nothing |
| word_sense | word and sense | the phrase that decides | half, from the word alone |

Nouns stand at the end of openings that fit any of them, so that what is read is the noun's own
meaning. 16 ambiguous words stand after a phrase that decides for one of their senses; a third of
the phrases is held out, so that the phrase's own words cannot be looked up either. Semantic
roles come from the project's own language (`probes.sentences.own`).

All word lists are written by hand (`probes.tasks.semantic_words`, `probes.tasks.semantic_senses`).
"""

from collections.abc import Mapping

from probes.tasks.semantic_senses import OPENERS, SENSES
from probes.tasks.semantic_words import CATEGORIES, FRAMES
from probes.tasks.task import Example, Task

SOURCE = "labkit's own word lists"
ANIMATE = ("person", "animal")


def noun_category(categories: Mapping[str, str] = CATEGORIES, *, n_frames: int = 4) -> Task:
    """Which category a noun is of: nouns split by lemma.

    Args:
        categories: Nouns between spaces, by category.
        n_frames: In how many openings each noun stands, 1 to 6.
    """
    labels = {noun: name for name, nouns in categories.items() for noun in nouns.split()}
    return _of_nouns("noun_category", labels, n_frames)


def animacy(categories: Mapping[str, str] = CATEGORIES, *, n_frames: int = 6) -> Task:
    """Whether a noun names a person or an animal: as many that do as that do not.

    Of the other categories the first nouns are taken, evenly.

    Args:
        categories: As in `noun_category`.
        n_frames: In how many openings each noun stands, 1 to 6.
    """
    animate = [noun for name in ANIMATE for noun in categories[name].split()]
    others = [nouns.split() for name, nouns in categories.items() if name not in ANIMATE]
    turns = [noun for several in zip(*others, strict=False) for noun in several]
    labels = dict.fromkeys(animate, "animate")
    labels |= dict.fromkeys(turns[: len(animate)], "inanimate")
    return _of_nouns("animacy", labels, n_frames)


def word_sense() -> Task:
    """Which sense an ambiguous word has after a phrase that decides."""
    texts: list[str] = []
    examples: list[Example] = []
    held_out: list[int] = []
    for word, senses in SENSES.items():
        for sense, phrases in senses.items():
            for place, phrase in enumerate(phrases):
                for opener in OPENERS:
                    text = opener.format(phrase, word)
                    if place % 3 == 2:
                        held_out.append(len(examples))
                    examples.append(_last_word(len(texts), text, word, f"{word}: {sense}", phrase))
                    texts.append(text)
    return Task(
        name="word_sense",
        family="semantic",
        texts=tuple(texts),
        examples=tuple(examples),
        source=SOURCE,
        held_out=tuple(held_out),
    )


def _of_nouns(name: str, labels: Mapping[str, str], n_frames: int) -> Task:
    """A task about nouns, each at the end of some openings."""
    texts = tuple(frame.format(noun) for noun in labels for frame in FRAMES[:n_frames])
    nouns = [noun for noun in labels for _ in FRAMES[:n_frames]]
    return Task(
        name=name,
        family="semantic",
        texts=texts,
        examples=tuple(
            _last_word(number, text, noun, labels[noun], noun)
            for number, (text, noun) in enumerate(zip(texts, nouns, strict=True))
        ),
        source=SOURCE,
    )


def _last_word(number: int, text: str, word: str, label: str, group: str) -> Example:
    """The last word of a text as an example."""
    span = (len(text) - len(word), len(text))
    return Example(text=number, span=span, label=label, group=group, item=word)
