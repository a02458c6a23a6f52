"""Prompts as ids in one batch, padded on the left."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labkit.errors import EmptyPrompt


@dataclass(frozen=True)
class TokenBatch:
    """Prompts as ids, padded on the left, so that all last tokens share one column.

    Attributes:
        ids: Token ids; the pad id where `mask` is False.
        mask: True where there is a token, False where there is padding.
    """

    ids: Int[Tensor, "prompt pos"]
    mask: Bool[Tensor, "prompt pos"]

    @property
    def lengths(self) -> Int[Tensor, " prompt"]:
        """Number of tokens of each prompt, padding left out."""
        return self.mask.sum(dim=-1)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of prompts and of positions."""
        return self.ids.shape[0], self.ids.shape[1]

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on another device."""
        return TokenBatch(self.ids.to(device), self.mask.to(device))

    def rows(self, index: slice | Sequence[int] | Tensor) -> "TokenBatch":
        """Some of the prompts, columns that are padding in all of them left out."""
        ids, mask = self.ids[index], self.mask[index]
        first = int(mask.any(dim=0).int().argmax())
        return TokenBatch(ids[:, first:], mask[:, first:])


def pad_left(
    sequences: Sequence[Sequence[int]], *, pad_id: int, device: torch.device | str = "cpu"
) -> TokenBatch:
    """Sequences of different lengths as one batch, padded on the left.

    Raises:
        EmptyPrompt: If there is no sequence, or one is empty.
    """
    if not sequences or not all(sequences):
        raise EmptyPrompt("there is nothing to run: no prompt, or a prompt with no token")
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = torch.tensor(sequence)
        mask[row, width - len(sequence) :] = True
    return TokenBatch(ids.to(device), mask.to(device))


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that stands where there is no token; masked out, so any will do."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0
