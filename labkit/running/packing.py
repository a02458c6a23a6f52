"""Rows of tokens, run together: packed by length, with shared prefixes run once.

    for batch in packed(model, rows, read_from):
        resid = batch.run.forward()
        states = resid[places, batch.columns(places, positions)]     # of batch.numbers[place]

Rows are filled up on the right, with tokens that nothing reads: what follows a position cannot
change it, so that no mask is needed and attention takes its fast path. Beginnings that many
rows share are run once (`labkit.running.beginnings`), and their keys and values frozen. Rows
after one beginning go through together; where a beginning has few rows, those of several do,
each with a copy of its keys and values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.errors import EmptyPrompt
from labkit.running.beginnings import Ids, hosts_of
from labkit.running.execute import Execution, freeze
from labkit.running.logits import MEMORY, rows_within
from labkit.running.prefixes import Prefix
from labkit.tokens import TokenBatch

if TYPE_CHECKING:
    from labkit.models.model import LabModel

TOKENS = 2048
"""Tokens of a batch at most: more gain nothing, and leave the processor's caches."""

FEW = 512
"""Tokens of a batch up to which rows of any length go together: a run of their own costs more."""

ALIKE = 0.9
"""Share of a larger batch's longest row that its shortest row has at least."""

ALONE = 4
"""Rows from which on a beginning's rows are run by themselves, its keys copied for none."""


@dataclass(frozen=True)
class Packed:
    """Some rows that are run together.

    Attributes:
        numbers: Which row stands at each place of the batch.
        frozen: How many of its first tokens are not run.
        run: Their run, from there on.
    """

    numbers: list[int]
    frozen: list[int]
    run: Execution

    def columns(self, places: Sequence[int], positions: Sequence[int]) -> list[int]:
        """Where positions of the rows at some places stand in what is run."""
        return [
            position - self.frozen[place] for place, position in zip(places, positions, strict=True)
        ]


@torch.no_grad()
def packed(
    model: "LabModel",
    rows: Sequence[Ids],
    read_from: Sequence[int] | None = None,
    *,
    stop: int | None = None,
    memory: int = MEMORY,
) -> Iterator[Packed]:
    """Rows in batches, ready to be run; every row once.

    Args:
        model: The model.
        rows: Their tokens.
        read_from: The first position of each that is read; by default its last.
        stop: How many blocks will be run; by default all.
        memory: Bound on activations, and on frozen keys and values, in bytes.

    Raises:
        EmptyPrompt: If a row has no token.
        InputError: If one is longer than what the model was made to read.
    """
    if not all(rows):
        raise EmptyPrompt("there is nothing to run: a prompt with no token")
    if not rows:
        return
    model.pad([max(rows, key=len)])  # refuses what is too long
    first = [len(row) - 1 for row in rows] if read_from is None else read_from
    starts = [row[:start] for row, start in zip(rows, first, strict=True)]
    hosts = hosts_of(starts if stop != 0 else [()] * len(rows))
    for numbers in packs([len(rows[number]) for number, _ in hosts.get((), ())], model, memory):
        bare = [hosts[()][place][0] for place in numbers]
        batch = unmasked(filled(model, [rows[number] for number in bare]))
        yield Packed(bare, [0] * len(bare), Execution(model, batch))
    for beginnings in _together(model, [host for host in hosts if host], memory):
        prefixes = _freeze(model, beginnings, stop)
        heads = {
            (host, length): prefix.head(length)
            for host, prefix in zip(beginnings, prefixes, strict=True)
            for length in {length for _, length in hosts[host]}
        }
        for chunk in _chunks(model, rows, hosts, beginnings, memory):
            yield _behind(model, rows, chunk, heads)


