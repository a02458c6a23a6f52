"""The beginning of some prompts, run once and frozen: keys and values that later runs look at."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers.cache_utils import DynamicCache


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the first positions of some prompts, in every block: constants.

    Attributes:
        keys: By block, `[prompt, kv_head, pos, d_head]`.
        values: By block, the same shape.
        mask: True where there is a token, False where there is padding.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Bool[Tensor, "prompt pos"]

    @property
    def length(self) -> int:
        """Number of positions, padding included."""
        return self.mask.shape[1]

    def head(self, length: int) -> "Prefix":
        """The first `length` positions of it."""
        return Prefix(
            tuple(states[..., :length, :] for states in self.keys),
            tuple(states[..., :length, :] for states in self.values),
            self.mask[:, :length],
        )

    def row(self, row: int, start: int) -> "Prefix":
        """One prompt's positions from `start` on: without its padding."""
        return Prefix(
            tuple(states[row : row + 1, :, start:] for states in self.keys),
            tuple(states[row : row + 1, :, start:] for states in self.values),
            self.mask[row : row + 1, start:],
        )


class ConstantPrefix(DynamicCache):
    """A key-value cache that returns a prefix and stores nothing."""

    def __init__(self, prefix: Prefix, rows: Tensor | None) -> None:
        super().__init__()
        self._prefix, self._rows = prefix, rows

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        """Prefix and new states, joined; nothing is stored."""
        joined = []
        for frozen, new in (
            (self._prefix.keys[layer_idx], key_states),
            (self._prefix.values[layer_idx], value_states),
        ):
            if self._rows is not None:
                frozen = frozen[self._rows]
            joined.append(torch.cat([frozen.expand(new.shape[0], -1, -1, -1), new], dim=-2))
        return tuple(joined)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of positions of the prefix."""
        return self._prefix.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Number of keys behind which a mask is made, and where they begin."""
        return self._prefix.length + query_length, 0


class Recorded(DynamicCache):
    """A key-value cache that keeps what passes through, and adds nothing to it."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        """Keep the states, and pass them on."""
        self.states[layer_idx] = (key_states, value_states)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Zero: nothing stands before what is run."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """As many keys as queries, from the first position on."""
        return query_length, 0
