"""Tasks in the pocket model's own world, whose every sentence is known.

| task | family | label | read at | group |
|---|---|---|---|---|
| position | surface | number of words before it | words of sentences | sentence |
| word_length | surface | number of its characters | words of sentences | sentence |
| word_category | lexical | what a name is one of: city, river, last name... | the word | word |
| sentence_part | syntactic | subject, object or neither | words of sentences | sentence |
| subject_type | semantic | person, landmark, city... | a prompt's last token | template |
| relation | semantic | which of the 14 relations is asked for | a prompt's last token | template |
| profession, instrument | factual | the object | a prompt's last token | subject |
| truth | factual | whether a sentence is true | its full stop | subject |

Names are one token each with nothing inside: what a probe finds in one is what training has put
there. `word_category` is split by word, `relation` and `subject_type` by template (the world's
two held-out templates of each relation are the test), facts by subject. A bag of tokens cannot
do the facts (each name is shared by others) nor a word that it has not seen.
"""

from collections.abc import Iterator, Sequence

from labkit import pocket
from labkit.facts.fact import Fact
from labkit.pocket.names import invented_names
from labkit.pocket.templates import MATERIALS, N_COMMON, PRODUCTS, PROFESSIONS
from labkit.stats import numpy_generator
from probes.tasks.factual import truth
from probes.tasks.task import Example, Family, Label, Task

SOURCE = "the pocket world"
SENTENCES = 160
"""Sentences whose words are asked about."""


def pocket_tasks(*, seed: int = 0) -> dict[str, Task]:
    """The tasks of the table, by name.

    Args:
        seed: Seed of what is drawn: sentences, subjects of the prompts, false statements.
    """
    tasks = (
        _of_words("position", "surface", seed),
        _of_words("word_length", "surface", seed),
        _word_category(seed),
        _of_words("sentence_part", "syntactic", seed),
        _of_prompts("subject_type", seed),
        _of_prompts("relation", seed),
        _of_facts("profession", "person_profession"),
        _of_facts("instrument", "person_instrument"),
        truth(pocket.facts(), source=SOURCE, seed=seed),
    )
    return {task.name: task for task in tasks}


def _of_words(name: str, family: Family, seed: int) -> Task:
    """A task about the words of some true sentences."""
    pairs = pocket.training_pairs()
    drawn = numpy_generator(seed, "pocket sentences", name).permutation(len(pairs))[:SENTENCES]
    texts: list[str] = []
    examples: list[Example] = []
    for number in drawn.tolist():
        fact, text = pairs[number].fact, pairs[number].sentence
        subject = text.index(fact.subject)
        parts = {
            "subject": range(subject, subject + len(fact.subject)),
            "object": range(len(pairs[number].prompt) + 1, len(text) - 1),
        }
        for place, (start, word) in enumerate(_words(text)):
            part = next((part for part, inside in parts.items() if start in inside), "neither")
            labels: dict[str, Label] = {
                "position": float(place), "word_length": float(len(word)), "sentence_part": part
            }  # fmt: skip
            examples.append(
                Example(
                    text=len(texts), span=(start, start + len(word)), label=labels[name],
                    group=text, item=word,
                )
            )  # fmt: skip
        texts.append(text)
    return Task(
        name=name, family=family, texts=tuple(texts), examples=tuple(examples), source=SOURCE,
        numeric=name != "sentence_part",
    )  # fmt: skip


def _words(text: str) -> Iterator[tuple[int, str]]:
    """The words of a sentence, its full stop left out, each with where it begins."""
    at = 0
    for word in text.removesuffix(".").split(" "):
        yield at, word
        at += len(word) + 1


def _word_category(seed: int, *, n_texts: int = 4) -> Task:
    """The category of a name, in some sentences each; nouns of the world beside them."""
    names: dict[str, Sequence[str]] = dict(invented_names())
    names |= {"profession": PROFESSIONS, "product": PRODUCTS, "material": MATERIALS}
    category = {word: name for name, words in names.items() for word in words}
    found: dict[str, list[tuple[str, int]]] = {word: [] for word in category}
    sentences = pocket.sentences()
    for number in numpy_generator(seed, "pocket words").permutation(len(sentences)).tolist():
        for start, word in _words(sentences[number]):
            if word in found and len(found[word]) < n_texts:
                found[word].append((sentences[number], start))
    rows = [(word, text, start) for word, several in found.items() for text, start in several]
    return Task(
        name="word_category", family="lexical", source=SOURCE,
        texts=tuple(text for _, text, _ in rows),
        examples=tuple(
            Example(
                text=number, span=(start, start + len(word)), label=category[word], group=word,
                item=word,
            )
            for number, (word, _, start) in enumerate(rows)
        ),
    )  # fmt: skip


def _of_prompts(name: str, seed: int, *, n_subjects: int = 12) -> Task:
    """The relation or subject type of a prompt: unseen wordings are held out."""
    about: dict[str, list[Fact]] = {}
    for fact in pocket.facts():
        about.setdefault(str(fact.relation), []).append(fact)
    texts: list[str] = []
    examples: list[Example] = []
    held_out: list[int] = []
    for relation in pocket.relations():
        for place, template in enumerate(relation.templates):
            facts = about[relation.id]
            draw = numpy_generator(seed, "pocket prompts", template).permutation(len(facts))
            for number in draw[:n_subjects].tolist():
                text = template.replace("{}", facts[number].subject)
                last = text.rindex(" ") + 1
                if place >= N_COMMON:
                    held_out.append(len(texts))
                label = relation.id if name == "relation" else relation.subject_type
                examples.append(
                    Example(
                        text=len(texts), span=(last, len(text)), label=label, group=template,
                        item=text[last:],
                    )
                )  # fmt: skip
                texts.append(text)
    return Task(
        name=name, family="semantic", texts=tuple(texts), examples=tuple(examples), source=SOURCE,
        held_out=tuple(held_out),
    )  # fmt: skip


def _of_facts(name: str, relation: str) -> Task:
    """The object of a relation, read at the end of its prompts; subjects are split."""
    facts = [fact for fact in pocket.facts() if fact.relation == relation]
    texts = [
        (fact, template.replace("{}", fact.subject))
        for fact in facts
        for template in (fact.template, *fact.paraphrases)[:N_COMMON]
    ]
    return Task(
        name=name, family="factual", source=SOURCE, texts=tuple(text for _, text in texts),
        examples=tuple(
            Example(
                text=number, span=(text.rindex(" ") + 1, len(text)), label=str(fact.object),
                group=fact.subject, item=fact.subject,
            )
            for number, (fact, text) in enumerate(texts)
        ),
    )  # fmt: skip
