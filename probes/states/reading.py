"""One pass over texts that keeps the states of some words, of all layers that are asked for.

What follows a token cannot change it, and what is computed in a block cannot change an earlier
one. So each text is run once, up to the last of its tokens that is read, the blocks up to the
last that is read, and what many texts begin with once for all (`labkit.running.packing`). Of
each activation only the positions that are read outlive their batch.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.packing import Packed, packed
from labkit.running.states import n_blocks, taken_from
from probes.states.alignment import Encoded, Span, encoded
from probes.states.selection import Pieces


@dataclass(frozen=True)
class Reading:
    """What to read, computed and checked before anything is run.

    Attributes:
        rows: The texts to run, each as its tokens up to the last that is read.
        row: For every word, its text among `rows`.
        first: For every word, the first position that is read.
        stop: For every word, the position after the last that is read.
    """

    rows: list[tuple[int, ...]]
    row: Int[np.ndarray, " word"]
    first: Int[np.ndarray, " word"]
    stop: Int[np.ndarray, " word"]

    @classmethod
    def of(
        cls,
        model: LabModel,
        texts: Sequence[str] | Sequence[Encoded],
        spans: Sequence[Span],
        pieces: Pieces,
    ) -> "Reading":
        """Work out the positions of words; texts are tokenised where they are not yet.

        Raises:
            InputError: If a word is not there, or its text is too long.
            NotAligned: If a word has no token of its own.
        """
        written = [text if isinstance(text, str) else text.text for text in texts]
        for number, (text, start, stop) in enumerate(spans):
            if not 0 <= text < len(texts) or not 0 <= start < stop <= len(written[text]):
                raise InputError(f"there is no word at {(text, start, stop)} (span {number})")
        asked = list(dict.fromkeys(written[text] for text, _, _ in spans))
        before = {text.text: text for text in texts if isinstance(text, Encoded)}
        known = [before[text] for text in asked] if before else encoded(model, asked)
        place = {text: row for row, text in enumerate(asked)}
        row = np.array([place[written[text]] for text, _, _ in spans])
        at = [known[place[written[text]]].positions(start, stop) for text, start, stop in spans]
        first = np.array([span[-1] if pieces == "last" else span[0] for span in at])
        behind = np.array([span[0] + 1 if pieces == "first" else span[-1] + 1 for span in at])
        needed = np.zeros(len(asked), dtype=int)
        np.maximum.at(needed, row, behind)
        rows = [text.ids[:length] for text, length in zip(known, needed, strict=True)]
        return cls(rows, row, first, behind)

    @property
    def digest(self) -> str:
        """sha256 of tokens and positions: all that the states depend on besides the model."""
        whole = hashlib.sha256(json.dumps(self.rows).encode())
        for numbers in (self.row, self.first, self.stop):
            whole.update(numbers.astype(np.int64).tobytes())
        return whole.hexdigest()

    def run(
        self,
        model: LabModel,
        sites: Sequence[tuple[Site, int]],
        columns: Tensor | None,
        progress: Progress | None,
        values: Float[np.ndarray, "site word width"],
    ) -> None:
        """Run all texts, and write what is read into `values`.

        Args:
            model: The model.
            sites: What to read, site and layer.
            columns: Which columns of it; all by default.
            progress: Called as the pass goes on.
            values: Where to write it.

        Raises:
            InputError: If a state is not finite in the dtype of `values`.
        """
        words_of: dict[int, list[int]] = {}
        for word, row in enumerate(self.row.tolist()):
            words_of.setdefault(row, []).append(word)
        n_tokens, n_done = sum(map(len, self.rows)), 0
        first = np.full(len(self.rows), np.iinfo(int).max)
        np.minimum.at(first, self.row, self.first)
        for batch in packed(model, self.rows, first.tolist(), stop=n_blocks(sites)):
            some = batch.numbers
            words = np.array([word for row in some for word in words_of[row]])
            rows = torch.tensor([place for place, row in enumerate(some) for _ in words_of[row]])
            taken = _Taken.of(self, words, rows, batch, columns)
            read = taken_from(model, batch.run, sites, taken)
            for place, (site, layer) in enumerate(sites):
                with np.errstate(over="ignore"):  # an overflow is refused below
                    states = read[site, layer].numpy().astype(values.dtype, copy=False)
                if not np.isfinite(states).all():
                    raise InputError(
                        f"states of {model.name} ({site}, block {layer}) are not finite in "
                        f"{values.dtype}: keep them in float32, or load the model in a wider dtype"
                    )
                values[place, words] = states
            n_done += sum(len(self.rows[row]) for row in some)
            listener(progress)("reading states", n_done / n_tokens)


@dataclass(frozen=True)
class _Taken:
    """The part of an activation that is kept: some positions, in float32 on the CPU.

    Attributes:
        rows: Row of the batch, for every position that is read.
        positions: The positions.
        lengths: Number of positions of each word, where they are to be averaged.
        columns: Which columns; all by default.
    """

    rows: Int[Tensor, " read"]
    positions: Int[Tensor, " read"]
    lengths: Int[Tensor, " word"] | None
    columns: Tensor | None

    @classmethod
    def of(
        cls,
        reading: Reading,
        words: np.ndarray,
        rows: Tensor,
        batch: Packed,
        columns: Tensor | None,
    ) -> "_Taken":
        """The positions of some words, which stand in these rows of a batch."""
        first, stop = reading.first[words].tolist(), reading.stop[words].tolist()
        positions = torch.cat([torch.arange(*span) for span in zip(first, stop, strict=True)])
        lengths = torch.tensor(stop) - torch.tensor(first)
        rows = rows.repeat_interleave(lengths)
        positions = positions - torch.tensor(batch.frozen)[rows]
        return cls(rows, positions, None if bool((lengths == 1).all()) else lengths, columns)

    def __call__(self, tensor: Float[Tensor, "row pos width"]) -> Float[Tensor, "word columns"]:
        """The states of the words."""
        device = tensor.device
        read = tensor[self.rows.to(device), self.positions.to(device)]
        if self.columns is not None:
            read = read[:, self.columns.to(device)]
        read = read.float().cpu()
        return read if self.lengths is None else _means(read, self.lengths)


def _means(
    states: Float[Tensor, "read width"], lengths: Int[Tensor, " word"]
) -> Float[Tensor, "word width"]:
    """The mean of each word's positions."""
    return torch.segment_reduce(states, "mean", lengths=lengths)
