"""The phrases of the project's own language: verbs that agree, nouns and their dependents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from probes.sentences import own_words as lexicon
from probes.sentences.own_tree import Draw, Node
from probes.sentences.own_words import Noun, Verb, part_of

T = TypeVar("T")
Number = Literal["Sing", "Plur"]
Tense = Literal["Past", "Pres"]

PRONOUNS: dict[str, tuple[str, Number]] = {
    "I": ("1", "Sing"), "we": ("1", "Plur"), "you": ("2", "Sing"), "he": ("3", "Sing"),
    "she": ("3", "Sing"), "they": ("3", "Plur"),
}  # fmt: skip
OBJECTS = {"I": "me", "we": "us", "you": "you", "he": "him", "she": "her", "they": "them"}
OWNERS = {"I": "my", "we": "our", "you": "your", "he": "his", "she": "her", "they": "their"}
BE: dict[tuple[str, Number, Tense], str] = {
    ("1", "Sing", "Pres"): "am", ("3", "Sing", "Pres"): "is", ("1", "Sing", "Past"): "was",
    ("3", "Sing", "Past"): "was",
}  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """What a finite verb takes from its subject and its time."""

    person: str
    number: Number
    tense: Tense

    @property
    def feats(self) -> dict[str, str | None]:
        """The features of the finite verb."""
        return {
            "Mood": "Ind", "Number": self.number, "Person": self.person, "Tense": self.tense,
            "VerbForm": "Fin",
        }  # fmt: skip

    @property
    def third_now(self) -> bool:
        """Whether the verb takes an -s."""
        return (self.person, self.number, self.tense) == ("3", "Sing", "Pres")


# --- verbs --------------------------------------------------------------------------------


def transitive_verb(draw: Draw) -> Verb:
    """A verb with an object."""
    lists = (lexicon.TRANSITIVE_VERBS,) * 3 + (lexicon.SAME_FORM_VERBS, lexicon.CLEANING_VERBS)
    return one(draw, draw.pick(lists))


def predicate(draw: Draw, verb: Verb, agreement: Agreement) -> Node:
    """A finite verb, or a bare one after "will" or "did not"."""
    if draw.chance(0.75):
        form = verb.past if agreement.tense == "Past" else verb.bare
        form = verb.third if agreement.third_now else form
        xpos = "VBD" if agreement.tense == "Past" else "VBZ" if agreement.third_now else "VBP"
        return Node(form, verb.bare, "VERB", xpos, "root", dict(agreement.feats))
    bare = Node(verb.bare, verb.bare, "VERB", "VB", "root", {"VerbForm": "Inf"})
    if agreement.tense == "Pres" and draw.chance(0.5):
        modal = draw.pick(("will", "can", "must"))
        bare.before = [Node(modal, modal, "AUX", "MD", "aux", {"VerbForm": "Fin"})]
        return bare
    past = agreement.tense == "Past"
    form = "did" if past else "does" if agreement.third_now else "do"
    xpos = "VBD" if past else "VBZ" if agreement.third_now else "VBP"
    bare.before = [
        Node(form, "do", "AUX", xpos, "aux", dict(agreement.feats)),
        Node("not", "not", "PART", "RB", "advmod"),
    ]
    return bare


def participle(verb: Verb, agreement: Agreement) -> Node:
    """A passive participle after a form of "be"."""
    feats: dict[str, str | None] = {"Tense": "Past", "VerbForm": "Part", "Voice": "Pass"}
    node = Node(verb.participle, verb.bare, "VERB", "VBN", "root", feats)
    node.before = [be(agreement, "aux:pass")]
    return node


def be(agreement: Agreement, deprel: str) -> Node:
    """The form of "be" for a subject: "you" takes the plural's."""
    number: Number = "Plur" if agreement.person == "2" else agreement.number
    now = agreement.tense == "Pres"
    form = BE.get((agreement.person, number, agreement.tense), "are" if now else "were")
    xpos = "VBD" if not now else "VBZ" if form == "is" else "VBP"
    return Node(form, "be", "AUX", xpos, deprel, dict(agreement.feats))


# --- nouns --------------------------------------------------------------------------------

PEOPLE = (lexicon.PEOPLE_NOUNS, lexicon.PEOPLE_NOUNS, lexicon.SHEEP)
THINGS = (lexicon.THING_NOUNS, lexicon.HANDLED_NOUNS, lexicon.EVENT_NOUNS, lexicon.PEOPLE_NOUNS)
PLACES = (lexicon.PLACE_NOUNS, lexicon.PLACE_NOUNS, lexicon.PEOPLE_NOUNS)


def subject_of(
    draw: Draw, tense: Tense, deprel: str, role: str | None, lists: Sequence[Sequence[Noun]]
) -> tuple[Node, Agreement]:
    """A subject, and what the verb takes from it."""
    if draw.chance(0.3):
        form = draw.pick(tuple(PRONOUNS))
        person, number = PRONOUNS[form]
        return _pronoun(form, form, deprel, "Nom"), Agreement(person, number, tense)
    if draw.chance(0.15):
        name = draw.pick(part_of(lexicon.NAMES_OF_PEOPLE, draw.part))
        node = Node(name, name, "PROPN", "NNP", deprel, {"Number": "Sing"}, role)
        return node, Agreement("3", "Sing", tense)
    noun = noun_phrase(draw, deprel, role, lists, modified=True)
    number = "Plur" if noun.feats["Number"] == "Plur" else "Sing"
    return noun, Agreement("3", number, tense)


