"""Patterns: what a neuron's triggers have in common, on the surface and in meaning.

Geva et al. (2021, section 3.2) let experts read each neuron's triggers and write down the
patterns that at least three of them share, *shallow* ones (a last word or phrase) and
*semantic* ones (a topic). Here both are counted:

- shallow: at least three of the neuron's triggers, not all from one document, fire at the
  same token (or end in the same two). Space around a token and case do not count.
- semantic: the trigger shares more content words with the neuron's other triggers than 19
  of 20 random prefixes share with one another. Words that end in the last two tokens do
  not count (they are the shallow pattern), nor do pairs of triggers from one document. The
  measure is the mean cosine of the sets of content words, rare words weighing more.

The second is lexical: it sees a topic only where it is named in the same words, and takes
any kind of text (source code, a list) for a topic, as far as its words recur. It knows
nothing of synonyms. So it understates what a reader would call semantic.

Controls: for every trigger a random text of the same corpus, cut at the same position.
Everything is counted there as it is in the triggers; the threshold of the semantic measure
comes from a further, separate draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import sparse

from labkit.arguments import checked
from labkit.errors import FingerprintMismatch, InputError
from labkit.memories.triggers import Triggers
from labkit.memories.words import ContentWords, content_words
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.stats import Estimate, numpy_generator, share
from labkit.text.corpus import Corpus, corpus_of
from labkit.text.streams import Piece, pieces

MEASURES = (
    "last token",
    "last two tokens",
    "shared words",
    "shallow only",
    "shallow and semantic",
    "semantic only",
    "neither",
)
"""Shares of a neuron's triggers; the last four exclude each other and sum to one.

"shallow" is "last token" (which "last two tokens" is a part of), "semantic" is "shared words".
"""

SHARED_BY = 3
"""Triggers that have to share a token for it to be a pattern (the paper: 3)."""

CONTEXT = 64
"""Tokens before the firing one whose words count."""

LAST = 2
"""Tokens at the end whose words do not."""

QUANTILE = 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Patterns(Measured):
    """Which share of each neuron's triggers have a pattern in common.

    Attributes:
        layers: The layers, in the order of the axis.
        shares: By measure (`MEASURES`), 0..1; NaN for a neuron that never fired.
        control: The same of random prefixes, as many and as long.
        threshold: By layer, the mean cosine above which a trigger counts as semantic.
        k: Triggers of a neuron at most.
        corpus: Where the triggers are from.
        seed: Seed of the random prefixes.
    """

    layers: tuple[int, ...]
    shares: Float[np.ndarray, "measure layer neuron"]
    control: Float[np.ndarray, "measure layer neuron"]
    threshold: Float[np.ndarray, " layer"]
    k: int
    corpus: str
    seed: int

    @property
    def title(self) -> str:
        """Where surface patterns are commonest, and where shared words are."""
        peaks = {
            measure: self.layers[int(np.nanmean(self.shares[MEASURES.index(measure)], 1).argmax())]
            for measure in ("last token", "shared words")
        }
        return (
            f"Triggers of {self.model}: the same last token most in layer {peaks['last token']}, "
            f"shared words most in layer {peaks['shared words']}"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per layer, measure and source ("triggers", "control"): mean, low, high, n.

        The mean over the layer's neurons with its 95 % interval (Student's t over neurons).
        """
        rows = []
        for source, values in (("triggers", self.shares), ("control", self.control)):
            for measure, by_layer in zip(MEASURES, values, strict=True):
                for layer, shares in zip(self.layers, by_layer, strict=True):
                    estimate = _over_neurons(shares[np.isfinite(shares)])
                    row = {"layer": layer, "measure": measure, "source": source}
                    rows.append(row | estimate.to_dict())
        return pd.DataFrame(rows)

    def of(self, layer: int, neuron: int) -> dict[str, float]:
        """One neuron's shares, by measure."""
        row = self.layers.index(layer)
        return dict(zip(MEASURES, self.shares[:, row, neuron].tolist(), strict=True))

    def figure(self) -> Any:
        """The shares by layer, shallow and semantic, beside those of the control."""
        from labkit.plots import patterns_curves

        return patterns_curves(self.to_frame(), title=self.title)


