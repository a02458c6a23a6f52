"""Tasks that gold annotation gives: from surface to syntax, of any sentences that have it.

The same for a treebank and for the project's own language. A word is one example, its sentence
the group, its form in lower case the item. What each asks:

| task | family | label | of |
|---|---|---|---|
| position | surface | number of words before it | words |
| word_length | surface | number of its characters | words |
| sentence_length | surface | number of words | the sentence's last word |
| word_content | surface | which of some words of middling frequency it holds | the last word |
| upos, xpos | lexical | part of speech | words |
| number | lexical | `Number` | nouns |
| tense, person | lexical | `Tense`, `Person` | verbs and auxiliaries |
| deprel | syntactic | relation to the head, subtypes dropped | words |
| head_distance | syntactic | places from word to head, in signed classes | words |
| tree_depth | syntactic | number of arcs up to the root | words |
| role | semantic | semantic role | nouns after the verb, where roles are given |

and any feature by its own name, such as "Case" or "VerbForm", of all words that have it
(lexical). "Words" leaves punctuation out, except for parts of speech.

A model that reads from left to right knows of a sentence what stands up to the word. That is
why roles are asked after the verb only: before it, "the nurse" of "the nurse was helped" is no
patient yet. Relations to a head that is still to come have to be guessed, and are asked all the
same: how far a model foresees is part of the question.

What a bag of tokens could do: a majority label by form is a strong baseline on real text (upos
about 0.85 to 0.9 on English), by construction weaker on `probes.sentences.own`. It cannot do
`position` or `sentence_length` beyond their mean.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labkit.errors import EmptySplit, InputError
from probes.sentences.treebank import Sentence
from probes.tasks.task import Example, Family, Label, Task

LEAST = 10
"""Training examples that a class has at least; rarer ones are left out."""

CONTENT_WORDS = 20
"""Words that `word_content` tells apart at most."""

Ask = Callable[[Sentence, int], Label | None]
"""The label of a word, by its place; None where it is not asked about."""


@dataclass(frozen=True)
class _Question:
    """What a task asks about."""

    family: Family
    ask: Ask
    numeric: bool = False


def linguistic_tasks(
    sentences: Sequence[Sentence],
    test: Sequence[Sentence] | None = None,
    *,
    names: Sequence[str] | None = None,
    source: str = "a treebank",
    least: int = LEAST,
) -> dict[str, Task]:
    """Tasks over some sentences, by name.

    Args:
        sentences: The sentences; all of them for training where `test` is given.
        test: Sentences that are held out. One that stands in both is left out of training.
        names: Which tasks; by default all of the table that the sentences can be asked.
        source: Where the sentences come from, in words.
        least: Training examples that a class needs to be asked about.

    Raises:
        InputError: For a task or feature that there is not.
        EmptySplit, OneClass: If a task that was named has nothing, or nothing to tell apart.
    """
    if not sentences:
        raise EmptySplit(f"there are no sentences ({source})")
    held_out = {sentence.text for sentence in test or ()}
    kept = [sentence for sentence in sentences if sentence.text not in held_out]
    if len(kept) < len(sentences):
        source = f"{source}; {len(sentences) - len(kept)} that are in the test as well left out"
    n_train = len(kept)
    both = [*kept, *(test or ())]
    questions = _questions(kept, both)
    chosen = [n for n in questions if names is not None or n in TASKS] if names is None else names
    found = {}
    for name in chosen:
        if name not in questions:
            raise InputError(f"no task {name!r} of {source}; there are {', '.join(questions)}")
        examples, n_first = _examples(questions[name], both, n_train, least)
        sides = examples[:n_first], examples[n_first:] if test is not None else examples
        if names is None and any(len({example.label for example in side}) < 2 for side in sides):
            continue
        found[name] = Task(
            name=name,
            family=questions[name].family,
            texts=tuple(sentence.text for sentence in both),
            examples=tuple(examples),
            source=source,
            numeric=questions[name].numeric,
            held_out=None if test is None else tuple(range(n_first, len(examples))),
        )
    return found


def _examples(
    question: _Question, sentences: Sequence[Sentence], n_train: int, least: int
) -> tuple[list[Example], int]:
    """The examples of a question, and how many of them are of the first sentences."""
    labelled = [
        (number, place, label)
        for number, sentence in enumerate(sentences)
        for place, word in enumerate(sentence.words)
        if word.span is not None and (label := question.ask(sentence, place)) is not None
    ]
    if not question.numeric:
        counts = Counter(label for number, _, label in labelled if number < n_train)
        labelled = [row for row in labelled if counts[row[2]] >= least]
    examples = []
    for number, place, label in labelled:
        sentence = sentences[number]
        word, span = sentence.words[place], sentence.words[place].span
        assert span is not None
        examples.append(
            Example(
                text=number, span=span, label=label, group=sentence.text, item=word.form.lower()
            )
        )
    return examples, sum(number < n_train for number, _, _ in labelled)


def _questions(kept: Sequence[Sentence], both: Sequence[Sentence]) -> dict[str, _Question]:
    """Everything that can be asked of these sentences."""
    content = _content_words(kept)
    questions = {
        "position": _Question("surface", _of_words(lambda s, n: float(n)), True),
        "word_length": _Question("surface", _of_words(_n_characters), True),
        "sentence_length": _Question("surface", _of_last(lambda s: float(len(s.words))), True),
        "word_content": _Question("surface", _of_last(lambda s: _only(s, content))),
        "upos": _Question("lexical", lambda s, n: s.words[n].upos),
        "xpos": _Question("lexical", lambda s, n: s.words[n].xpos),
        "number": _Question("lexical", _feature("Number", ("NOUN",))),
        "tense": _Question("lexical", _feature("Tense", ("VERB", "AUX"))),
        "person": _Question("lexical", _feature("Person", ("VERB", "AUX"))),
        "deprel": _Question("syntactic", _of_words(_relation)),
        "head_distance": _Question("syntactic", _of_words(_distance)),
        "tree_depth": _Question("syntactic", _of_words(lambda s, n: float(s.depths[n])), True),
        "role": _Question("semantic", _role),
    }
    features = {name for s in both for word in s.words for name in word.feats}
    return questions | {name: _Question("lexical", _feature(name)) for name in sorted(features)}


TASKS = (
    "position", "word_length", "sentence_length", "word_content", "upos", "xpos", "number",
    "tense", "person", "deprel", "head_distance", "tree_depth", "role",
)  # fmt: skip
"""What can be asked of any treebank (`role` of the project's own language only)."""


def _of_words(ask: Callable[[Sentence, int], Label]) -> Ask:
    """A question about every word that is no punctuation."""
    return lambda s, n: None if s.words[n].upos == "PUNCT" else ask(s, n)


def _of_last(ask: Callable[[Sentence], Label | None]) -> Ask:
    """A question about a sentence, asked at its last word."""
    return lambda s, n: ask(s) if n == len(s.words) - 1 else None


def _feature(name: str, upos: Sequence[str] | None = None) -> Ask:
    """A morphological feature, of words of some parts of speech or of all that have it."""

    def ask(sentence: Sentence, place: int) -> str | None:
        word = sentence.words[place]
        return word.feats.get(name) if upos is None or word.upos in upos else None

    return ask


def _n_characters(sentence: Sentence, place: int) -> float:
    return float(len(sentence.words[place].form))


def _relation(sentence: Sentence, place: int) -> str:
    """The universal relation: "nsubj" of "nsubj:pass"."""
    return sentence.words[place].deprel.partition(":")[0]


def _distance(sentence: Sentence, place: int) -> str:
    """Places from a word to its head: "-" for a head that stands before it."""
    head = sentence.words[place].head
    if head == 0:
        return "root"
    distance = head - 1 - place
    size = abs(distance)
    bucket = str(size) if size <= 2 else "3-4" if size <= 4 else "5+"
    return ("-" if distance < 0 else "+") + bucket


def _role(sentence: Sentence, place: int) -> str | None:
    """The role of a noun that stands after the verb it belongs to."""
    word = sentence.words[place]
    behind = 0 < word.head <= place and sentence.words[word.head - 1].upos in ("VERB", "AUX")
    return word.role if behind else None


def _content_words(sentences: Sequence[Sentence]) -> frozenset[str]:
    """Nouns, verbs and adjectives in the middle of the frequency list.

    Those that stand in 0.5 to 5 percent of the sentences, the most frequent ones: frequent
    enough to be learned, rare enough that most sentences hold one of them at most.
    """
    counts = Counter(lemma for sentence in sentences for lemma in set(_content(sentence)))
    n = len(sentences)
    middling = [lemma for lemma, count in counts.most_common() if 0.005 * n <= count <= 0.05 * n]
    return frozenset(middling[:CONTENT_WORDS])


def _only(sentence: Sentence, words: frozenset[str]) -> str | None:
    """The one of these words that a sentence holds; None if it holds none, or several."""
    held = [lemma for lemma in _content(sentence) if lemma in words]
    return held[0] if len(held) == 1 else None


def _content(sentence: Sentence) -> list[str]:
    """The lemmas of nouns, verbs and adjectives."""
    return [word.lemma for word in sentence.words if word.upos in ("NOUN", "VERB", "ADJ")]
