"""Word lists without overlap, frames that give nothing away, senses that the word cannot tell."""

from collections import Counter, defaultdict

import pytest

from labkit.errors import LeakingSplit
from probes.tasks.semantic import animacy, noun_category, word_sense
from probes.tasks.semantic_senses import SENSES
from probes.tasks.semantic_words import CATEGORIES, FRAMES
from probes.tasks.task import Task


def test_every_noun_has_one_category_and_every_category_enough_of_them():
    nouns = [noun for several in CATEGORIES.values() for noun in several.split()]
    assert len(nouns) == len(set(nouns))
    assert all(len(several.split()) >= 20 for several in CATEGORIES.values())


@pytest.mark.parametrize("make", [noun_category, animacy, word_sense])
def test_the_word_that_is_read_ends_its_text(make):
    task = make()
    for example in task.examples:
        text = task.texts[example.text]
        assert text[slice(*example.span)] == example.item and example.span[1] == len(text)
    assert len(set(task.texts)) == len(task.texts)
    split = task.split()
    counts = Counter(task.labels[split.train].tolist())
    assert min(counts.values()) >= 10


def test_nouns_are_split_by_lemma_and_a_split_noun_is_refused():
    task = noun_category()
    split = task.split()
    train = {task.examples[n].item for n in split.train}
    assert train and not train & {task.examples[n].item for n in split.test}
    with pytest.raises(LeakingSplit):
        Task(name="t", family="semantic", texts=task.texts, examples=task.examples, source="",
             held_out=(0,))  # fmt: skip


def test_the_openings_of_nouns_are_the_same_for_every_category():
    task = noun_category()
    seen = defaultdict(Counter)
    for example in task.examples:
        seen[task.texts[example.text][: example.span[0]]][example.label] += 1
    assert len(seen) == 4 and all(frame.endswith("{}") for frame in FRAMES)
    for counts in seen.values():
        assert counts == {name: len(nouns.split()) for name, nouns in CATEGORIES.items()}


def test_animacy_is_balanced_and_follows_the_categories():
    task = animacy()
    assert len(set(Counter(task.labels.tolist()).values())) == 1
    living = set(CATEGORIES["person"].split()) | set(CATEGORIES["animal"].split())
    assert all((e.item in living) == (e.label == "animate") for e in task.examples)
    others = {e.item for e in task.examples} - living
    shares = [len(others & set(CATEGORIES[name].split())) for name in list(CATEGORIES)[2:]]
    assert max(shares) - min(shares) <= 1


def test_a_word_alone_gives_half_of_its_senses_and_phrases_do_not_leak():
    task = word_sense()
    by_word = defaultdict(Counter)
    for example in task.examples:
        assert example.label.startswith(f"{example.item}: ")
        by_word[example.item][example.label] += 1
    assert all(len(c) == 2 and len(set(c.values())) == 1 for c in by_word.values())
    split = task.split()
    several = {phrase for senses in SENSES.values() for own in senses.values() for phrase in own}
    sides = [
        {
            phrase
            for phrase in several
            if any(f" {phrase} " in task.texts[task.examples[n].text] for n in side)
        }
        for side in (split.train, split.test)
    ]
    assert not sides[0] & sides[1] and len(sides[1]) * 2 == len(sides[0])
    assert set(task.groups.tolist()) == several
    for word, senses in SENSES.items():
        assert len(senses) == 2
        for several in senses.values():
            assert len(set(several)) == 6 and not any(word in phrase for phrase in several)
