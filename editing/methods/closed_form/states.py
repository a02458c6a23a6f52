"""States at the last token of a text or of a subject, at any site, in every context.

Keys, and what a spread compares, are such states. Only the text up to that token is run, and
only the blocks up to the highest layer that is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.requests import Request
from labkit.facts.fact import fill
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.running.activations import capture, patched
from labkit.running.execute import MEMORY, Execution, rows_within
from labkit.words import spaceless

Spot = tuple[Site, int]
"""A site and a layer."""


@dataclass(frozen=True)
class Placed:
    """A prompt in some context, as ids, with the column of the subject's last token."""

    ids: list[int]
    subject_last: int


def place(model: LabModel, context: str, template: str, subject: str) -> Placed:
    """A filled template behind a context, with the subject's place known by offset."""
    before = in_front(context)
    prompt = before + fill(template, subject)
    span = model.span(prompt, subject, at=len(before) + template.index("{}"))
    return Placed(model.ids(prompt), span.last)


def in_front(context: str) -> str:
    """A context as it stands in front of a prompt: a space behind it, where its script has any."""
    if not context or context[-1] in "。！？．" or spaceless(context[-1]):
        return context
    return f"{context} "


@torch.no_grad()
def last_states(
    model: LabModel,
    rows: Sequence[Sequence[int]],
    spots: Sequence[Spot],
    *,
    push: tuple[int, Float[Tensor, "row d_model"]] | None = None,
    memory: int = MEMORY,
) -> dict[Spot, Float[Tensor, "row width"]]:
    """States at the last token of every row.

    Args:
        model: The model, in whatever state it is now.
        rows: Ids. A row that is given twice is run once, unless something is pushed.
        spots: Which states.
        push: A layer and what is added to its FFN's answer at the last token, by row.
        memory: Bound on the activations of one run, in bytes.
    """
    numbered = [(0 if push is None else number, tuple(row)) for number, row in enumerate(rows)]
    unique = sorted(set(numbered), key=lambda row: (len(row[1]), row))
    at_once = rows_within(model, len(unique[-1][1]), memory)
    stop = max(layer for _, layer in spots) + 1
    found: dict[Spot, list[Tensor]] = {spot: [] for spot in spots}
    for first in range(0, len(unique), at_once):
        chunk = unique[first : first + at_once]
        members = torch.tensor([number for number, _ in chunk])
        with (
            patched(model, {} if push is None else _pushes(push, members)),
            capture(model, {site for site, _ in spots}, {layer for _, layer in spots}) as seen,
        ):
            Execution(model, model.pad([list(ids) for _, ids in chunk])).forward(stop=stop)
        for spot in spots:
            found[spot].append(seen[spot][:, -1])
    index = {row: number for number, row in enumerate(unique)}
    order = torch.tensor([index[row] for row in numbered])
    return {spot: torch.cat(parts)[order] for spot, parts in found.items()}


def subject_states(
    model: LabModel,
    requests: Sequence[Request],
    spots: Sequence[Spot],
    contexts: Sequence[str],
    *,
    push: tuple[int, Float[Tensor, "request d_model"]] | None = None,
    memory: int = MEMORY,
) -> dict[Spot, Float[Tensor, "request context width"]]:
    """States at the subject's last token, for every request and context.

    Args:
        model: The model, in whatever state it is now.
        requests: The requests.
        spots: Which states.
        contexts: What stands in front of a prompt.
        push: A layer and what is added to its FFN's answer there, by request.
        memory: Bound on the activations of one run, in bytes.

    Raises:
        SubjectNotFound: If a subject's tokens cannot be told apart in its prompt.
    """
    placed = [place(model, c, r.template, r.subject) for r in requests for c in contexts]
    rows = [one.ids[: one.subject_last + 1] for one in placed]
    if push is not None:
        push = (push[0], push[1].repeat_interleave(len(contexts), dim=0))
    found = last_states(model, rows, spots, push=push, memory=memory)
    return {spot: states.unflatten(0, (-1, len(contexts))) for spot, states in found.items()}


def _pushes(push: tuple[int, Tensor], members: Tensor) -> dict[Spot, Callable[[Tensor], Tensor]]:
    """What adds to the FFN's answer at every row's last position."""
    layer, change = push

    def pushed(out: Tensor) -> Tensor:
        last = out[:, -1:] + change[members, None].to(out)
        return torch.cat([out[:, :-1], last], dim=1)

    return {("ffn_value", layer): pushed}
