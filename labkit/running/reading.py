"""A model's reading of running text: log-likelihoods, and next-token distributions.

reading = read_text(model, texts)
reading.nll.mean().exp()                 # perplexity
reading.kl_to(read_text(edited, texts))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.metrics import kl_divergence, log_prob
from labkit.running.beginnings import Ids
from labkit.running.logits import MEMORY
from labkit.running.scoring import read_next

if TYPE_CHECKING:
    from labkit.models.model import LabModel

PIECE_TOKENS = 64
PIECE = f"piece of held-out text, {PIECE_TOKENS} tokens at most"
"""The unit of intervals on running text."""

KL_STRIDE = 4
"""Distributions over the vocabulary are kept at every fourth position of a piece."""


@dataclass(frozen=True)
class TextReading:
    """A model's reading of running text.

    Attributes:
        nll: Mean negative log-likelihood per token of each piece, in nats.
        logprobs: Next-token log-probabilities at every fourth position (`KL_STRIDE`).
        piece: The piece that each of those positions lies in.
    """

    nll: Float[Tensor, " piece"]
    logprobs: Float[Tensor, "pos vocab"]
    piece: tuple[int, ...]

    def kl_to(self, other: "TextReading") -> Float[Tensor, " piece"]:
        """KL(this || other) of the next token in nats, mean over each piece's positions.

        This is the reference: the unedited model's reading of the same text.
        """
        each = kl_divergence(self.logprobs, other.logprobs).double()
        own = torch.tensor(self.piece)
        return torch.stack([each[own == piece].mean() for piece in range(len(self.nll))])


@checked
@torch.no_grad()
def read_text(
    model: "LabModel",
    texts: Sequence[str],
    *,
    wording: Callable[[str], str] | None = None,
    window: int = PIECE_TOKENS,
    memory: int = MEMORY,
) -> TextReading:
    """Read running text, cut into pieces of at most `window` tokens.

    Args:
        model: The model, edited or not.
        texts: Running text.
        wording: How a prompt is put to the model. What that puts in front of a prompt stands
            in front of each piece, and is not scored: the same tokens count whatever it is.
        window: Length of a piece.
        memory: Bound on the activations held at once, in bytes.
    """
    fronts: dict[Ids, list[Ids]] = {}
    for text in texts:
        if text.strip():
            said = "" if wording is None else wording(text).removesuffix(text).rstrip()
            ids = tuple(model.ids(text))
            cut = (ids[i : i + window] for i in range(0, len(ids), window))
            behind = fronts.setdefault(tuple(model.ids(said)) if said else (), [])
            behind += (piece for piece in cut if len(piece) > 1)
    rows = [(front, piece) for front, pieces in fronts.items() for piece in pieces]
    # A piece's first token is not scored, and of the last no successor is known.
    positions = [range(len(front), len(front + piece) - 1) for front, piece in rows]
    nll = torch.zeros(len(rows), dtype=torch.float64)
    precision = torch.promote_types(model.dtype, torch.float32)
    kept: dict[tuple[int, int], Tensor] = {}
    whole = [front + piece for front, piece in rows]
    for read, logits in read_next(model, whole, positions, memory=memory):
        following = [whole[row][position + 1] for row, position in read]
        values = log_prob(logits, torch.tensor(following, device=logits.device)).double().tolist()
        for (row, _), value in zip(read, values, strict=True):
            nll[row] -= value / len(positions[row])
        places = [place for place, (row, position) in enumerate(read)
                  if position in _kept(positions[row])]  # fmt: skip
        if places:
            logprobs = logits[places].log_softmax(dim=-1).cpu()
            kept |= {read[place]: own for place, own in zip(places, logprobs, strict=True)}
    order = [(row, position) for row in range(len(rows)) for position in _kept(positions[row])]
    return TextReading(
        nll.to(precision),
        torch.stack([kept[place] for place in order]),
        tuple(row for row, _ in order),
    )


@checked
def text_nll(
    model: "LabModel",
    texts: Sequence[str],
    *,
    wording: Callable[[str], str] | None = None,
    window: int = PIECE_TOKENS,
    memory: int = MEMORY,
) -> Float[Tensor, " piece"]:
    """Mean negative log-likelihood per token of pieces of texts, in nats: see `read_text`."""
    return read_text(model, texts, wording=wording, window=window, memory=memory).nll


def _kept(positions: range) -> range:
    """Where the distributions of a piece are kept."""
    return positions[min(KL_STRIDE // 2, len(positions) - 1) :: KL_STRIDE]