def packs(
    lengths: Sequence[int], model: "LabModel", memory: int = MEMORY, *, behind: int = 0
) -> Iterator[list[int]]:
    """Numbers of rows to be run together, of nearly equal lengths, the shortest first.

    Args:
        lengths: How many tokens of each row are run.
        model: The model.
        memory: Bound on the activations of a run, in bytes.
        behind: How many frozen tokens come before.
    """
    some: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        length = lengths[number]
        at_once = min(TOKENS // length, rows_within(model, behind + length, memory))
        uneven = some and ALIKE * length > lengths[some[0]] + 1 and len(some) * length > FEW
        if some and (len(some) >= at_once or uneven):
            yield some
            some = []
        some.append(number)
    if some:
        yield some


def filled(model: "LabModel", rows: Sequence[Sequence[int]]) -> TokenBatch:
    """Rows as one batch on the model's device, filled up on the right; the mask says what is a row.

    What follows a position cannot change it: such a batch may be run without its mask.
    """
    fill, longest = model.pad_id, max(map(len, rows))
    ids = torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return TokenBatch(ids, torch.arange(longest) < lengths[:, None]).to(model.device)


def unmasked(batch: TokenBatch) -> TokenBatch:
    """A batch filled up on the right, to be run without a mask: attention takes its fast path."""
    return TokenBatch(batch.ids, torch.ones_like(batch.mask))


def _together(model: "LabModel", beginnings: Sequence[Ids], memory: int) -> Iterator[list[Ids]]:
    """Beginnings of similar length, as many as memory allows, the longest first."""
    order = sorted(beginnings, key=len)
    while order:
        longest = len(order[-1])
        fit = min(rows_within(model, longest, memory), memory // (longest * _position(model)))
        some, order = order[-max(1, fit) :], order[: -max(1, fit)]
        yield some


def _position(model: "LabModel") -> int:
    """Bytes of the keys and values of one position, at most."""
    return 2 * model.n_layers * model.n_heads * model.d_head * model.dtype.itemsize


def _freeze(model: "LabModel", beginnings: Sequence[Ids], stop: int | None) -> list[Prefix]:
    """Keys and values of some beginnings, run together."""
    batch = model.pad(beginnings)
    width = batch.shape[1]
    whole = freeze(model, batch, length=width, stop=stop)
    return [whole.row(row, width - len(ids)) for row, ids in enumerate(beginnings)]


_Placed = tuple[int, Ids, int]
"""A row's number, the beginning that is frozen for it, and how much of that it takes."""


def _chunks(
    model: "LabModel",
    rows: Sequence[Ids],
    hosts: dict[Ids, list[tuple[int, int]]],
    beginnings: Sequence[Ids],
    memory: int,
) -> Iterator[list[_Placed]]:
    """Rows that are run together: those of one beginning, or a few each of several."""
    groups: dict[tuple[Ids, int], list[_Placed]] = {}
    for host in beginnings:
        for number, length in hosts[host]:
            groups.setdefault((host, length), []).append((number, host, length))
    pooled = [one for some in groups.values() if len(some) < ALONE for one in some]
    alone = [some for some in groups.values() if len(some) >= ALONE]
    for some in (*alone, pooled):
        behind = max((length for _, _, length in some), default=0)
        lengths = [len(rows[number]) - length for number, _, length in some]
        # Pooled rows get a copy of keys and values each.
        fit = max(1, memory // max(1, behind * _position(model))) if some is pooled else len(some)
        for places in packs(lengths, model, memory, behind=behind):
            for start in range(0, len(places), fit):
                yield [some[place] for place in places[start : start + fit]]


def _behind(
    model: "LabModel",
    rows: Sequence[Ids],
    chunk: Sequence[_Placed],
    heads: dict[tuple[Ids, int], Prefix],
) -> Packed:
    """Rows after their frozen beginnings, set side by side."""
    frozen = [length for _, _, length in chunk]
    rests = filled(model, [rows[number][length:] for number, _, length in chunk])
    prefix = _side_by_side([heads[host, length] for _, host, length in chunk])
    first, n_rows = prefix.length, len(chunk)
    front = torch.full((n_rows, first), model.pad_id, device=model.device)
    mask = prefix.mask.expand(n_rows, first)
    # Where beginnings differ in length, filling must not count as positions: masked, it does not.
    own = torch.ones_like(rests.mask) if bool(prefix.mask.all()) else rests.mask
    batch = TokenBatch(torch.cat([front, rests.ids], dim=1), torch.cat([mask, own], dim=1))
    return Packed([number for number, _, _ in chunk], frozen, Execution(model, batch, prefix))


def _side_by_side(prefixes: Sequence[Prefix]) -> Prefix:
    """Prefixes of single rows as one, padded on the left; one for all where they are the same."""
    one = prefixes[0]
    if all(prefix is one for prefix in prefixes):
        return one
    longest = max(prefix.length for prefix in prefixes)

    def stacked(states: Sequence[Tensor]) -> Tensor:
        like = states[0]
        out = like.new_zeros((len(states), like.shape[1], longest, like.shape[3]))
        for row, own in enumerate(states):
            out[row, :, longest - own.shape[2] :] = own[0]
        return out

    lengths = torch.tensor([prefix.length for prefix in prefixes], device=one.mask.device)
    return Prefix(
        tuple(map(stacked, zip(*(prefix.keys for prefix in prefixes), strict=True))),
        tuple(map(stacked, zip(*(prefix.values for prefix in prefixes), strict=True))),
        torch.arange(longest, device=lengths.device) >= longest - lengths[:, None],
    )
