"""Syntax trees in the states of words: the structural probe at every depth, with its controls.

    found = probe_trees(model, sentences)
    found.best.uuas, found.chain        # arcs found, and by linking each word to the next
    found.figure()

A sentence's words are read after a BOS at their last token; punctuation, and words without a
token of their own, are left out of a sentence, the distances between the others kept. Sentences
are the units of the split and of every interval.

Controls: a chain, in which every word hangs on the word before it (its distances are the places
between words), and the same probe on a model of the same shape with random weights.

References:
    Hewitt and Manning (2019), A Structural Probe for Finding Syntax in Word Representations,
    sections 3 and 4.

Differs from the paper:
    Models that read from left to right, in which no word has seen what follows it; three
    thousand sentences by default, where the paper has forty thousand. (With 600 the probe finds
    three quarters of the arcs of its own sentences, and half of those of others.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from labkit.arguments import checked
from labkit.errors import EmptySplit
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.stats import Estimate, average, numpy_generator, paired_difference
from probes.probing.controls import random_twin
from probes.sentences.treebank import Sentence
from probes.states.alignment import Encoded, Span, encoded
from probes.states.features import Features, extract
from probes.states.selection import States
from probes.trees.configuration import USUAL, TreeProbing
from probes.trees.structural import StructuralProbe, arcs_found, rank_correlations, tree_distances

WORDS = range(5, 41)
"""Words of a sentence that is used: shorter ones have hardly a tree."""


@dataclass(frozen=True, kw_only=True)
class TreesAtDepth:
    """What one depth holds.

    Attributes:
        depth: Blocks passed through.
        uuas: Share of a sentence's arcs that are found, mean over sentences.
        correlation: Rank correlation of distances, mean over words, then over sentences.
        twin: Share of arcs found on the random-weight model; None if it was left out.
        above_chain: Share of arcs found less that of the chain, paired by sentence.
        p: Sign-flip p-value of that.
    """

    depth: int
    uuas: Estimate
    correlation: Estimate
    twin: Estimate | None
    above_chain: Estimate
    p: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TreesResult(Measured):
    """The structural probe by depth.

    Attributes:
        source: Where the sentences come from.
        n_train: Sentences that it was fitted to.
        n_test: Sentences that it was scored on.
        rank: Rank of the probe.
        chain: Share of arcs found by linking every word to the next.
        depths: What was found, by depth.
        seed: Seed of every draw.
    """

    source: str
    n_train: int
    n_test: int
    rank: int
    chain: Estimate
    depths: tuple[TreesAtDepth, ...]
    seed: int

    @property
    def title(self) -> str:
        """What was probed."""
        return (
            f"Trees in {self.model}: structural probe of rank {self.rank}, {self.source}, "
            f"{self.n_test} sentences"
        )

    @property
    def best(self) -> TreesAtDepth:
        """The depth with most arcs found, the lowest of several."""
        return max(self.depths, key=lambda at: at.uuas.mean)

    def to_frame(self) -> pd.DataFrame:
        """One row per depth and reading: share of arcs found as mean, low, high, n."""
        rows = []
        for at in self.depths:
            for reading, found in (("score", at.uuas), ("twin", at.twin), ("chain", self.chain)):
                if found is not None:
                    rows.append({"reading": reading, "depth": at.depth} | found.to_dict())
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """Share of arcs found by depth: the model, random weights, and the chain."""
        from labkit.plots import probe_curves

        return probe_curves(self.to_frame(), measure="arcs found (UUAS)", title=self.title)


@checked
def probe_trees(
    model: LabModel,
    sentences: Sequence[Sentence],
    how: TreeProbing = USUAL,
    *,
    test: Sequence[Sentence] | None = None,
    source: str = "a treebank",
    progress: Progress | None = None,
) -> TreesResult:
    """Fit and score one structural probe per depth.

    Args:
        model: The model.
        sentences: Sentences with their trees.
        how: Which probe, at which depths, on how many sentences: see `TreeProbing`.
        test: Sentences to score on; a third of the others by default. One that stands in both
            is left out of training.
        source: Where the sentences come from, in words.
        progress: Called as depths are done.

    Raises:
        InputError: If there is no such depth.
        EmptySplit: If no sentence of a side has 5 to 40 words, and an arc between two of them
            that have tokens of their own.

    Shows:
        At which depths a linear map finds the arcs of syntax trees, beyond the order of words and
        random weights.

    Does not show:
        That the model uses them; nor what a larger treebank would find: the probe's own sentences
        are known better than others.
    """
    how.states.depths_of(model)
    train, held_out = _sides(sentences, test, how)
    told = listener(progress)
    told("reading the states", 0.0)
    trees = _Trees.of(model, [*train, *held_out])
    n_fit = sum(number < len(train) for number in trees.numbers)
    if not 0 < n_fit < len(trees.numbers):
        raise EmptySplit(f"no sentence of a side has an arc that {model.name}'s tokens leave whole")
    states = trees.read(model, how.states)
    other = trees.read(random_twin(model, seed=how.seed), how.states) if how.controls else None
    probe = how.probe
    test_gold = trees.gold[n_fit:]
    chain = _found([_chain(gold) for gold in test_gold], test_gold)
    by_depth = []
    for place, depth in enumerate(states.depths):
        told(f"depth {depth}", 0.05 + 0.95 * place / len(states.depths))
        predicted = trees.predicted(probe, states, depth, n_fit)
        found = _found(predicted, test_gold)
        pairs = zip(predicted, test_gold, strict=True)
        correlation = np.array([rank_correlations(*pair).mean() for pair in pairs])
        above, p = paired_difference(found, chain, seed=how.seed)
        twin = None
        if other is not None:
            twin = _found(trees.predicted(probe, other, depth, n_fit), test_gold)
        by_depth.append(
            TreesAtDepth(
                depth=depth,
                uuas=average(found, within=(0.0, 1.0)),
                correlation=average(correlation, within=(-1.0, 1.0)),
                twin=None if twin is None else average(twin, within=(0.0, 1.0)),
                above_chain=above,
                p=p,
            )
        )
    return TreesResult(
        **measured_on(model),
        source=source,
        n_train=n_fit,
        n_test=len(trees.numbers) - n_fit,
        rank=min(probe.rank, model.d_model),
        chain=average(chain, within=(0.0, 1.0)),
        depths=tuple(by_depth),
        seed=how.seed,
    )


@dataclass(frozen=True, eq=False)
class _Trees:
    """Words to read, and the distances between them, sentence by sentence."""

    numbers: list[int]
    texts: list[Encoded]
    spans: list[list[Span]]
    gold: list[np.ndarray]

    @classmethod
    def of(cls, model: LabModel, sentences: Sequence[Sentence]) -> "_Trees":
        """The words of sentences that are no punctuation and have a token of their own.

        Sentences without an arc between two such words are left out; `numbers` are the others'.
        """
        known = encoded(model, [sentence.text for sentence in sentences])
        trees = cls([], [], [], [])
        for number, sentence in enumerate(sentences):
            kept = {
                place: word.span
                for place, word in enumerate(sentence.words)
                if word.upos != "PUNCT"
                and word.span is not None
                and known[number].has_token(*word.span)
            }
            distances = tree_distances([word.head - 1 for word in sentence.words])
            distances = distances[np.ix_(list(kept), list(kept))]
            if (distances == 1).any():
                trees.spans.append([(len(trees.texts), *span) for span in kept.values()])
                trees.numbers.append(number)
                trees.texts.append(known[number])
                trees.gold.append(distances)
        return trees

    def read(self, model: LabModel, how: States) -> Features:
        """The states of all words."""
        flat = [span for several in self.spans for span in several]
        return extract(model, self.texts, flat, how)

    def predicted(
        self, probe: StructuralProbe, states: Features, depth: int, n_train: int
    ) -> list[np.ndarray]:
        """The distances that a probe of the first sentences sees in each of the others."""
        ends = np.cumsum([len(several) for several in self.spans])
        of_sentence = np.split(states.at(depth), ends[:-1])
        fitted = clone(probe).fit(of_sentence[:n_train], self.gold[:n_train])
        return fitted.predict(of_sentence[n_train:])


def _sides(
    sentences: Sequence[Sentence],
    test: Sequence[Sentence] | None,
    how: TreeProbing,
) -> tuple[list[Sentence], list[Sentence]]:
    """Sentences to fit to and to score on, no text on both sides."""
    fit = {s.text: s for s in sentences if _content(s) in WORDS}
    score = {s.text: s for s in test or () if _content(s) in WORDS}
    if test is None:
        names = sorted(fit)
        order = numpy_generator(how.seed, "trees", len(names)).permutation(len(names))
        score = {names[number]: fit[names[number]] for number in order[: len(names) // 3]}
    fit = {text: sentence for text, sentence in fit.items() if text not in score}
    if not fit or not score:
        raise EmptySplit(
            f"{len(fit)} sentences to fit to and {len(score)} to score on have "
            f"{WORDS.start} to {WORDS.stop - 1} words"
        )
    sides = []
    for purpose, side, n in (("fit", fit, how.n_train), ("score", score, how.n_test)):
        names = sorted(side)
        order = numpy_generator(how.seed, "trees to", purpose, len(names)).permutation(len(names))
        sides.append([side[names[number]] for number in order[:n]])
    return sides[0], sides[1]


def _content(sentence: Sentence) -> int:
    """Words of a sentence without its punctuation."""
    return sum(word.upos != "PUNCT" for word in sentence.words)


def _chain(gold: np.ndarray) -> np.ndarray:
    """Distances in places."""
    places = np.arange(len(gold), dtype=float)
    return np.abs(places[:, None] - places[None])


def _found(distances: Sequence[np.ndarray], gold: Sequence[np.ndarray]) -> np.ndarray:
    """Of each sentence, the share of arcs that a spanning tree of some distances has."""
    return np.array([arcs_found(*pair).mean() for pair in zip(distances, gold, strict=True)])
