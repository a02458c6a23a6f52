"""Bystanders: the other subjects that an edit is most likely to affect.

A closed-form change under the key `k*` answers any other key `k` by the share

    share(k) = k^T A^-1 k* / (k*^T A^-1 k*)

of what it adds for `k*`, with `A` the metric of the write. The share is known before anything is
written, so the search for `v*` can be told which subjects the change will leak to, and be penalised
for changing what is said about them (`ValueSearch.bystanders`). The direction written for a key
decides how far it leaks; the vector written decides how much the leak changes.

This term is ours; ROME and MEMIT constrain only the edited subject's own essence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.requests import Group
from editing.methods.closed_form.solve import Metric
from labkit.errors import InputError
from labkit.facts.worlds import facts_of
from labkit.models.model import LabModel
from labkit.running.logits import MEMORY
from labkit.running.states import Spot, last_states

ALIKE = 0.5
"""Share from which on a subject is no bystander: what makes the edit true will be heard there,
whatever is written, and a search that was held to prevent it would fail."""


@dataclass(frozen=True)
class Bystander:
    """Another subject, and the share of an edit's change that reaches its key."""

    subject: str
    share: float


@dataclass(frozen=True, eq=False)
class Pool:
    """Subjects that may be bystanders, with their keys.

    Attributes:
        subjects: The subjects.
        keys: By layer, the key at each subject's last token, nothing in front of it.
    """

    subjects: tuple[str, ...]
    keys: Mapping[int, Float[Tensor, "subject d_mlp"]]

    def near(
        self,
        groups: Sequence[Group],
        layer: int,
        metric: Metric,
        k_star: Float[Tensor, "group d_mlp"],
        n: int,
    ) -> list[tuple[Bystander, ...]]:
        """For every group, the `n` subjects with the largest shares, by absolute value.

        Subjects that are edited themselves, whose name holds or is part of an edited one's, or
        whose share is above `ALIKE`, are no bystanders.

        Args:
            groups: The groups.
            layer: The layer that will be written.
            metric: The cost of a change there for all other keys.
            k_star: The key of every group.
            n: How many.
        """
        edited = [group.subject for group in groups]
        others = torch.tensor(
            [not any(s in name or name in s for name in edited) for s in self.subjects]
        )
        directions = metric.solve(k_star.double().cpu())
        own = (directions * k_star.double().cpu()).sum(dim=1, keepdim=True)
        shares = (directions / own) @ self.keys[layer].double().T
        sizes = shares.abs().masked_fill(~others | (shares.abs() > ALIKE), -1)
        found = sizes.topk(min(n, len(self.subjects)))
        return [
            tuple(
                Bystander(self.subjects[i], float(row[i]))
                for i, size in zip(picked.tolist(), own_sizes.tolist(), strict=True)
                if size >= 0
            )
            for row, picked, own_sizes in zip(shares, found.indices, found.values, strict=True)
        ]


def pool_of(
    model: LabModel,
    layers: Sequence[int],
    subjects: Sequence[str] | None = None,
    *,
    memory: int = MEMORY,
) -> Pool:
    """The keys of many subjects, on the model as it is now.

    Args:
        model: The model, unedited.
        layers: Which layers.
        subjects: By default those of the facts that the model can be asked about.
        memory: Bound on the activations held at once, in bytes.

    Raises:
        InputError: If there is no subject.
    """
    names = {fact.subject for fact in facts_of(model)} if subjects is None else set(subjects)
    if not names:
        raise InputError("there are no subjects to be bystanders")
    ordered = tuple(sorted(names))
    spots: list[Spot] = [("ffn_key", model.layer(layer)) for layer in layers]
    found = last_states(model, [model.ids(name) for name in ordered], spots, memory=memory)
    return Pool(ordered, {layer: keys.float().cpu() for (_, layer), keys in found.items()})
