"""States at the subjects' last tokens, at any site, in every context: what a spread compares."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from editing.keys import place
from editing.requests import Group
from labkit.activations import capture, patched
from labkit.execute import MEMORY, Execution, rows_within
from labkit.models import LabModel, Site


@torch.no_grad()
def subject_states(
    model: LabModel,
    groups: Sequence[Group],
    wanted: Sequence[tuple[Site, int]],
    contexts: Sequence[str],
    *,
    push: tuple[int, Float[Tensor, "group d_model"]] | None = None,
    memory: int = MEMORY,
) -> dict[tuple[Site, int], Tensor]:
    """States at the subjects' last tokens, for every request and context.

    Only the text up to the subject is run, and only the blocks up to the highest layer.

    Args:
        model: The model, in whatever state it is now.
        groups: The groups.
        wanted: Sites and layers.
        contexts: What stands in front of a prompt.
        push: A layer and what is added to its FFN's answer there, by group.
        memory: Bound on the activations of one run, in bytes.

    Returns:
        By site and layer, `[request context width]`, float64, a group's requests in a row.
    """
    rows: list[tuple[int, tuple[int, ...]]] = []
    for number, group in enumerate(groups):
        for request in group.requests:
            for context in contexts:
                placed = place(model, context, request.template, request.subject)
                rows.append((number, tuple(placed.ids[: placed.subject_last + 1])))
    unique = sorted(set(rows), key=lambda row: (len(row[1]), row))
    at_once = rows_within(model, len(unique[-1][1]), memory)
    stop = max(layer for _, layer in wanted) + 1
    found: dict[tuple[Site, int], list[Tensor]] = {spot: [] for spot in wanted}
    for first in range(0, len(unique), at_once):
        chunk = unique[first : first + at_once]
        members = torch.tensor([number for number, _ in chunk])
        with (
            patched(model, {} if push is None else _pushes(push, members)),
            capture(model, {site for site, _ in wanted}, {layer for _, layer in wanted}) as seen,
        ):
            Execution(model, model.pad([ids for _, ids in chunk])).forward(stop=stop)
        for spot in wanted:
            found[spot].append(seen[spot][:, -1].double())
    index = {row: number for number, row in enumerate(unique)}
    order = torch.tensor([index[row] for row in rows])
    return {
        spot: torch.cat(parts)[order].unflatten(0, (-1, len(contexts)))
        for spot, parts in found.items()
    }


def _pushes(
    push: tuple[int, Tensor], members: Tensor
) -> dict[tuple[Site, int], Callable[[Tensor], Tensor]]:
    """What adds to the FFN's answer at every row's last position."""
    layer, change = push

    def pushed(out: Tensor) -> Tensor:
        last = out[:, -1:] + change[members, None].to(out)
        return torch.cat([out[:, :-1], last], dim=1)

    return {("ffn_value", layer): pushed}
