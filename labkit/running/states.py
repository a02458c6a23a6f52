"""States at chosen positions, at any site, of many rows of tokens.

    found = last_states(model, rows, [("ffn_key", 5), ("resid_post", 7)])

Only the blocks up to the highest layer that is asked for are run, and of each activation only
what is taken outlives its batch.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.running.activations import patched
from labkit.running.beginnings import Ids
from labkit.running.execute import Execution
from labkit.running.logits import MEMORY
from labkit.running.packing import Packed, packed

if TYPE_CHECKING:
    from labkit.models.anatomy import Site
    from labkit.models.model import LabModel

Spot = tuple["Site", int]
"""A site and a layer."""

ENTERING: Spot = ("resid_pre", 0)
"""What the embedding gives: no block is run for it."""


def n_blocks(spots: Collection[Spot]) -> int:
    """How many blocks must be run to read some states."""
    return max((layer + 1 for site, layer in spots if (site, layer) != ENTERING), default=0)


def taken_from(
    model: "LabModel", run: Execution, spots: Collection[Spot], take: Callable[[Tensor], Tensor]
) -> dict[Spot, Tensor]:
    """Run as far as needed, and keep what is taken of each activation `[row, pos, width]`."""
    kept: dict[Spot, Tensor] = {}

    def keeping(spot: Spot) -> Callable[[Tensor], Tensor]:
        def keep(tensor: Tensor) -> Tensor:
            kept[spot] = take(tensor)
            return tensor

        return keep

    if ENTERING in spots:
        kept[ENTERING] = take(run.embed)
    with patched(model, {spot: keeping(spot) for spot in spots if spot != ENTERING}):
        run.forward(stop=n_blocks(spots))
    return kept


@checked
@torch.no_grad()
def last_states(
    model: "LabModel",
    rows: Sequence[Sequence[int]],
    spots: Sequence[Spot],
    *,
    push: tuple[int, Float[Tensor, "row d_model"]] | None = None,
    memory: int = MEMORY,
) -> dict[Spot, Float[Tensor, "row width"]]:
    """States at the last token of every row.

    Args:
        model: The model as it is now.
        rows: Ids. A row that is given twice is run once, unless something is pushed.
        spots: Which states.
        push: A layer and what is added to its FFN's answer at the last token, by row.
        memory: Bound on activations, and on frozen keys and values, in bytes.

    Raises:
        EmptyPrompt, InputError: For a row that cannot be run.
    """
    whole: list[Ids] = [tuple(row) for row in rows]
    unique = whole if push is not None else list(dict.fromkeys(whole))
    order: list[int] = []
    found: dict[Spot, list[Tensor]] = {spot: [] for spot in spots}
    for numbers, kept in each_last_states(model, unique, spots, push=push, memory=memory):
        order += numbers
        for spot, own in kept.items():
            found[spot].append(own)
    found_at = {number: at for at, number in enumerate(order)}
    number_of = {row: number for number, row in enumerate(unique)}
    asked = range(len(whole)) if push is not None else [number_of[row] for row in whole]
    back = [found_at[number] for number in asked]
    return {spot: torch.cat(parts)[back] for spot, parts in found.items()}


@torch.no_grad()
def each_last_states(
    model: "LabModel",
    rows: Sequence[Ids],
    spots: Sequence[Spot],
    *,
    push: tuple[int, Float[Tensor, "row d_model"]] | None = None,
    memory: int = MEMORY,
) -> Iterator[tuple[list[int], dict[Spot, Float[Tensor, "some width"]]]]:
    """The same batch by batch, for what is worked on while more is read.

    Yields:
        Numbers of some rows, and their states.

    Raises:
        EmptyPrompt, InputError: For a row that cannot be run.
    """
    for batch in packed(model, rows, stop=n_blocks(spots), memory=memory):
        places = range(len(batch.numbers))
        columns = batch.columns(places, [len(rows[number]) - 1 for number in batch.numbers])
        at = list(places), columns

        def last(states: Tensor, at: Any = at) -> Tensor:
            return states[at]

        with patched(model, {} if push is None else _pushed(push, batch, at)):
            kept = taken_from(model, batch.run, spots, last)
        yield batch.numbers, kept


def last_streams(
    model: "LabModel", rows: Sequence[Ids], *, memory: int = MEMORY
) -> Float[Tensor, "layer row d_model"]:
    """The residual stream leaving each block at the last token of every row."""
    spots: list[Spot] = [("resid_post", layer) for layer in range(model.n_layers)]
    found = last_states(model, rows, spots, memory=memory)
    return torch.stack([found[spot] for spot in spots])


def _pushed(
    push: tuple[int, Tensor], batch: Packed, at: tuple[list[int], list[int]]
) -> dict[Spot, Callable[[Tensor], Tensor]]:
    """Additions to the FFN's output at some positions, one per row."""
    layer, change = push

    def pushed(out: Tensor) -> Tensor:
        out = out.clone()
        out[at] += change[batch.numbers].to(out)
        return out

    return {("ffn_value", layer): pushed}