@checked
def patterns(
    model: LabModel,
    triggers: Triggers,
    corpus: Corpus | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Patterns:
    """Count the patterns that the triggers of every neuron share.

        patterns(model, find_triggers(model)).figure()

    Args:
        model: The model.
        triggers: From `find_triggers`.
        corpus: The corpus that they are from; by default the model's own.
        seed: Seed of the random prefixes.
        progress: Called layer by layer.

    Raises:
        FingerprintMismatch: If the triggers are those of another model or corpus.
        InputError: If neurons have fewer than three places for triggers, or the tokenizer
            reports no character offsets.

    Shows:
        Which share of a neuron's triggers have a last token, or content words, in common, against
        random prefixes.

    Does not show:
        What a reader would call their topic: it sees words that recur, and knows nothing of
        synonyms.

    References:
        Geva et al. 2021, sections 3.2 and 3.3, figure 2.

    Differs from the paper: see the module's docstring; patterns are counted, not read.
    """
    if not model.is_own(triggers.fingerprint):
        raise FingerprintMismatch(f"these triggers are of {triggers.model}, not {model.name}")
    k = triggers.activation.shape[-1]
    if k < SHARED_BY:
        raise InputError(f"{k} triggers of each neuron: a pattern needs at least {SHARED_BY}")
    corpus = corpus_of(model) if corpus is None else corpus
    if corpus.digest != triggers.corpus_digest:
        raise FingerprintMismatch(f"these triggers are from another corpus ({triggers.corpus})")
    cut = triggers.config
    texts = list(pieces(model, corpus, min_tokens=cut["min_tokens"], window=cut["window"]))
    read = _Reader(model, texts, content_words(model, corpus, texts))
    at = {(text.document, text.start): text.index for text in texts}
    places = zip(triggers.documents.tolist(), triggers.offsets.tolist(), strict=True)
    index_of = np.array([at[place] for place in places], dtype=int)

    n_layers, n_neurons, _ = triggers.activation.shape
    shares = np.full((len(MEASURES), n_layers, n_neurons), np.nan)
    control, threshold = shares.copy(), np.zeros(n_layers)
    for row, layer in enumerate(triggers.layers):
        known, pos = triggers.text[row] >= 0, triggers.pos[row]
        text = np.where(known, index_of[triggers.text[row]], -1)
        first, second = (
            read.random(known, pos, numpy_generator(seed, what, layer))
            for what in ("threshold", "control")
        )
        common = read.overlap(first, pos)[known]
        threshold[row] = np.quantile(common, QUANTILE) if len(common) else 0.0
        shares[:, row] = read.shares(text, pos, threshold[row])
        control[:, row] = read.shares(second, pos, threshold[row])
        listener(progress)("counting what triggers share", (row + 1) / n_layers)
    return Patterns(
        layers=triggers.layers,
        shares=shares,
        control=control,
        threshold=threshold,
        k=k,
        corpus=triggers.corpus,
        seed=seed,
        **measured_on(model),
    )


class _Reader:
    """Prefixes of the texts of a corpus, compared; a text of -1 is an empty place."""

    def __init__(self, model: LabModel, texts: Sequence[Piece], words: ContentWords) -> None:
        self.words = words
        self.documents = np.array([text.document for text in texts])
        self.lengths = np.array([len(text.ids) for text in texts])
        self.starts = np.cumsum([0, *self.lengths])
        ids = np.concatenate([text.ids for text in texts])
        # Tokens that read the same, but for case and the space around them, get one number.
        names = {t: model.tokenizer.decode([t]).strip().casefold() for t in set(ids.tolist())}
        numbers = {name: number for number, name in enumerate(sorted(set(names.values())))}
        self.tokens = np.array([numbers[names[t]] for t in ids.tolist()])
        self.by_length = np.argsort(self.lengths, kind="stable")

    def random(
        self,
        known: Bool[np.ndarray, "neuron place"],
        pos: Int[np.ndarray, "neuron place"],
        draw: np.random.Generator,
    ) -> Int[np.ndarray, "neuron place"]:
        """For every trigger a random text that is long enough to be cut where it is."""
        shorter = np.searchsorted(self.lengths[self.by_length], pos, side="right")
        room = len(self.by_length) - shorter
        chosen = shorter + np.floor(draw.random(pos.shape) * np.maximum(room, 1)).astype(int)
        return np.where(known, self.by_length[chosen.clip(0, len(self.by_length) - 1)], -1)

    def shares(
        self,
        text: Int[np.ndarray, "neuron place"],
        pos: Int[np.ndarray, "neuron place"],
        threshold: float,
    ) -> Float[np.ndarray, "measure neuron"]:
        """Shares of each neuron's prefixes, by measure; NaN where there are none."""
        known = text >= 0
        last = np.where(known, self.tokens[self.starts[text] + pos], -1)
        before = np.where(known & (pos > 0), self.tokens[self.starts[text] + pos - 1], -1)
        pair = np.where(before >= 0, last * (self.tokens.max() + 2) + before, -1)
        document = self.documents[text]
        one, two = _shared(last, document), _shared(pair, document)
        meant = known & (self.overlap(text, pos) > threshold)
        kinds = np.stack(
            [one, two, meant, one & ~meant, one & meant, meant & ~one, known & ~one & ~meant]
        )
        n = known.sum(axis=-1)
        return np.where(n > 0, kinds.sum(axis=-1) / np.maximum(n, 1), np.nan)

    def overlap(
        self, text: Int[np.ndarray, "neuron place"], pos: Int[np.ndarray, "neuron place"]
    ) -> Float[np.ndarray, "neuron place"]:
        """Mean cosine of a prefix's words with those of the neuron's others.

        Only others from other documents count; 0 where there are none.
        """
        neuron, place = np.nonzero(text >= 0)
        prefix = text[neuron, place]
        words = self.words.of(prefix, pos[neuron, place] - LAST + 1, CONTEXT)
        # All of the neuron's, less those of the same document (the prefix itself among them).
        document = self.documents[prefix]
        same = np.unique(np.stack([neuron, document]), axis=1, return_inverse=True)[1].ravel()
        sums, counts = zip(*(_grouped(words, group) for group in (neuron, same)), strict=True)
        common = np.asarray(words.multiply(sums[0] - sums[1]).sum(axis=1)).ravel()
        overlap = np.zeros(text.shape)
        overlap[neuron, place] = common / np.maximum(counts[0] - counts[1], 1)
        return overlap


def _grouped(
    words: sparse.csr_matrix, group: Int[np.ndarray, " prefix"]
) -> tuple[sparse.csr_matrix, Int[np.ndarray, " prefix"]]:
    """For every row the sum of its group's rows, and their number."""
    rows = np.arange(len(group))
    member = sparse.csr_matrix((np.ones(len(group)), (group, rows)))
    return (member @ words)[group], np.bincount(group)[group]


def _shared(
    token: Int[np.ndarray, "neuron place"], document: Int[np.ndarray, "neuron place"]
) -> Bool[np.ndarray, "neuron place"]:
    """Where a token is that of at least three of the neuron's prefixes; -1 is none."""
    alike = token[:, :, None] == token[:, None, :]
    elsewhere = (alike & (document[:, :, None] != document[:, None, :])).any(axis=-1)
    return (alike.sum(axis=-1) >= SHARED_BY) & elsewhere & (token >= 0)


def _over_neurons(values: Float[np.ndarray, " neuron"]) -> Estimate:
    """Mean share with its interval; NaN without neurons."""
    return share(values) if len(values) else Estimate.exact(float("nan"), 0)
