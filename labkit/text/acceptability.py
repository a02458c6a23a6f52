"""Minimal pairs: two sentences that differ in a word or two, one of which breaks a rule.

A model that has the grammar of English finds the good sentence likelier than the bad one,
whatever it knows about the world; so an edit of a fact should leave that alone. The pairs
are drawn from the word lists of `labkit.text.grammar`: twelve phenomena, any number of pairs of
each. BLiMP's own files are read by `read_blimp`.

    pairs = minimal_pairs(20, seed=0)
    share = prefers_good(model, pairs).float().mean()        # chance is 1/2

What this does not show: that a model knows a rule. Pairs of one phenomenon share a handful
of frames, and a preference may come from how frequent a word is; that is why what counts is
the difference between two states of one model.

References:
    Warstadt et al. (2020), BLiMP: The Benchmark of Linguistic Minimal Pairs for English.

Differs from the paper:
    Sentences of our own, twelve phenomena of one or two frames each, against 67 paradigms.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jaxtyping import Bool, Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError, MalformedRecord
from labkit.fields import Record, records_of
from labkit.models.model import LabModel
from labkit.running.scoring import score_ids
from labkit.stats import numpy_generator
from labkit.text.grammar import PHENOMENA
from labkit.tokens import front_id, text_ids

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MinimalPair:
    """Two sentences, one of which is grammatical.

    BLiMP has a few pairs of the same sentence twice, which no model can win.

    Attributes:
        phenomenon: The rule that the bad sentence breaks.
        good: The grammatical sentence.
        bad: The other one.
        paradigm: The kind of pair within the phenomenon, where a collection tells.

    Raises:
        InputError: If a sentence is empty.
    """

    phenomenon: str
    good: str
    bad: str
    paradigm: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        if not self.good.strip() or not self.bad.strip():
            raise InputError(
                f"a minimal pair needs two sentences, not {self.good!r} and {self.bad!r}"
            )


def minimal_pairs(n: int = 20, *, seed: int = 0) -> list[MinimalPair]:
    """Pairs of every phenomenon, drawn from the word lists of `labkit.text.grammar`.

    Args:
        n: Pairs of each phenomenon, no two alike.
        seed: Seed of the draw; each phenomenon has its own generator.

    Raises:
        InputError: If `n` is not positive, or a phenomenon does not have that many.
    """
    if n < 1:
        raise InputError(f"{n} minimal pairs of each phenomenon: ask for at least one")
    return [pair for name in PHENOMENA for pair in _drawn(name, n, seed)]


def read_blimp(path: str | os.PathLike[str]) -> list[MinimalPair]:
    """Pairs of BLiMP: one JSONL file of a paradigm, or a folder of them.

    Raises:
        MissingFile: If the path cannot be read.
        MalformedRecord: If a record does not fit; with its line and field; or if a folder
            holds no JSONL file.
    """
    path = Path(path)
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise MalformedRecord(f"{path}: the folder holds no JSONL file")
    return [record.make(_blimp) for file in files for record in records_of(file)]


def sentence_log_probs(
    model: LabModel, sentences: Sequence[str], *, in_front: str = ""
) -> Float[Tensor, " sentence"]:
    """Log-probability of whole sentences, in nats: the sum over all their tokens.

    The first token is scored after the tokenizer's BOS (its end of text where it has none),
    or after `in_front`.

    Args:
        model: The model.
        sentences: The sentences.
        in_front: Text that the model reads first; it is not scored itself.

    Raises:
        EmptyPrompt: If a sentence has no token.
    """
    front = [front_id(model.tokenizer)]
    if in_front.strip():
        front += text_ids(model.tokenizer, in_front, prepend_bos=False)
    ids = [tuple(text_ids(model.tokenizer, text, prepend_bos=False)) for text in sentences]
    (scores,) = score_ids(model, [tuple(front)], [ids])
    return scores.log_prob


@checked
def prefers_good(
    model: LabModel, pairs: Sequence[MinimalPair], *, in_front: str = ""
) -> Bool[Tensor, " pair"]:
    """Whether a model finds the good sentence of each pair strictly likelier than the bad one.

    Args:
        model: The model.
        pairs: The pairs.
        in_front: Text that the model reads first, as in `sentence_log_probs`.
    """
    sentences = [sentence for pair in pairs for sentence in (pair.good, pair.bad)]
    scores = sentence_log_probs(model, sentences, in_front=in_front).view(-1, 2)
    return scores[:, 0] > scores[:, 1]


def spells(model: LabModel, pair: MinimalPair) -> bool:
    """Whether a model's vocabulary has every word of a pair (the pocket world's has not)."""
    unknown = model.tokenizer.unk_token_id
    return unknown is None or all(
        unknown not in text_ids(model.tokenizer, sentence, prepend_bos=False)
        for sentence in (pair.good, pair.bad)
    )


def _drawn(phenomenon: str, n: int, seed: int) -> list[MinimalPair]:
    """Pairs of one phenomenon, all different."""
    draw = numpy_generator(seed, "minimal pairs", phenomenon)

    def pick(options: Sequence[T]) -> T:
        return options[int(draw.integers(len(options)))]

    found: dict[tuple[str, str], None] = {}
    again = 0  # draws in a row of what had been drawn before
    while len(found) < n and again < 10 * len(found) + 500:
        pair = PHENOMENA[phenomenon](pick)
        again = again + 1 if pair in found else 0
        found[pair] = None
    if len(found) == n:
        return [MinimalPair(phenomenon=phenomenon, good=g, bad=b) for g, b in found]
    raise InputError(f"there are fewer than {n} minimal pairs of {phenomenon}: about {len(found)}")


def _blimp(record: Record) -> MinimalPair:
    """A line of BLiMP."""
    return MinimalPair(
        phenomenon=record.get("linguistics_term", str),
        good=record.get("sentence_good", str),
        bad=record.get("sentence_bad", str),
        paradigm=record.get("UID", str),
    )
