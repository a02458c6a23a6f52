"""One pass over a corpus that keeps, for every neuron, the k prefixes that excite it most.

Of each stretch of sixteen positions (about a sentence) a neuron keeps at most the strongest
one, so that neighbouring positions do not fill its places, and of texts that begin alike up
to that position only one. What is held is bounded by k and by the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt64
from torch import Tensor

from labkit import cache
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import patched
from labkit.running.execute import Execution
from labkit.text.corpus import Corpus
from labkit.text.streams import Piece, ReadingOptions, batches
from labkit.tokens import TokenBatch

SKIPPED = 1
"""Positions at the head of every text that are left out.

The first token is an attention sink: what neurons do there says nothing of the text
(Xiao et al. 2023; Sun et al. 2024, Massive Activations).
"""

STRETCH = 16
"""Of so many neighbouring positions, counted from the end of the text, one is kept at most."""

KEPT_EVERY = 10.0
"""Seconds after which a pass writes down what it has: so much is lost at most when it is ended."""

_TOGETHER = 32  # stretches compared at once: what the first of them keep spares the later
_BASE = np.uint64(0x9E3779B97F4A7C15)  # of the prefixes' hash: odd, all bits mixed


@dataclass(frozen=True, eq=False)
class Table:
    """The strongest prefixes of a layer's neurons, strongest first; 0 and -1 where empty.

    Attributes:
        activation: The key's entry, with its sign.
        piece: Index of the text.
        pos: Position in the text at which the neuron fires.
    """

    activation: Float[np.ndarray, "neuron place"]
    piece: Int[np.ndarray, "neuron place"]
    pos: Int[np.ndarray, "neuron place"]


class Best:
    """The k best candidates of every slot so far; a slot is a sign and a neuron."""

    def __init__(self, n_slots: int, k: int) -> None:
        self.value = np.zeros((n_slots, k))
        self.prefix = np.zeros((n_slots, k), dtype=np.uint64)
        self.piece = np.full((n_slots, k), -1, dtype=np.int32)
        self.pos = np.full((n_slots, k), -1, dtype=np.int32)

    @property
    def threshold(self) -> Float[np.ndarray, " slot"]:
        """The threshold for a candidate: the k-th best; 0 where there is room."""
        return self.value[:, -1]

    def offer(
        self,
        slot: Int[np.ndarray, " candidate"],
        value: Float[np.ndarray, " candidate"],
        prefix: UInt64[np.ndarray, " candidate"],
        piece: Int[np.ndarray, " candidate"],
        pos: Int[np.ndarray, " candidate"],
    ) -> None:
        """Take in candidates. The order in which they are offered does not matter.

        Ties are broken by the hash of the prefix, then by the number of the text.
        """
        touched = np.unique(slot)
        k = self.value.shape[1]
        slots = np.concatenate([np.repeat(touched, k), slot])
        columns = [
            np.concatenate([held[touched].ravel(), new])
            for held, new in zip(self._held, (value, prefix, piece, pos), strict=True)
        ]

        def take(order: np.ndarray) -> None:
            nonlocal slots, columns
            slots, columns = slots[order], [column[order] for column in columns]

        take(np.lexsort((columns[2], -columns[0], columns[1], slots)))
        alike = (slots[1:] == slots[:-1]) & (columns[1][1:] == columns[1][:-1])
        take(np.flatnonzero(~np.concatenate([[False], alike])))
        take(np.lexsort((columns[1], -columns[0], slots)))
        place = np.arange(len(slots)) - np.searchsorted(slots, slots)
        kept = (place < k) & (columns[0] > 0)
        for held, new, empty in zip(self._held, columns, (0, 0, -1, -1), strict=True):
            held[touched] = empty
            held[slots[kept], place[kept]] = new[kept]

    @property
    def _held(self) -> tuple[np.ndarray, ...]:
        return self.value, self.prefix, self.piece, self.pos

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All that is held, by names that begin with one."""
        value, prefix, piece, pos = self._held
        held = {"value": value, "prefix": prefix.view(np.int64), "piece": piece, "pos": pos}
        return {f"{name}.{part}": torch.from_numpy(array) for part, array in held.items()}

    def restore_(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Hold what `tensors` gave."""
        value, prefix, piece, pos = (
            tensors[f"{name}.{part}"].numpy().copy() for part in ("value", "prefix", "piece", "pos")
        )
        self.value, self.prefix, self.piece, self.pos = value, prefix.view(np.uint64), piece, pos

    def dominant(self, n_neurons: int) -> Table:
        """The candidates of each neuron's stronger sign: the one with the larger sum."""
        value, piece, pos = (
            held.reshape(2, n_neurons, -1) for held in (self.value, self.piece, self.pos)
        )
        negative = (value[1].sum(axis=1) > value[0].sum(axis=1))[:, None]
        return Table(
            np.where(negative, -value[1], value[0]),
            np.where(negative, piece[1], piece[0]),
            np.where(negative, pos[1], pos[0]),
        )


@torch.no_grad()
def strongest(
    model: LabModel,
    layers: Sequence[int],
    corpus: Corpus,
    how: ReadingOptions,
    *,
    k: int,
    unfinished: Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[int, Table], int]:
    """The strongest prefixes of every neuron of some layers, in one pass.

    The pass stops after the last of the layers and unembeds nothing. A batch is compared
    with what each neuron keeps; only what beats that is merged.

    Args:
        model: The model.
        layers: The layers.
        corpus: The text.
        how: How much of it to read, in what pieces and within what memory.
        k: Prefixes to keep of each neuron.
        unfinished: Where the pass writes down what it has every `KEPT_EVERY` seconds (a place of
            the cache, removed at the end), and from where an interrupted one goes on.
        progress: Called as the pass goes on.

    Returns:
        A table by layer, and the number of tokens read.
    """
    best = {layer: Best(2 * model.d_mlp, k) for layer in layers}
    done, n_tokens = _taken_up(best, unfinished)
    n_read = 0
    kept = monotonic()
    every = batches(model, corpus, min_tokens=how.min_tokens, window=how.window, memory=how.memory)
    for number, (some, batch) in enumerate(every):
        n_read = max(n_read, 1 + max(piece.document for piece in some))
        if number < done:
            continue
        prefixes = prefix_hashes(batch)

        looks: dict[tuple[Site, int], Callable[[Tensor], Tensor]] = {
            ("ffn_key", layer): partial(_look, best[layer], batch, some, prefixes)
            for layer in layers
        }
        run = Execution(model, batch)
        with patched(model, looks):
            run.forward(stop=max(layers) + 1)
        n_tokens += int(batch.mask.sum())
        share = n_read / len(corpus.documents)
        if how.min_tokens is not None:
            share = max(share, n_tokens / how.min_tokens)
        listener(progress)("looking for what excites each neuron", min(1.0, share))
        if monotonic() - kept >= KEPT_EVERY:
            tensors = {n: t for layer, b in best.items() for n, t in b.tensors(str(layer)).items()}
            cache.write(unfinished, tensors, {"batches": number + 1, "n_tokens": n_tokens})
            kept = monotonic()
    cache.forget(unfinished)
    return {layer: found.dominant(model.d_mlp) for layer, found in best.items()}, n_tokens


def _taken_up(best: Mapping[int, Best], unfinished: Path | None) -> tuple[int, int]:
    """Batches and tokens of an interrupted pass, whose finds are taken over; none: 0 and 0."""
    found = cache.read(unfinished)
    if found is None:
        return 0, 0
    for layer, each in best.items():
        each.restore_(str(layer), found.tensors)
    return found.header["batches"], found.header["n_tokens"]


def _look(
    best: Best,
    batch: TokenBatch,
    some: list[Piece],
    prefixes: UInt64[np.ndarray, "row pos"],
    key: Float[Tensor, "row pos d_mlp"],
) -> Float[Tensor, "row pos d_mlp"]:
    """Look at a batch's keys as they pass: offer what beats what is kept, change nothing."""
    if batch.shape[1] > SKIPPED:
        _compare(best, batch, some, prefixes, key)
    return key


def _compare(
    best: Best, batch: TokenBatch, some: list[Piece], prefixes: np.ndarray, key: Tensor
) -> None:
    """Offer the strongest position of every stretch, by sign, where it reaches the threshold."""
    seen = batch.mask.cumsum(dim=1) > SKIPPED
    if not bool(seen[:, SKIPPED:].all()):
        key = key.masked_fill(~seen[:, :, None], 0)
    high, low, column = _extremes(key[:, SKIPPED:])
    n_stretches = high.shape[1]
    value = rearrange([high, -low], "sign row stretch neuron -> (row stretch) (sign neuron)")
    column = rearrange(column, "sign row stretch neuron -> (row stretch) (sign neuron)") + SKIPPED
    padding = batch.shape[1] - batch.lengths.cpu().numpy()
    index = np.array([piece.index for piece in some], dtype=np.int32)
    for first in range(0, len(value), _TOGETHER):
        group = value[first : first + _TOGETHER]
        threshold = torch.from_numpy(best.threshold).to(group)
        at, slot = ((group >= threshold) & (group > 0)).nonzero(as_tuple=True)
        if len(at):
            chosen = group[at, slot].double().cpu().numpy()
            columns = column[first + at, slot].cpu().numpy()
            rows = (first + at.cpu().numpy()) // n_stretches
            pos = (columns - padding[rows]).astype(np.int32)
            best.offer(slot.cpu().numpy(), chosen, prefixes[rows, columns], index[rows], pos)


def _extremes(
    key: Float[Tensor, "row pos d_mlp"],
) -> tuple[
    Float[Tensor, "row stretch d_mlp"],
    Float[Tensor, "row stretch d_mlp"],
    Int[Tensor, "sign row stretch d_mlp"],
]:
    """Largest and smallest entry of every stretch, and the positions where they are.

    Stretches are counted from the last position, which all rows of a batch share, so that
    they do not depend on its padding. The first may be shorter.
    """
    rest = key.shape[1] % STRETCH
    parts = [(rest, key[:, rest:].unflatten(1, (-1, STRETCH)))] if key.shape[1] >= STRETCH else []
    if rest:
        parts.insert(0, (0, key[:, None, :rest]))
    highs, lows, columns = [], [], []
    for first, part in parts:
        high, low = part.max(dim=2), part.min(dim=2)
        starts = first + STRETCH * torch.arange(part.shape[1], device=key.device)
        highs.append(high.values)
        lows.append(low.values)
        columns.append(torch.stack([high.indices, low.indices]) + starts[:, None])
    return torch.cat(highs, dim=1), torch.cat(lows, dim=1), torch.cat(columns, dim=2)


def prefix_hashes(batch: TokenBatch) -> UInt64[np.ndarray, "prompt pos"]:
    """A 64-bit number for every prefix of every prompt, the same for the same tokens."""
    ids, mask = batch.ids.cpu().numpy().astype(np.uint64), batch.mask.cpu().numpy()
    hashes = np.zeros(ids.shape, dtype=np.uint64)
    running = np.zeros(len(ids), dtype=np.uint64)
    for column in range(ids.shape[1]):
        grown = (running ^ (running >> np.uint64(29))) * _BASE + ids[:, column] + np.uint64(1)
        running = np.where(mask[:, column], grown, running)
        hashes[:, column] = running
    return hashes
