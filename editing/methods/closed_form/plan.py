"""One edit of a closed-form method: what is asked for, with all that was prepared for it.

A method decides what to make of the plan (`ClosedForm.write`); the keys, values and states that it
needs are asked for here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.delta import WeightDelta
from editing.edits.requests import Group, requests_of
from editing.methods.closed_form.bystanders import Bystander
from editing.methods.closed_form.keys import averaged, group_keys, subject_states
from editing.methods.closed_form.prepared import Prepared
from editing.methods.closed_form.value_search import Reach, ValueSearch
from editing.methods.closed_form.values import Values, value_stars
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.running.states import Spot


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to write, and where.

    Attributes:
        model: The model; it is changed for the time of a measurement, and restored.
        groups: The requests, by subject.
        layers: The layers to write, ascending.
        prepared: Contexts, metrics and bystanders.
        after: The edits in effect, if any.
        bare_weight: Share of the bare prompt's key in `k*`.
        search: How `v*` is searched for.
        progress: Called after each step of a search.
    """

    model: LabModel
    groups: Sequence[Group]
    layers: Sequence[int]
    prepared: Prepared
    after: WeightDelta | None
    bare_weight: float
    search: ValueSearch
    progress: Progress | None = None

    def keys(self, layer: int, *, bare_weight: float | None = None) -> Float[Tensor, "group d_mlp"]:
        """`k*` of every group at a layer.

        Args:
            layer: The layer.
            bare_weight: Share of the bare prompt's key, if not the method's own.
        """
        weight = self.bare_weight if bare_weight is None else bare_weight
        return group_keys(self.model, self.groups, layer, self.prepared.contexts, weight)

    def values(
        self,
        layer: int,
        *,
        keys: Float[Tensor, "group d_mlp"] | None = None,
        sites: Sequence[Site] = ("ffn_value",),
    ) -> Values:
        """`v*` of every group at a layer, beside the bystanders that a write of it leaks to.

        Args:
            layer: The layer.
            keys: `k*` there, where it is known already.
            sites: What the search may move; see `Reach`.
        """
        near: Sequence[Sequence[Bystander]] = ()
        if self.search.bystanders:
            keys = self.keys(layer) if keys is None else keys
            near = self.prepared.near(self.groups, layer, keys, self.search)
        return value_stars(
            self.model,
            self.groups,
            layer,
            self.prepared.contexts,
            self.search,
            Reach(near=near, sites=sites),
            progress=self.progress,
        )

    def states(
        self, spots: Sequence[Spot], *, push: tuple[int, Tensor] | None = None
    ) -> dict[Spot, Float[Tensor, "group width"]]:
        """States at the subjects' last tokens, averaged as keys are.

        Args:
            spots: Which states.
            push: A layer and what is added to its FFN's answer there, by group.
        """
        if push is not None:
            sizes = torch.tensor([len(group.requests) for group in self.groups])
            push = (push[0], push[1].repeat_interleave(sizes.to(push[1].device), dim=0))
        requests, contexts = requests_of(self.groups), self.prepared.contexts
        found = subject_states(self.model, requests, spots, contexts, push=push)
        return {
            spot: averaged(states, self.groups, self.bare_weight) for spot, states in found.items()
        }
