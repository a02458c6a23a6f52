"""The language's gold labels hold by rules that its generator does not use."""

from collections import Counter, defaultdict

import pytest

from labkit.errors import InputError
from probes.sentences.own import language
from probes.sentences.own_words import TWO_LIVES
from probes.tasks.linguistic import linguistic_tasks

CLOSED = {"DET", "ADP", "PRON", "AUX", "PART", "NUM", "CCONJ", "SCONJ", "PUNCT", "ADV"}


@pytest.fixture(scope="module")
def sentences():
    return language(600)


def words_of(sentences):
    return [(s, place, word) for s in sentences for place, word in enumerate(s.words)]


def children(sentence, place, *deprels):
    return [w for w in sentence.words if w.head == place + 1 and w.deprel in deprels]


def test_the_same_seed_gives_the_same_sentences_and_no_two_are_alike(sentences):
    assert language(600) == sentences != language(600, seed=1)
    assert language(50) == sentences[:50]
    assert len({sentence.text for sentence in sentences}) == 600
    with pytest.raises(InputError):
        language(0)


def test_spans_spell_the_words_and_the_words_the_text(sentences):
    for sentence in sentences:
        assert [sentence.text[slice(*w.span)] for w in sentence.words] == [
            w.form for w in sentence.words
        ]
        joined = " ".join(word.form for word in sentence.words)
        assert joined.replace(" .", ".").replace(" ,", ",") == sentence.text


def test_verbs_agree_with_their_subjects(sentences):
    n = 0
    for sentence, place, word in words_of(sentences):
        if word.feats.get("VerbForm") != "Fin" or "Person" not in word.feats:
            continue
        at = place if word.upos == "VERB" else word.head - 1
        (subject,) = children(sentence, at, "nsubj", "nsubj:pass")
        if subject.form == "who":
            continue
        n += 1
        person = subject.feats.get("Person", "3") if subject.upos == "PRON" else "3"
        assert (word.feats["Person"], word.feats["Number"]) == (person, subject.feats["Number"])
        third = (person, subject.feats["Number"], word.feats["Tense"]) == ("3", "Sing", "Pres")
        if word.form.lower() not in ("is", "was", "does") and word.feats["Tense"] == "Pres":
            assert word.form.endswith("s") == third
    assert n > 500


def test_determiners_fit_the_number_of_their_noun(sentences):
    plural = {"two", "three", "four", "these", "those", "many", "several"}
    singular = {"a", "an", "this", "that", "every"}
    seen = Counter()
    for sentence, place, word in words_of(sentences):
        if word.upos != "NOUN":
            continue
        for child in children(sentence, place, "det", "nummod", "amod"):
            form = child.form.lower()
            if form in plural | singular:
                assert (form in plural) == (word.feats["Number"] == "Plur"), sentence.text
                seen[word.form == word.lemma and form in plural] += 1
            if form in ("a", "an"):
                behind = sentence.words[sentence.words.index(child) + 1].form
                assert (form == "an") == (behind[0] in "aeiou")
    assert min(seen.values()) > 20  # sheep, several of them, among others


def test_roles_follow_from_verb_voice_and_preposition(sentences):
    seen = Counter()
    for sentence, place, word in words_of(sentences):
        if word.role is None:
            continue
        verb, case = sentence.words[word.head - 1], children(sentence, place, "case")
        passive = bool(children(sentence, word.head - 1, "aux:pass"))
        objects = {w.deprel for w in sentence.words if w.head == word.head}
        form = case[0].form if case else None
        gift = verb.lemma in "offer hand show promise send give sell teach lend".split()
        expected = {
            "nsubj": "agent", "obl:agent": "agent", "iobj": "recipient",
            "obj": "theme" if gift else "patient",
            "nsubj:pass": "patient" if not gift else "recipient" if "obj" in objects else "theme",
            "obl": "recipient" if gift and form == "to" else "location",
        }[word.deprel]  # fmt: skip
        assert word.role == expected, sentence.text
        assert (word.deprel in ("obl:agent", "nsubj:pass")) <= passive
        seen[word.role, form] += 1
    for shared in (("agent", "by"), ("location", "by"), ("recipient", "to"), ("location", "to")):
        assert seen[shared] > 10


def test_an_adverb_of_time_tells_the_tense(sentences):
    n = 0
    for sentence in sentences:
        past = sentence.words[0].form in ("Once", "Recently", "Previously", "Formerly")
        if past or sentence.words[0].form in ("Now", "Often", "Usually", "Nowadays"):
            at = sentence.words[0].head
            own = [w for n, w in enumerate(sentence.words, 1) if n == at or w.head == at]
            tenses = {w.feats["Tense"] for w in own
                      if w.feats.get("VerbForm") == "Fin" and "Tense" in w.feats
                      and w.deprel in ("root", "aux", "aux:pass", "cop", "conj")
                      and (w.deprel != "conj")}  # fmt: skip
            assert tenses <= {"Past" if past else "Pres"}
            n += 1
    assert n > 150


def test_a_form_alone_does_not_solve_what_is_asked(sentences):
    tasks = linguistic_tasks(sentences, names=["role", "person", "head_distance", "deprel"])
    for name, bound in (("role", 0.75), ("person", 0.9), ("head_distance", 0.7), ("deprel", 0.85)):
        by_form = defaultdict(Counter)
        for example in tasks[name].examples:
            by_form[example.item][example.label] += 1
        right = sum(max(counts.values()) for counts in by_form.values())
        assert right / len(tasks[name]) < bound, name
    parts = defaultdict(set)
    for _, _, word in words_of(sentences):
        parts[word.form.lower()].add(word.upos)
    assert sum({"NOUN", "VERB"} <= parts[f"{word}s"] for word in TWO_LIVES) > 8
    assert {"ADJ", "VERB"} <= parts["clean"] and {"PRON", "DET"} & parts["her"]


def test_training_and_test_share_no_word_but_function_words():
    lemmas = [
        {w.lemma for _, _, w in words_of(language(300, part=part)) if w.upos not in CLOSED}
        for part in ("train", "test")
    ]
    assert lemmas[0] & lemmas[1] <= {"many", "several"}
    assert min(map(len, lemmas)) > 60
