"""A small language of the project's own: English sentences with gold annotation, drawn at will.

    training, test = language(400, part="train"), language(150, part="test")
    tasks = linguistic_tasks(training, test, source=SOURCE)

A generative grammar: a sentence is drawn as a tree of words, each with its part of speech,
features, relation to its head and, for nouns, its semantic role; reading the tree off from left
to right gives the text. The annotation follows Universal Dependencies, and sentences have the
type that `probes.sentences.treebank` reads.

A word's form alone answers little, by construction:

- "walks" is a noun or a verb, "clean" an adjective or a verb, "her" a pronoun or a determiner;
- "sheep" is one or several, "cut" present or past, "helped" first, second or third person, past
  or participle: the words in front of it decide;
- "the nurse" is agent, patient, recipient or the place where somebody waits: active and passive
  ("was helped by the nurse"), double objects ("gave the nurse a book", "gave a book to the
  nurse") and places ("waited by the nurse", "walked to the nurse") keep role apart from position
  and from the preposition.

What decides stands in front of the word (but for the roles of subjects), since models read from
left to right. What the language does not have: the frequencies, the topics and most of the
syntax of English. A number measured on it holds for it; a treebank gives the other.
"""

from labkit.errors import InputError
from probes.sentences.own_grammar import sentence
from probes.sentences.own_tree import Draw, Node
from probes.sentences.own_words import Part
from probes.sentences.treebank import Sentence, Word

SOURCE = "the project's own language"


def language(n: int = 400, *, part: Part = "all", seed: int = 0) -> list[Sentence]:
    """Sentences of the language, no two alike.

    Args:
        n: How many.
        part: Which words: those for training, those for testing, or all. Function words are
            in each.
        seed: Seed of the draw. Sentence by sentence: more of them begin with the same ones.

    Raises:
        InputError: If `n` is not positive, or the language does not have that many.
    """
    if n < 1:
        raise InputError(f"{n} sentences: ask for at least one")
    found: dict[str, Sentence] = {}
    for number in range(20 * n + 100):
        tree = sentence(Draw(seed, part, number))
        text, words = _read_off(tree)
        if text not in found:
            found[text] = Sentence(id=f"{part}-{seed}-{number}", text=text, words=words)
        if len(found) == n:
            return list(found.values())
    raise InputError(f"there are fewer than {n} sentences in the language: about {len(found)}")


def _read_off(root: Node) -> tuple[str, tuple[Word, ...]]:
    """A tree as text and words."""
    nodes = root.in_order()
    places = {id(node): place for place, node in enumerate(nodes, 1)}
    heads = {id(child): places[id(node)] for node in nodes for child in node.before + node.behind}
    text, words = "", []
    for node in nodes:
        form = node.form if text else node.form[0].upper() + node.form[1:]
        text += " " if text and node.upos != "PUNCT" else ""
        words.append(
            Word(
                form=form,
                lemma=node.lemma,
                upos=node.upos,
                xpos=node.xpos,
                feats=node.feats,
                head=heads.get(id(node), 0),
                deprel=node.deprel,
                span=(len(text), len(text) + len(form)),
                role=node.role,
            )
        )
        text += form
    return text, tuple(words)
