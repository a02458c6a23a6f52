"""What a model gives to targets, writes after prompts, and makes of running text.

Forward runs and nothing else: what they are good for is in `editing.readings.asking`. Prompts
that begin alike (the same statement in front of each) share the run of their beginning, prompts
of about one length go through together, and only what is read is unembedded.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from editing.edits.effect import Wording, as_it_is
from labkit.metrics import is_argmax, kl_divergence, log_prob
from labkit.models.model import LabModel
from labkit.running.execute import MEMORY, Execution, freeze, read_logits, rows_within
from labkit.tokens import TokenBatch, target_ids

PIECE_TOKENS = 64
PIECE = f"piece of held-out text, {PIECE_TOKENS} tokens at most"
"""The unit of intervals on running text."""
KL_STRIDE = 4
"""Distributions over the vocabulary are kept at every fourth position of a piece."""

_HEAD = 8  # tokens that prompts must have in common for a run of their own
_ALIKE = 4  # prompts that must have them
_TOKENS = 512  # tokens from which on a run only takes prompts of nearly the same length
_ROWS = 64  # prompts continued together

Row = tuple[int, ...]


@torch.no_grad()
def score(
    model: LabModel, pairs: Sequence[tuple[str, str]], *, memory: int = MEMORY
) -> tuple[Float[Tensor, " pair"], Bool[Tensor, " pair"]]:
    """How a model takes targets as continuations of prompts.

    Args:
        model: The model.
        pairs: Prompts and targets.
        memory: Bound on the activations held at once, in bytes.

    Returns:
        The mean negative log-likelihood of each target's tokens in nats, as CounterFact's
        authors compare them, and whether every one of them is the argmax.

    Raises:
        EmptyPrompt, EmptyTarget: For a pair that cannot be scored.
    """
    nll = torch.zeros(len(pairs))
    argmax = torch.ones(len(pairs), dtype=torch.bool)
    targets = [target_ids(model.tokenizer, prompt, target) for prompt, target in pairs]
    # Targets of one token share the row of their prompt: it is run once for all of them.
    of_row: dict[Row, list[int]] = {}
    for number, ((prompt, _), target) in enumerate(zip(pairs, targets, strict=True)):
        of_row.setdefault(tuple(model.ids(prompt) + target[:-1]), []).append(number)
    read_from = {
        row: len(row) - max(len(targets[number]) for number in numbers)
        for row, numbers in of_row.items()
    }
    for rows, first, resid in _runs(model, read_from, memory):
        reads = [
            (index, number, offset)
            for index, row in enumerate(rows)
            for number in of_row[row]
            for offset in range(len(targets[number]))
        ]
        columns = [
            len(rows[index]) - len(targets[number]) + offset - first
            for index, number, offset in reads
        ]
        picked = resid[[index for index, _, _ in reads], columns][:, None]
        logits = read_logits(model, picked)[:, 0]
        token = torch.tensor(
            [targets[number][offset] for _, number, offset in reads], device=logits.device
        )
        for (_, number, _), value, top in zip(
            reads, log_prob(logits, token).tolist(), is_argmax(logits, token).tolist(), strict=True
        ):
            nll[number] -= value / len(targets[number])
            argmax[number] &= top
    return nll, argmax


@torch.no_grad()
def next_logprobs(
    model: LabModel, prompts: Sequence[str], *, memory: int = MEMORY
) -> Float[Tensor, "prompt vocab"]:
    """Log-probabilities of what follows each prompt, float32 at least, on the CPU."""
    numbers: dict[Row, list[int]] = {}
    for number, prompt in enumerate(prompts):
        numbers.setdefault(tuple(model.ids(prompt)), []).append(number)
    found: list[Tensor] = [torch.empty(0)] * len(prompts)
    for rows, first, resid in _runs(model, {row: len(row) - 1 for row in numbers}, memory):
        last = [len(row) - 1 - first for row in rows]
        logits = read_logits(model, resid[range(len(rows)), last][:, None])[:, 0]
        for row, logprobs in zip(rows, _log_softmax(logits), strict=True):
            for number in numbers[row]:
                found[number] = logprobs
    return torch.stack(found)


def _runs(
    model: LabModel, read_from: Mapping[Row, int], memory: int
) -> Iterator[tuple[list[Row], int, Float[Tensor, "row pos d_model"]]]:
    """Run rows of tokens to the end of the last block, each once, in batches.

    Rows are filled up on the right, with tokens that nothing reads: what follows a position
    cannot change it.

    Args:
        model: The model.
        read_from: Rows, and the first position of each that is read.
        memory: Bound on activations, in bytes.

    Yields:
        Some rows, the position that their run starts at, and the stream that leaves it.
    """
    for group, length in _groups(read_from):
        head = None
        if length:
            head = freeze(model, model.pad([group[0][:length]]), length=length)
        for batch in _batches(model, group, memory):
            yield batch, length, Execution(model, _filled(model, batch), head).forward()


def _groups(read_from: Mapping[Row, int]) -> list[tuple[list[Row], int]]:
    """Rows by how they begin, with the number of unread tokens that a group has in common.

    Those that share no beginning worth a run of its own are one group, with none.
    """

    def common(rows: Sequence[Row]) -> int:
        first, last = min(rows), max(rows)  # in lexical order: all others lie between
        alike = (a == b for a, b in zip(first, last, strict=False))
        return min(sum(takewhile(bool, alike)), *(read_from[row] for row in rows))

    rows = sorted(read_from)
    if len(rows) > 1 and (length := common(rows)) >= _HEAD:
        return [(rows, length)]
    groups: list[list[Row]] = []
    for row in rows:
        if groups and common([groups[-1][0], row]) >= _HEAD:
            groups[-1].append(row)
        else:
            groups.append([row])
    found = [(group, common(group)) for group in groups if len(group) >= _ALIKE]
    rest = [row for group in groups if len(group) < _ALIKE for row in group]
    return [*found, (rest, 0)] if rest else found


def _batches(model: LabModel, rows: Sequence[Row], memory: int) -> Iterator[list[Row]]:
    """Rows by length, cut where memory ends, or where filling up would cost more than a run."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: (len(row), row)):
        full = len(batch) >= rows_within(model, len(row), memory)
        uneven = batch and len(batch) * len(row) > _TOKENS and len(row) > 1.1 * len(batch[0])
        if full or uneven:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def generate(model: LabModel, prompts: Sequence[str], n_tokens: int) -> list[str]:
    """Greedy continuations of some prompts, the prompts themselves left out."""
    unique = sorted(dict.fromkeys(prompts), key=lambda prompt: (len(model.ids(prompt)), prompt))
    texts: dict[str, str] = {}
    for start in range(0, len(unique), _ROWS):
        some = unique[start : start + _ROWS]
        batch = model.tokens(some)
        out = model.hf.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            max_new_tokens=n_tokens,
            do_sample=False,
            pad_token_id=model.pad_id,
        )
        said = model.tokenizer.batch_decode(out[:, batch.shape[1] :], skip_special_tokens=True)
        texts |= dict(zip(some, said, strict=True))
    return [texts[prompt] for prompt in prompts]


