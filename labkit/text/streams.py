"""A corpus as a stream: documents cut into pieces, pieces gathered into batches.

What is held at once is bounded by the window and the number of rows of a batch, whatever
the size of the corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.running.logits import MEMORY, rows_within
from labkit.running.packing import TOKENS, filled, packs
from labkit.text.corpus import Corpus
from labkit.tokens import TokenBatch

ROWS = 32
"""Rows of a batch at most."""

LOOKAHEAD = 16
"""Batches' worth of pieces that are sorted by length together, so that little is padded."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How much of a corpus is read, and in what pieces.

        find_triggers(model, [3], corpus, ReadingOptions(min_tokens=50_000, window=128))

    Attributes:
        min_tokens: Reading stops after the document that brings so many tokens, 1 or more. By
            default what the function says: all of the corpus, or enough for its purpose.
        window: Documents are cut into pieces of at most so many tokens; by default 256.
        memory: Bound on the activations of a forward run over one batch, in bytes.

    Raises:
        InputError: If there is nothing to read.
    """

    min_tokens: int | None = None
    window: int = 256
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse to read nothing."""
        if self.window < 1 or (self.min_tokens is not None and self.min_tokens < 1):
            raise InputError(
                f"min_tokens {self.min_tokens}, window {self.window}: a corpus is read "
                "in pieces of one token at least, and at least one token of it"
            )


USUAL = ReadingOptions()
"""In pieces of 256 tokens."""


@dataclass(frozen=True)
class Piece:
    """A run of a document's tokens, read as a text of its own.

    Attributes:
        index: Number of the piece, in the order of the corpus.
        document: Which document it is from.
        start: Its first token's position in the document (BOS counted in).
        ids: The tokens.
        following: The document's next token after the piece; None at the document's end.
    """

    index: int
    document: int
    start: int
    ids: list[int]
    following: int | None


@checked
def pieces(
    model: LabModel, corpus: Corpus, *, min_tokens: int | None = None, window: int = 256
) -> Iterator[Piece]:
    """The documents, in order, in pieces of at most `window` tokens.

    Args:
        model: Whose tokenizer and BOS setting to use.
        corpus: The text; documents without any are passed over.
        min_tokens: Stop after the document that brings so many tokens; by default at the end.
        window: Longest piece, in tokens.
    """
    total = index = 0
    for number, document in enumerate(corpus.documents):
        if not document.strip():
            continue
        ids = model.ids(document)
        for start in range(0, len(ids), window):
            stop = start + window
            following = ids[stop] if stop < len(ids) else None
            yield Piece(index, number, start, ids[start:stop], following)
            index += 1
        total += len(ids)
        if min_tokens is not None and total >= min_tokens:
            return


@checked
def batches(
    model: LabModel,
    corpus: Corpus,
    *,
    min_tokens: int | None = None,
    window: int = 256,
    memory: int = MEMORY,
) -> Iterator[tuple[list[Piece], TokenBatch]]:
    """The pieces in batches, alike in length, each with its tokens padded on the left.

    Args:
        model: The model.
        corpus: The text.
        min_tokens: Stop after the document that brings so many tokens; by default at the end.
        window: Longest piece, in tokens.
        memory: Bound on the activations of a forward run over one batch, in bytes.
    """
    at_once = min(ROWS, rows_within(model, window, memory))
    waiting: list[Piece] = []

    def sorted_batches() -> Iterator[tuple[list[Piece], TokenBatch]]:
        waiting.sort(key=lambda piece: len(piece.ids))
        for first in range(0, len(waiting), at_once):
            some = waiting[first : first + at_once]
            yield some, model.pad([piece.ids for piece in some])
        waiting.clear()

    for piece in pieces(model, corpus, min_tokens=min_tokens, window=window):
        waiting.append(piece)
        if len(waiting) == LOOKAHEAD * at_once:
            yield from sorted_batches()
    yield from sorted_batches()


def packed(
    model: LabModel,
    corpus: Corpus,
    *,
    min_tokens: int | None = None,
    window: int = 256,
    memory: int = MEMORY,
) -> Iterator[TokenBatch]:
    """The pieces in batches of nearly equal lengths, padded on the *right*.

    For readings at every token. What follows a position cannot change it, so such a batch may
    be run without a mask, which spares attention the half that lies in the future.

    Args:
        model: The model.
        corpus: The text.
        min_tokens: Stop after the document that brings so many tokens; by default at the end.
        window: Longest piece, in tokens.
        memory: Bound on the activations of a forward run over one batch, in bytes.
    """
    waiting: list[list[int]] = []
    n_waiting = 0

    def sorted_batches() -> Iterator[TokenBatch]:
        for numbers in packs([len(row) for row in waiting], model, memory):
            yield filled(model, [waiting[number] for number in numbers])
        waiting.clear()

    for piece in pieces(model, corpus, min_tokens=min_tokens, window=window):
        waiting.append(piece.ids)
        n_waiting += len(piece.ids)
        if n_waiting >= 2 * LOOKAHEAD * TOKENS:
            yield from sorted_batches()
            n_waiting = 0
    yield from sorted_batches()
