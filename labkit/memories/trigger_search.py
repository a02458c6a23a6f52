"""Look for the triggers of every neuron: in the cache, or in one pass over a corpus."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit import cache
from labkit.arguments import checked
from labkit.errors import EmptyPrompt, InputError
from labkit.memories.streaming import SKIPPED, STRETCH, Table, strongest
from labkit.memories.triggers import Triggers
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.results.measured import measured_on
from labkit.text.corpus import Corpus, corpus_of
from labkit.text.streams import USUAL, ReadingOptions, pieces

logger = logging.getLogger(__name__)

FORMAT = 2
K = 10


@checked
def find_triggers(
    model: LabModel,
    layers: Iterable[int] | None = None,
    corpus: Corpus | None = None,
    how: ReadingOptions = USUAL,
    *,
    k: int = K,
    progress: Progress | None = None,
) -> Triggers:
    """The strongest triggers of all neurons of some layers, cached or in one pass.

        find_triggers(model, [9]).to_frame()

    A pass that was interrupted goes on where it was, but for its last ten seconds.

    Args:
        model: The model.
        layers: Which layers; all by default.
        corpus: The text; by default the model's own (`labkit.text.corpus.corpus_of`).
        how: How much of it is read, all by default, and in texts of how many tokens.
        k: Triggers to keep of each neuron.
        progress: Called as the pass goes on.

    Raises:
        LayerOutOfRange: For a layer that the model does not have.
        InputError: If `k` or the window is out of range.
        EmptyPrompt: If no text of the corpus has two tokens.

    Shows:
        Which prefixes of a corpus excite every neuron most.

    Does not show:
        What a neuron does elsewhere: the ten strongest of some thousand tokens are the end of a
        long tail, and a small corpus knows few topics.

    References:
        Geva et al. 2021, Transformer Feed-Forward Layers Are Key-Value Memories, section 3.1.

    Differs from the paper: one trigger per stretch of 16 positions at most (neighbours would
    fill the places), and one per prefix where texts begin alike; the first position of a text
    counts for nothing (an attention sink); the stronger sign of a gated neuron; texts are
    pieces of documents, not sentences; k is 10, not 25. Positions whose activations are
    equal up to rounding may take each other's place when batches change.
    """
    min_tokens, window = how.min_tokens, how.window
    chosen = sorted(
        {model.layer(layer) for layer in (range(model.n_layers) if layers is None else layers)}
    )
    if not chosen or k < 1 or window <= SKIPPED:
        raise InputError(
            f"triggers need a layer, k of at least 1 (not {k}), and a window of at least "
            f"{SKIPPED + 1} tokens (not {window})"
        )
    if model.n_ctx is not None and window > model.n_ctx:
        raise InputError(f"a window of {window} tokens: {model.name} reads {model.n_ctx} at most")
    corpus = corpus_of(model, progress=progress) if corpus is None else corpus
    texts = pieces(model, corpus, min_tokens=min_tokens, window=window)
    if all(len(piece.ids) <= SKIPPED for piece in texts):
        raise EmptyPrompt(f"no text of the corpus ({corpus.source}) has {SKIPPED + 1} tokens")
    places = cache_files(model, chosen, corpus, k, min_tokens, window)
    tables, n_tokens = _read(places)
    missing = [layer for layer in chosen if layer not in tables]
    if missing:
        found, n_tokens = strongest(
            model, missing, corpus, how, k=k, progress=progress,
            unfinished=_unfinished(model, missing, corpus, how, k),
        )  # fmt: skip
        for layer, table in found.items():
            arrays = {name: torch.from_numpy(getattr(table, name).copy()) for name in _ARRAYS}
            cache.write(places[layer], arrays, {"n_tokens": n_tokens})
        tables |= found
        logger.info("triggers of layers %s in %d tokens (%s)", missing, n_tokens, corpus.source)
    config = {"k": k, "min_tokens": min_tokens, "window": window}
    return _assembled(model, chosen, corpus, tables, n_tokens, config)


def cache_files(
    model: LabModel,
    layers: Iterable[int],
    corpus: Corpus,
    k: int,
    min_tokens: int | None,
    window: int,
) -> dict[int, Path | None]:
    """Where triggers are cached, layer by layer: named by everything that they depend on."""
    layers = list(layers)
    shared = _asked(corpus, k, min_tokens, window)
    asked = [{"layer": layer, **shared} for layer in layers]
    return dict(zip(layers, cache.places(model, "triggers", FORMAT, asked), strict=True))


def _unfinished(
    model: LabModel,
    layers: Sequence[int],
    corpus: Corpus,
    how: ReadingOptions,
    k: int,
) -> Path | None:
    """Where a pass over several layers writes down what it has; its batches depend on memory."""
    asked = _asked(corpus, k, how.min_tokens, how.window)
    parts = {"layers": layers, "memory": how.memory, **asked}
    return cache.place(model, "triggers", FORMAT, parts)


def _asked(corpus: Corpus, k: int, min_tokens: int | None, window: int) -> dict[str, Any]:
    """What triggers depend on beside the model and the layer."""
    return {
        "corpus": corpus.digest,
        "k": k,
        "min_tokens": min_tokens,
        "window": window,
        "skipped": SKIPPED,
        "stretch": STRETCH,
    }


def _read(places: Mapping[int, Path | None]) -> tuple[dict[int, Table], int]:
    """The layers that are cached and sound, and the number of tokens behind them."""
    tables: dict[int, Table] = {}
    n_tokens = 0
    for layer, place in places.items():
        found = cache.read(place)
        if found is not None:
            tables[layer] = Table(*(found.tensors[name].numpy() for name in _ARRAYS))
            n_tokens = found.header["n_tokens"]
    return tables, n_tokens


_ARRAYS = ("activation", "piece", "pos")


def _assembled(
    model: LabModel,
    layers: Sequence[int],
    corpus: Corpus,
    tables: Mapping[int, Table],
    n_tokens: int,
    config: dict[str, Any],
) -> Triggers:
    """The tables with their texts: a second pass over the corpus, without the model."""
    activation, piece_index, pos = (
        np.stack([getattr(tables[layer], name) for layer in layers]) for name in _ARRAYS
    )
    wanted = np.unique(piece_index[piece_index >= 0])
    every = pieces(model, corpus, min_tokens=config["min_tokens"], window=config["window"])
    numbers = set(wanted.tolist())
    texts = [piece for piece in every if piece.index in numbers]
    ids = [[*text.ids, -1 if text.following is None else text.following] for text in texts]
    token_ids = np.array([token for text in ids for token in text], dtype=np.int32)
    return Triggers(
        layers=tuple(layers),
        activation=activation,
        text=np.where(piece_index >= 0, np.searchsorted(wanted, piece_index), -1).astype(np.int32),
        pos=pos,
        token_ids=token_ids,
        starts=np.cumsum([0, *map(len, ids)]),
        documents=np.array([text.document for text in texts], dtype=np.int64),
        offsets=np.array([text.start for text in texts], dtype=np.int64),
        vocabulary=spaced(model, [int(token) for token in np.unique(token_ids) if token >= 0]),
        n_tokens=n_tokens,
        corpus=corpus.source,
        corpus_digest=corpus.digest,
        **measured_on(model),
        config=config,
    )


def spaced(model: LabModel, ids: Iterable[int]) -> dict[int, str]:
    """Tokens as they read inside a text: some tokenizers write a token's space only there."""
    decode = model.tokenizer.decode
    word = model.tokenizer("the", add_special_tokens=False).input_ids[-1:]
    before = decode(word)

    def read(token: int) -> str:
        joined = decode([*word, token])
        return joined[len(before) :] if joined.startswith(before) else decode([token])

    return {token: read(token) for token in ids}