@dataclass(frozen=True)
class TextReading:
    """What a model makes of running text.

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


@torch.no_grad()
def read_text(
    model: LabModel,
    texts: Sequence[str],
    *,
    wording: Wording = as_it_is,
    window: int = PIECE_TOKENS,
    memory: int = MEMORY,
) -> TextReading:
    """Read running text, cut into pieces of at most `window` tokens.

    Args:
        model: The model, edited or not.
        texts: Running text.
        wording: What stands in front of a prompt stands in front of each piece, and is not
            scored: the same tokens count under every wording.
        window: Length of a piece.
        memory: Bound on the activations held at once, in bytes.
    """
    fronts: dict[Row, list[Row]] = {}
    for text in texts:
        if text.strip():
            said = wording(text).removesuffix(text).rstrip()
            ids = tuple(model.ids(text))
            cut = (ids[i : i + window] for i in range(0, len(ids), window))
            behind = fronts.setdefault(tuple(model.ids(said)) if said else (), [])
            behind += (piece for piece in cut if len(piece) > 1)
    nll: list[Tensor] = []
    kept: list[Tensor] = []
    owner: list[int] = []
    for front, pieces in fronts.items():
        head = freeze(model, model.pad([front]), length=len(front)) if front else None
        at_once = max(1, min(rows_within(model, window + len(front), memory), 8))
        for first in range(0, len(pieces), at_once):
            some = pieces[first : first + at_once]
            batch = _filled(model, [front + piece for piece in some])
            logits = read_logits(model, Execution(model, batch, head).forward()[:, :-1])
            scored = log_prob(logits, batch.ids[:, len(front) + 1 :])
            for row, piece in enumerate(some):
                n_scored = len(piece) - 1
                places = list(range(min(KL_STRIDE // 2, n_scored - 1), n_scored, KL_STRIDE))
                owner += [len(nll)] * len(places)
                nll.append(-scored[row, :n_scored].mean())
                kept.append(_log_softmax(logits[row, places]))
    return TextReading(torch.stack(nll).cpu(), torch.cat(kept), tuple(owner))


def text_nll(
    model: LabModel,
    texts: Sequence[str],
    *,
    wording: Wording = as_it_is,
    window: int = PIECE_TOKENS,
    memory: int = MEMORY,
) -> Float[Tensor, " piece"]:
    """Mean negative log-likelihood per token of pieces of texts, in nats: see `read_text`."""
    return read_text(model, texts, wording=wording, window=window, memory=memory).nll


def _filled(model: LabModel, rows: Sequence[Row]) -> TokenBatch:
    """Rows of one length: filled up on the right with tokens that nothing reads."""
    fill, width = model.pad_id, max(map(len, rows))
    return model.pad([[*row, *[fill] * (width - len(row))] for row in rows])


def _log_softmax(logits: Tensor) -> Tensor:
    precise = torch.promote_types(logits.dtype, torch.float32)
    return logits.log_softmax(-1, dtype=precise).cpu()
