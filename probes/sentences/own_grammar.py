"""The clauses of the project's own language, from which sentences are drawn."""

from probes.sentences import own_words as lexicon
from probes.sentences.own_phrases import (
    PEOPLE,
    THINGS,
    Tense,
    adverb,
    be,
    noun_phrase,
    object_of,
    one,
    participle,
    phrase,
    place,
    predicate,
    subject_of,
    transitive_verb,
)
from probes.sentences.own_tree import Draw, Node


def sentence(draw: Draw) -> Node:
    """One sentence."""
    root = main_clause(draw)
    root.deprel = "root"
    if draw.chance(0.15):
        root.behind += [_joined(draw)]
    root.behind.append(Node(".", ".", "PUNCT", ".", "punct"))
    return root


def main_clause(draw: Draw) -> Node:
    """A clause, perhaps with an adverb of time or another clause in front."""
    tense: Tense = draw.pick(("Past", "Pres"))
    clause = _clause(draw, tense)
    if draw.chance(0.45):
        adverbs = lexicon.PAST_ADVERBS if tense == "Past" else lexicon.PRESENT_ADVERBS
        clause.before.insert(0, adverb(draw.pick(adverbs)))
    elif draw.chance(0.2):
        other = _clause(draw, tense)
        other.deprel = "advcl"
        other.before.insert(0, Node("when", "when", "ADV", "WRB", "advmod"))
        other.behind.append(Node(",", ",", "PUNCT", ",", "punct"))
        clause.before.insert(0, other)
    return clause


def _joined(draw: Draw) -> Node:
    """A second clause, after "and" or "but"."""
    clause = _clause(draw, draw.pick(("Past", "Pres")))
    clause.deprel = "conj"
    word = draw.pick(("and", "but"))
    clause.before.insert(0, Node(word, word, "CCONJ", "CC", "cc"))
    return clause


def _clause(draw: Draw, tense: Tense) -> Node:
    """A clause of one of the kinds."""
    kinds = (
        _intransitive, _intransitive, _transitive, _transitive, _transitive, _passive, _passive,
        _double_object, _dative, _passive_gift, _copular, _saying,
    )  # fmt: skip
    return draw.pick(kinds)(draw, tense)


# --- clauses ------------------------------------------------------------------------------


def _intransitive(draw: Draw, tense: Tense) -> Node:
    subject, agreement = subject_of(draw, tense, "nsubj", "agent", PEOPLE)
    verb = predicate(draw, one(draw, lexicon.INTRANSITIVE_VERBS), agreement)
    verb.before.insert(0, subject)
    if draw.chance(0.4):
        verb.behind.append(adverb(draw.pick(lexicon.MANNER_ADVERBS)))
    if draw.chance(0.75):
        verb.behind.append(place(draw, ("in", "near", "by", "to", "behind")))
    return verb


def _transitive(draw: Draw, tense: Tense) -> Node:
    subject, agreement = subject_of(draw, tense, "nsubj", "agent", PEOPLE)
    verb = predicate(draw, transitive_verb(draw), agreement)
    verb.before.insert(0, subject)
    verb.behind.append(object_of(draw, "obj", "patient"))
    if draw.chance(0.35):
        verb.behind.append(place(draw, ("in", "near", "by", "behind")))
    return verb


def _passive(draw: Draw, tense: Tense) -> Node:
    subject, agreement = subject_of(draw, tense, "nsubj:pass", "patient", THINGS)
    verb = participle(transitive_verb(draw), agreement)
    verb.before.insert(0, subject)
    if draw.chance(0.3):
        verb.behind.append(place(draw, ("in", "near", "by", "behind")))
    else:
        verb.behind.append(phrase(draw, "by", "obl:agent", "agent", PEOPLE))
    return verb


def _double_object(draw: Draw, tense: Tense) -> Node:
    subject, agreement = subject_of(draw, tense, "nsubj", "agent", PEOPLE)
    verb = predicate(draw, one(draw, lexicon.GIVING_VERBS), agreement)
    verb.before.insert(0, subject)
    verb.behind.append(object_of(draw, "iobj", "recipient", (lexicon.PEOPLE_NOUNS,), pronoun=0.3))
    verb.behind.append(noun_phrase(draw, "obj", "theme", THINGS))
    return verb


def _dative(draw: Draw, tense: Tense) -> Node:
    subject, agreement = subject_of(draw, tense, "nsubj", "agent", PEOPLE)
    verb = predicate(draw, one(draw, lexicon.GIVING_VERBS), agreement)
    verb.before.insert(0, subject)
    verb.behind.append(noun_phrase(draw, "obj", "theme", THINGS))
    verb.behind.append(phrase(draw, "to", "obl", "recipient", PEOPLE))
    return verb


def _passive_gift(draw: Draw, tense: Tense) -> Node:
    """As in "The nurse was given a book (by the king)", "The book was given to the nurse"."""
    give = one(draw, lexicon.GIVING_VERBS)
    if draw.chance(0.5):
        subject, agreement = subject_of(draw, tense, "nsubj:pass", "recipient", PEOPLE)
        verb = participle(give, agreement)
        verb.behind.append(noun_phrase(draw, "obj", "theme", THINGS))
    else:
        subject, agreement = subject_of(draw, tense, "nsubj:pass", "theme", THINGS)
        verb = participle(give, agreement)
        verb.behind.append(phrase(draw, "to", "obl", "recipient", PEOPLE))
    verb.before.insert(0, subject)
    if draw.chance(0.4):
        verb.behind.append(phrase(draw, "by", "obl:agent", "agent", PEOPLE))
    return verb


def _copular(draw: Draw, tense: Tense) -> Node:
    subject, agreement = subject_of(draw, tense, "nsubj", None, (*PEOPLE, *THINGS))
    word = one(draw, lexicon.ADJECTIVES)
    adjective = Node(word, word, "ADJ", "JJ", "root", {"Degree": "Pos"})
    adjective.before = [subject, be(agreement, "cop")]
    if draw.chance(0.3):
        adjective.before.append(Node("very", "very", "ADV", "RB", "advmod"))
    return adjective


def _saying(draw: Draw, tense: Tense) -> Node:
    subject, agreement = subject_of(draw, tense, "nsubj", "agent", PEOPLE)
    verb = predicate(draw, one(draw, lexicon.SAYING_VERBS), agreement)
    verb.before.insert(0, subject)
    inner = draw.pick((_intransitive, _transitive, _passive, _copular))(draw, tense)
    inner.deprel = "ccomp"
    if draw.chance(0.7):
        inner.before.insert(0, Node("that", "that", "SCONJ", "IN", "mark"))
    verb.behind.append(inner)
    return verb
