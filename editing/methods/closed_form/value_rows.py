"""The prompts of a search for `v*`, arranged so that only what can change is run.

Every request of a group is asked in every context; the group's essence prompt is added, and
the first request asked of each bystander.
Prompts of one batch are shifted so that their subjects' last tokens stand in one column:
what lies before it is frozen, what follows is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing.edits.requests import ESSENCE, Group
from editing.methods.closed_form.bystanders import Bystander
from editing.methods.closed_form.keys import Placed, place
from labkit.facts.fact import Deletion
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.running.activations import capture
from labkit.running.execute import Execution, freeze
from labkit.tokens import target_ids

SITES: tuple[Site, ...] = ("ffn_value", "attn_out")
"""What a search can move at its layer."""


@dataclass(frozen=True)
class Row:
    """One prompt of a search.

    Attributes:
        group: Which group it belongs to.
        placed: Its ids, target included as far as it is read from, and the subject's place.
        reads: Positions after the subject's last token at which logits are read.
        target: Ids of the target; None where predictions are held to the unedited ones.
        deletes: Whether the target is the answer to be forgotten.
        share: Of a bystander, the share of the change that is made here; None for the others.
    """

    group: int
    placed: Placed
    reads: tuple[int, ...]
    target: tuple[int, ...] | None
    deletes: bool = False
    share: float | None = None


def rows_of(
    model: LabModel,
    number: int,
    group: Group,
    contexts: Sequence[str],
    near: Sequence[Bystander] = (),
) -> list[Row]:
    """The prompts of one group: every request in every context, essence, and bystanders."""
    rows = []
    for request in group.requests:
        deletes = isinstance(request, Deletion)
        wanted = request.target_true if isinstance(request, Deletion) else request.target_new
        target = tuple(target_ids(model.tokenizer, request.prompt, wanted))
        target = target[:1] if deletes else target
        for context in contexts:
            placed = place(model, context, request.template, request.subject)
            last = len(placed.ids) - placed.subject_last - 1
            reads = tuple(range(last, last + len(target)))
            asked = Placed([*placed.ids, *target[:-1]], placed.subject_last)
            rows.append(Row(number, asked, reads, target, deletes))
    # The essence prompt stands after a context too, so that the subject is never first.
    essence = place(model, contexts[-1], ESSENCE, group.subject)
    read = len(essence.ids) - essence.subject_last - 1
    rows.append(Row(number, essence, (read,), None))
    for other in near:
        placed = place(model, "", group.requests[0].template, other.subject)
        if placed.subject_last:  # not on the attention sink
            read = len(placed.ids) - placed.subject_last - 1
            rows.append(Row(number, placed, (read,), None, share=other.share))
    return rows


def batches(
    model: LabModel, rows: Sequence[Sequence[Row]], layer: int, memory: int
) -> list[list[int]]:
    """Numbers of groups that are searched for together, alike in length."""
    widths = 12 * model.d_model + 5 * model.d_mlp
    each = widths * (model.n_layers - layer) * model.dtype.itemsize
    logits = 4 * model.d_vocab * 4

    def tail(number: int) -> int:
        return max(len(row.placed.ids) - row.placed.subject_last for row in rows[number])

    batches: list[list[int]] = []
    held = 0
    for number in sorted(range(len(rows)), key=tail):
        reads = sum(len(row.reads) for row in rows[number])
        cost = len(rows[number]) * tail(number) * each + reads * logits
        if not batches or held + cost > memory:
            batches.append([])
            held = 0
        batches[-1].append(number)
        held += cost
    return batches


class Batch:
    """The prompts of some groups, their subjects' last tokens in one column.

    Prompts are padded on the left up to that column, and filled up on the right with
    tokens that nothing reads: what follows a position cannot change it.

    Attributes:
        rows: The prompts, a group's own in a row; groups are numbered from 0.
        by_group: The same, one list per group.
        n_groups: Number of groups.
        group: Which group each prompt belongs to.
        run: The prompts from the column on.
        entering: The residual stream that enters the layer there.
        before: By site, the layer's output at the column in each group's first prompt.
    """

    def __init__(self, model: LabModel, rows: Sequence[Sequence[Row]], layer: int) -> None:
        self.rows = [row for members in rows for row in members]
        self.by_group = rows
        self.n_groups = len(rows)
        self.group = torch.tensor(
            [number for number, members in enumerate(rows) for _ in members], device=model.device
        )
        behind = [len(row.placed.ids) - row.placed.subject_last - 1 for row in self.rows]
        fill = model.pad_id
        batch = model.pad(
            [
                row.placed.ids + [fill] * (max(behind) - own)
                for row, own in zip(self.rows, behind, strict=True)
            ]
        )
        column = batch.shape[1] - max(behind) - 1
        prefix = freeze(model, batch, length=column) if column else None
        self.run = Execution(model, batch, prefix)
        with torch.no_grad(), capture(model, SITES, [layer]) as seen:
            self.entering = self.run.forward(stop=layer)
            self.run.forward(self.entering, start=layer, stop=layer + 1)
        first_of = [int((self.group == number).nonzero()[0]) for number in range(self.n_groups)]
        self.before = {site: seen[site, layer][first_of, 0].float() for site in SITES}


class Reads:
    """Where the logits of some groups' rows are read; one reading per target token.

    Attributes:
        rows: The batch's rows that are run.
        groups: The group of each row.
        bystanders: Which rows are of bystanders.
        share: Of a bystander, the share of the change that is made there.
        bystander: Which readings are of bystanders.
        row, pos: Where each reading is taken, counted in the rows that are run.
        group: The group of each reading.
        target: The token that is wanted there (for a deletion: not wanted); -1 for essence.
        deletes: Whether it is the answer to be forgotten.
        asked: Whether there is a target.
        anchored: Whether what the model said before the edit enters its loss.
        weight: Share of the reading in its group's mean.
    """

    def __init__(self, batch: Batch, active: Sequence[int]) -> None:
        device = batch.group.device
        self.rows = torch.isin(batch.group, torch.tensor(active, device=device)).nonzero()[:, 0]
        self.groups = batch.group[self.rows]
        run = [batch.rows[number] for number in self.rows.tolist()]
        self.bystanders = torch.tensor([r.share is not None for r in run], device=device)
        self.share = torch.tensor([r.share or 0.0 for r in run], device=device)
        found = [
            (place, number, at, row, offset)
            for place, number in enumerate(self.rows.tolist())
            for row in [batch.rows[number]]
            for offset, at in enumerate(row.reads)
        ]

        def column(values: list, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        n_asked = [sum(row.target is not None for row in members) for members in batch.by_group]
        self.row = column([place for place, *_ in found])
        self.pos = column([at for _, _, at, _, _ in found])
        self.group = batch.group[column([number for _, number, *_ in found])]
        self.target = column([row.target[i] if row.target else -1 for *_, row, i in found])
        self.deletes = column([row.deletes for *_, row, _ in found], torch.bool)
        self.bystander = column([row.share is not None for *_, row, _ in found], torch.bool)
        self.asked = self.target >= 0
        self.anchored = self.deletes | ~self.asked
        weight = [
            1 / (len(row.reads) * n_asked[int(batch.group[number])]) if row.target else 1.0
            for _, number, _, row, _ in found
        ]
        self.weight = column(weight, torch.float)