def object_of(
    draw: Draw,
    deprel: str,
    role: str,
    lists: Sequence[Sequence[Noun]] | None = None,
    *,
    pronoun: float = 0.15,
) -> Node:
    """An object: a noun phrase or a pronoun."""
    if draw.chance(pronoun):
        lemma = draw.pick(tuple(PRONOUNS))
        return _pronoun(OBJECTS[lemma], lemma, deprel, "Acc")
    return noun_phrase(draw, deprel, role, lists or THINGS, modified=draw.chance(0.5))


def _pronoun(form: str, lemma: str, deprel: str, case: str) -> Node:
    person, number = PRONOUNS[lemma]
    feats = {"Case": case, "Number": number, "Person": person, "PronType": "Prs"}
    return Node(form, lemma, "PRON", "PRP", deprel, dict(feats))


def phrase(
    draw: Draw, word: str, deprel: str, role: str | None, lists: Sequence[Sequence[Noun]]
) -> Node:
    """A noun phrase after a preposition."""
    noun = noun_phrase(draw, deprel, role, lists)
    noun.before.insert(0, Node(word, word, "ADP", "IN", "case"))
    return noun


def place(draw: Draw, prepositions: Sequence[str]) -> Node:
    """Where something happens; now and then by, or to, a person."""
    word = draw.pick(prepositions)
    lists = (lexicon.PLACE_NOUNS,) if word == "in" else PLACES
    return phrase(draw, word, "obl", "location", lists)


def noun_phrase(
    draw: Draw,
    deprel: str,
    role: str | None,
    lists: Sequence[Sequence[Noun]],
    *,
    modified: bool = False,
) -> Node:
    """A noun with a determiner, perhaps with an adjective and something after it."""
    noun = one(draw, draw.pick(lists))
    number: Number = draw.pick(("Sing", "Plur"))
    form = noun.singular if number == "Sing" else noun.plural
    node = Node(
        form, noun.singular, "NOUN", "NN" if number == "Sing" else "NNS", deprel,
        {"Number": number}, role,
    )  # fmt: skip
    node.before.append(_determiner(draw, number, telling=noun.singular == noun.plural))
    if draw.chance(0.35):
        word = one(draw, lexicon.ADJECTIVES)
        node.before.append(Node(word, word, "ADJ", "JJ", "amod", {"Degree": "Pos"}))
    first = node.before[1].form if len(node.before) > 1 else form
    if node.before[0].form == "a" and first[0] in "aeiou":
        node.before[0].form = "an"
    if modified and draw.chance(0.2):
        node.behind.append(phrase(draw, draw.pick(("of", "near")), "nmod", None, PEOPLE))
    elif modified and noun.kind == "person" and draw.chance(0.2):
        node.behind.append(_relative(draw, number))
    return node


def _determiner(draw: Draw, number: Number, *, telling: bool) -> Node:
    """A determiner, a number or an owner; a telling one says how many there are."""
    if not telling and draw.chance(0.6):
        if draw.chance(0.75):
            return Node("the", "the", "DET", "DT", "det", {"Definite": "Def", "PronType": "Art"})
        lemma = draw.pick(tuple(PRONOUNS))
        feats: dict[str, str | None] = {"Person": PRONOUNS[lemma][0], "Poss": "Yes"}
        return Node(OWNERS[lemma], OWNERS[lemma], "PRON", "PRP$", "nmod:poss", feats)
    if number == "Plur" and draw.chance(0.4):
        word = draw.pick(("two", "three", "four"))
        return Node(word, word, "NUM", "CD", "nummod", {"NumForm": "Word", "NumType": "Card"})
    single, several = ("a", "this", "that", "every"), ("these", "those", "many", "several")
    word = draw.pick(single if number == "Sing" else several)
    if word in ("many", "several"):
        return Node(word, word, "ADJ", "JJ", "amod", {"Degree": "Pos"})
    lemma = {"these": "this", "those": "that"}.get(word, word)
    feats = {"Number": number} if word[:2] == "th" else {}
    return Node(word, lemma, "DET", "DT", "det", feats)


def _relative(draw: Draw, number: Number) -> Node:
    """As in "who helped the king", "that the king helped"."""
    tense: Tense = draw.pick(("Past", "Pres"))
    if draw.chance(0.5):
        verb = predicate(draw, transitive_verb(draw), Agreement("3", number, tense))
        verb.before.insert(0, Node("who", "who", "PRON", "WP", "nsubj", {"PronType": "Rel"}))
        verb.behind.append(noun_phrase(draw, "obj", "patient", THINGS))
    else:
        subject, agreement = subject_of(draw, tense, "nsubj", "agent", PEOPLE)
        verb = predicate(draw, transitive_verb(draw), agreement)
        that = Node("that", "that", "PRON", "WDT", "obj", {"PronType": "Rel"})
        verb.before = [that, subject, *verb.before]
    verb.deprel = "acl:relcl"
    return verb


def adverb(word: str) -> Node:
    """An adverb."""
    return Node(word, word, "ADV", "RB", "advmod")


def one(draw: Draw, words: Sequence[T]) -> T:
    """One of the words that are to be used here."""
    return draw.pick(part_of(words, draw.part))
