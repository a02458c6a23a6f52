"""One wanted change, written into several layers.

`v*` is searched for at the last layer `L`. From the first layer to the last, the states at
the subjects' last tokens are measured again with the earlier layers written, and a share of what
remains is written:

    R_l = (z - h) share(L - l + 1)

where `z` is the wanted state and `h` the present one. MEMIT compares the residual stream that
leaves block `L` and takes the share 1 / n, PMET the FFN's output there and 1 / sqrt(n).

A share is handed to the FFN of layer `l` as if the blocks between passed it on as it is. They do
not quite; measuring again corrects for it, and the last layer takes what is left. In a family that
norms the FFN's output before adding it (Gemma 2) the missing part of the stream is not the missing
part of the FFN's output, so there the last layer lands near `z`, not on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.applying import applied
from editing.edits.delta import Change, WeightDelta
from editing.edits.requests import Group, requests_of
from editing.methods.closed_form.base import Spreading, StepDone
from editing.methods.closed_form.keys import averaged, group_keys
from editing.methods.closed_form.prepared import Prepared
from editing.methods.closed_form.states import subject_states
from editing.methods.closed_form.values import Values, refuse_already_true, value_stars
from editing.methods.closed_form.writing import Written, held, remembering, written
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.running.states import Spot

Share = Literal["even", "sqrt"]
"""Which part of what is missing a layer takes, with n layers left: 1 / n or 1 / sqrt(n)."""


@dataclass(frozen=True)
class Plan:
    """What to write, and how.

    Attributes:
        method: The method, with its fields.
        model: The model; it is changed for the time of a measurement, and restored.
        groups: The requests, by subject.
        layers: The layers to write, ascending.
        prepared: Contexts, metrics and bystanders.
        after: The edits in effect, if any.
        step_done: Called after each step of a search.
    """

    method: Spreading
    model: LabModel
    groups: Sequence[Group]
    layers: Sequence[int]
    prepared: Prepared
    after: WeightDelta | None
    step_done: StepDone | None

    def search(self, layer: int, sites: Sequence[Site] = ("ffn_value",)) -> Values:
        """`v*` at a layer, with the bystanders that a write of that layer alone would leak to."""
        model, groups, search = self.model, self.groups, self.method.search
        contexts, near = self.prepared.contexts, []
        if search.bystanders:
            keys = group_keys(model, groups, layer, contexts, self.method.bare_weight)
            near = self.prepared.near(groups, layer, keys, search)
        return value_stars(
            model, groups, layer, contexts, search, near=near, sites=sites, step_done=self.step_done
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
        weight = self.method.bare_weight
        return {spot: averaged(states, self.groups, weight) for spot, states in found.items()}


def spread(
    plan: Plan,
    *,
    share: Share,
    compared: Site = "resid_post",
    sites: Sequence[Site] = ("ffn_value",),
) -> Written:
    """Write what is missing at the last layer, a share per layer.

    Args:
        plan: The plan.
        share: The share of the residual that a layer takes.
        compared: At which site of the last layer wanted and present states are compared.
        sites: What the search may move; see `editing.methods.closed_form.values.value_stars`.

    Raises:
        AlreadyTrue, NonFiniteLoss, SingularSystem: Nothing is written then.
    """
    last = plan.layers[-1]
    found = plan.search(last, sites)
    refuse_already_true(plan.groups, found)
    goal = (compared, last)
    wanted = plan.states([goal], push=(last, found.change))[goal]
    writer = _Writer(plan)
    lengths: dict[int, Tensor] = {}
    for n_done, layer in enumerate(plan.layers):
        with applied(plan.model, writer.so_far):
            seen = plan.states([("ffn_key", layer), goal])
        residuals = wanted - seen[goal]
        lengths[layer] = residuals.norm(dim=1)
        n_left = len(plan.layers) - n_done
        part = residuals / (n_left if share == "even" else n_left**0.5)
        writer.write(layer, seen["ffn_key", layer], part)
    at_first = lengths[plan.layers[0]]
    missing = {layer: float((left / at_first).mean()) for layer, left in lengths.items()}
    return Written(writer.changes, writer.keys, found, missing)


def boundary(plan: Plan) -> Written:
    """Write every layer of the plan (in BLUE the first and the last), each with its own search.

    A later layer's search runs on the model with the earlier ones written: it adds what is
    still missing, which may be nothing.

    Raises:
        AlreadyTrue, NonFiniteLoss, SingularSystem: Nothing is written then.
    """
    writer = _Writer(plan)
    found: list[Values] = []
    for layer in plan.layers:
        with applied(plan.model, writer.so_far):
            found.append(plan.search(layer))
            keys = plan.states([("ffn_key", layer)])["ffn_key", layer]
        refuse_already_true(plan.groups, found[0])
        writer.write(layer, keys, found[-1].change)
    missing = {
        layer: float((values.steps > 0).double().mean())
        for layer, values in zip(plan.layers, found, strict=True)
    }
    return Written(writer.changes, writer.keys, found[0], missing)


class _Writer:
    """Layers written so far, and the keys that they were written for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.changes: dict[int, Change] = {}
        self.keys: dict[int, Tensor] = {}
        self._held: Tensor | None = None

    @property
    def so_far(self) -> WeightDelta:
        """The layers written so far, as a delta."""
        model = self.plan.model
        named = {model.ffn_out_name(layer): made for layer, made in self.changes.items()}
        return WeightDelta(named, model.fingerprint)

    def write(self, layer: int, keys: Tensor, residuals: Tensor) -> None:
        """Map keys to residuals, softly, in the layer's metric with earlier edits' keys."""
        plan = self.plan
        metric, after = plan.prepared.metrics[layer], plan.after if plan.method.remember else None
        if self._held is None:
            self._held = held(metric, after, layer, keys)
        metric = remembering(metric, after, layer, self._held)
        self.changes[layer] = written(
            plan.model, layer, plan.groups, metric, keys, residuals, softness=1.0
        )
        self.keys[layer] = keys
