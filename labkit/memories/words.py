"""The content words of texts, with the token at which each of them ends.

A content word is a run of at least three letters that stands in at most a tenth of the
texts (and in two at least: a word of one text cannot be shared). So no list of stop words
in one language is needed. Upper and lower case are the same.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.text.corpus import Corpus
from labkit.text.streams import Piece

COMMON = 0.1
"""A word that stands in more than this share of the texts is no content word."""

_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, eq=False)
class ContentWords:
    """The content words of some texts.

    Attributes:
        word: Number of the word at each occurrence, text by text, in order.
        ends: Token at which the occurrence ends, counted in its text.
        starts: Where each text's occurrences begin, and where the last one's end.
        weight: How rare each word is: log(texts / texts with it).
    """

    word: Int[np.ndarray, " occurrence"]
    ends: Int[np.ndarray, " occurrence"]
    starts: Int[np.ndarray, " text_and_end"]
    weight: Float[np.ndarray, " word"]

    def of(
        self, text: Int[np.ndarray, " prefix"], pos: Int[np.ndarray, " prefix"], context: int
    ) -> sparse.csr_matrix:
        """The words of some prefixes as unit vectors, one row per prefix.

        Words that end in the `context` tokens before position `pos`, that one excluded;
        a word counts once, weighted by how rare it is.
        """
        columns: list[np.ndarray] = []
        for index, at in zip(text.tolist(), pos.tolist(), strict=True):
            occurrences = slice(self.starts[index], self.starts[index + 1])
            ends = self.ends[occurrences]
            within = (ends < at) & (ends >= at - context)
            columns.append(np.unique(self.word[occurrences][within]))
        indices = np.concatenate([np.zeros(0, dtype=int), *columns])
        rows = np.repeat(np.arange(len(columns)), [len(some) for some in columns])
        data = self.weight[indices]
        length = np.sqrt(np.bincount(rows, data**2, minlength=len(columns)))
        shape = (len(columns), len(self.weight))
        return sparse.csr_matrix((data / length[rows], (rows, indices)), shape=shape)


def content_words(model: LabModel, corpus: Corpus, texts: Sequence[Piece]) -> ContentWords:
    """Find the content words of some pieces of a corpus.

    Raises:
        InputError: If the tokenizer reports no character offsets.
    """
    if not model.tokenizer.is_fast:
        raise InputError("shared words need a fast tokenizer, which reports character offsets")
    found: list[list[tuple[str, int]]] = []
    document, words = -1, []
    for text in texts:
        if text.document != document:
            document, words = text.document, _words(model, corpus.documents[text.document])
        stop = text.start + len(text.ids)
        found.append([(w, at - text.start) for w, at in words if text.start <= at < stop])
    frequency = Counter(word for some in found for word in {word for word, _ in some})
    most = max(2.0, COMMON * len(texts))
    kept = sorted(word for word, n in frequency.items() if 2 <= n <= most)
    number = {word: index for index, word in enumerate(kept)}
    some = [[(number[word], at) for word, at in words if word in number] for words in found]
    flat = np.array([pair for words in some for pair in words], dtype=int).reshape(-1, 2)
    return ContentWords(
        word=flat[:, 0],
        ends=flat[:, 1],
        starts=np.cumsum([0, *map(len, some)]),
        weight=np.log(len(texts) / np.array([frequency[word] for word in kept], dtype=float)),
    )


def _words(model: LabModel, document: str) -> list[tuple[str, int]]:
    """The words of a document, each with the token at which it ends, BOS counted in."""
    encoding = model.tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
    stops = np.array([stop for _, stop in encoding["offset_mapping"]])
    matches = list(_WORD.finditer(document))
    at = np.searchsorted(stops, [match.end() for match in matches]) + int(model.prepend_bos)
    return [(match[0].casefold(), int(end)) for match, end in zip(matches, at, strict=True)]
