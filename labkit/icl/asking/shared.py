"""Beginnings that many prompts share: which there are, run once, and set side by side.

Everything here works on token ids. A *beginning* is what all prompts of a group start with; a
*host* is a beginning that is run for itself, and for every other that is a part of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from jaxtyping import Int
from torch import Tensor

from labkit.models.model import LabModel
from labkit.running.execute import Prefix, freeze, rows_within
from labkit.tokens import TokenBatch

Ids = tuple[int, ...]

ALONE = 4
"""Rows from which on a set of demonstrations is run by itself, its keys copied for none."""


@dataclass(frozen=True)
class Row:
    """What is run of one prompt behind its frozen beginning: the rest, and a label's tokens."""

    group: int
    place: int
    rest: Ids
    leaf: Ids

    @property
    def ids(self) -> Ids:
        """Both, in order."""
        return (*self.rest, *self.leaf)


def shared_ids(prompts: Sequence[Ids]) -> Ids:
    """What all prompts begin with, short of the last token of each."""
    first, last = min(prompts), max(prompts)  # what these two share, all do
    common = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(token for token, _ in common)[: min(map(len, prompts)) - 1]


def hosts_of(shared: Sequence[Ids]) -> dict[Ids, list[int]]:
    """The beginnings that must be run, each with the groups that it, or a part of it, serves."""
    hosts: dict[Ids, list[int]] = {}
    waiting: list[int] = []
    order = sorted(range(len(shared)), key=lambda number: shared[number])
    for place, number in enumerate(order):
        waiting.append(number)
        following = shared[order[place + 1]] if place + 1 < len(order) else None
        if following is None or following[: len(shared[number])] != shared[number]:
            hosts[shared[number]] = waiting
            waiting = []
    return hosts


def batches_of(
    model: LabModel, hosts: dict[Ids, list[int]], memory: int
) -> Iterator[dict[Ids, list[int]]]:
    """Hosts of similar length together, as many as memory allows."""
    order = sorted(hosts, key=len)
    a_position = 2 * model.n_layers * model.n_heads * model.d_head * model.dtype.itemsize
    while order:
        longest = max(1, len(order[-1]))
        fit = min(rows_within(model, longest, memory), max(1, memory // (longest * a_position)))
        some, order = order[-fit:], order[:-fit]
        yield {host: hosts[host] for host in some}


def freeze_together(model: LabModel, beginnings: Sequence[Ids]) -> list[Prefix | None]:
    """Keys and values of some beginnings, run together; None for an empty one."""
    full = [ids for ids in beginnings if ids]
    if not full:
        return [None] * len(beginnings)
    batch = model.pad(full)
    together = freeze(model, batch, length=batch.shape[1])
    rows = iter(range(len(full)))
    return [_row(together, next(rows), len(ids)) if ids else None for ids in beginnings]


def _row(prefix: Prefix, row: int, length: int) -> Prefix:
    """One row of a frozen batch, without its padding."""
    first = prefix.length - length
    return Prefix(
        tuple(states[row : row + 1, :, first:] for states in prefix.keys),
        tuple(states[row : row + 1, :, first:] for states in prefix.values),
        prefix.mask[row : row + 1, first:],
    )


def chunks_of(
    model: LabModel, rows: Sequence[Row], frozen: dict[int, Prefix | None], memory: int
) -> Iterator[list[Row]]:
    """Rows that are run together: those of one group, or a few each of several."""
    by_group: dict[int, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    pooled = [row for some in by_group.values() if len(some) < ALONE for row in some]
    a_position = 2 * model.n_layers * model.n_heads * model.d_head * model.dtype.itemsize
    for some in (*(some for some in by_group.values() if len(some) >= ALONE), pooled):
        order = sorted(some, key=lambda row: (len(row.ids), length_of(frozen[row.group])))
        while order:
            behind = max(length_of(frozen[row.group]) for row in order)
            fit = rows_within(model, behind + len(order[-1].ids), memory)
            if some is pooled:  # here every row gets a copy of its keys and values
                fit = min(fit, max(1, memory // max(1, behind * a_position)))
            yield order[-fit:]
            order = order[:-fit]


def length_of(prefix: Prefix | None) -> int:
    """Positions of a prefix that may be none."""
    return 0 if prefix is None else prefix.length


def side_by_side(prefixes: Sequence[Prefix | None]) -> Prefix | None:
    """Prefixes of single rows as one, padded on the left; one for all where they are the same."""
    longest = max(map(length_of, prefixes))
    if longest == 0:
        return None
    some = next(prefix for prefix in prefixes if prefix is not None)
    if all(prefix is some for prefix in prefixes):
        return some

    def stacked(states: Sequence[Tensor | None], like: Tensor) -> Tensor:
        out = like.new_zeros((len(states), like.shape[1], longest, like.shape[3]))
        for row, own in enumerate(states):
            if own is not None:
                out[row, :, longest - own.shape[2] :] = own[0]
        return out

    layers = range(len(some.keys))
    mask = torch.zeros(len(prefixes), longest, dtype=torch.bool, device=some.mask.device)
    for row, prefix in enumerate(prefixes):
        mask[row, longest - length_of(prefix) :] = True
    return Prefix(
        tuple(
            stacked([None if p is None else p.keys[layer] for p in prefixes], some.keys[layer])
            for layer in layers
        ),
        tuple(
            stacked([None if p is None else p.values[layer] for p in prefixes], some.values[layer])
            for layer in layers
        ),
        mask,
    )


def filled_up(
    model: LabModel, prompts: Sequence[Ids], first: int
) -> tuple[TokenBatch, Int[Tensor, " prompt"]]:
    """Prompts as a batch filled up on the right, and where each ends behind its first tokens.

    What fills it up is read by nothing: it cannot change the rest, and needs no mask.

    Args:
        model: The model.
        prompts: Their ids, all of them.
        first: How many tokens of each are frozen.
    """
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), model.pad_id, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)).to(model.device)
    last = torch.tensor([len(prompt) - 1 - first for prompt in prompts], device=model.device)
    return batch, last
