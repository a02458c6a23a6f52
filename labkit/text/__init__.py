"""Text and what is measured on it: corpora, pieces of them, second moments, minimal pairs.

`corpus_of(model)` is the text that statistics of a model are made on; `second_moments` are
`C = E[k k^T]` of its FFN keys; `minimal_pairs` are sentences of which one breaks a rule of grammar.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.text.acceptability import MinimalPair, minimal_pairs, prefers_good, read_blimp
    from labkit.text.corpus import Corpus, corpus_of, fact_prompts, held_out
    from labkit.text.moments import SecondMoment, second_moments
    from labkit.text.streams import Piece, ReadingOptions, batches, pieces

__getattr__, __dir__, __all__ = door(__name__, __file__)
