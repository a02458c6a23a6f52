"""One wanted change, written into several layers.

`v*` is searched for at the last layer `L`. From the first layer to the last, the states at
the subjects' last tokens are measured anew, with what was written so far in place, and a
share of what is still missing is written:

    R_l = (z - h) share(L - l + 1)

where `z` is the wanted state and `h` the present one. MEMIT compares the residual stream that
leaves block `L` and takes the share 1 / n, PMET the FFN's output there and 1 / sqrt(n).

A share is handed to the FFN of layer `l` as if the blocks between passed it on as it is. They
do not quite; measuring anew corrects for it, and the last layer takes what is left. In a
family that norms the FFN's output before adding it (Gemma 2) the missing part of the stream
is not the missing part of the FFN's output, so there the last layer lands near `z`, not on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from editing.closed_form import Spreading
from editing.delta import Change, WeightDelta, applied
from editing.keys import group_keys, key_star
from editing.prepared import Prepared
from editing.requests import Group
from editing.states import subject_states
from editing.values import Values, ValueSearch, refuse_already_true, value_stars
from editing.writing import Written, held, remembering, written
from labkit.models import LabModel, Site

Share = Literal["even", "sqrt"]
"""Which part of what is missing a layer takes, with n layers left: 1 / n or 1 / sqrt(n)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a spread is made of.

    Attributes:
        layers: The layers to write, ascending.
        prepared: Contexts, metrics and bystanders.
        bare_weight: See `editing.keys.key_star`.
        search: How `v*` is searched for.
        after: What is applied to the model, if its keys are to be remembered.
    """

    layers: Sequence[int]
    prepared: Prepared
    bare_weight: float
    search: ValueSearch
    after: WeightDelta | None

    @classmethod
    def of(
        cls,
        method: Spreading,
        layers: Sequence[int],
        prepared: Prepared,
        after: WeightDelta | None,
    ) -> "Plan":
        """The plan of a method, by its fields."""
        return cls(
            layers=layers,
            prepared=prepared,
            bare_weight=method.bare_weight,
            search=method.search,
            after=after if method.remember else None,
        )


def spread(
    model: LabModel,
    groups: Sequence[Group],
    plan: Plan,
    *,
    share: Share,
    compared: Site = "resid_post",
    sites: Sequence[Site] = ("ffn_value",),
    step_done: Callable[[int, float], None] | None = None,
) -> Written:
    """Write what is missing at the last layer, a share a layer.

    Args:
        model: The model; it is changed for the time of a measurement, and restored.
        groups: What it should say, by subject.
        plan: Where and how.
        share: Which part of what is missing a layer takes.
        compared: At which site of the last layer wanted and present states are compared.
        sites: What the search may move; see `editing.values.value_stars`.
        step_done: Called after each step of the search.

    Raises:
        AlreadyTrue, NonFiniteLoss, SingularSystem: Nothing is written then.
    """
    last, contexts = plan.layers[-1], plan.prepared.contexts
    found = _search(model, groups, last, plan, sites, step_done)
    refuse_already_true(groups, found)
    goal = (compared, last)
    wanted = subject_states(model, groups, [goal], contexts, push=(last, found.change))[goal]
    writer = _Writer(model, groups, plan)
    lengths: dict[int, Tensor] = {}
    for n_done, layer in enumerate(plan.layers):
        with applied(model, writer.so_far):
            seen = subject_states(model, groups, [("ffn_key", layer), goal], contexts)
        residuals = writer.averaged(wanted - seen[goal])
        lengths[layer] = residuals.norm(dim=1)
        n_left = len(plan.layers) - n_done
        part = residuals / (n_left if share == "even" else n_left**0.5)
        writer.write(layer, writer.averaged(seen["ffn_key", layer]), part)
    at_first = lengths[plan.layers[0]]
    missing = {layer: float((left / at_first).mean()) for layer, left in lengths.items()}
    return Written(writer.changes, writer.keys, found, missing)


def boundary(
    model: LabModel,
    groups: Sequence[Group],
    plan: Plan,
    *,
    step_done: Callable[[int, float], None] | None = None,
) -> Written:
    """Write every layer of the plan (BLUE: the first and the last), each with its own search.

    A later layer's search runs on the model with the earlier ones written: it adds what is
    still missing, which may be nothing.

    Raises:
        AlreadyTrue, NonFiniteLoss, SingularSystem: Nothing is written then.
    """
    writer = _Writer(model, groups, plan)
    found: list[Values] = []
    for layer in plan.layers:
        with applied(model, writer.so_far):
            found.append(_search(model, groups, layer, plan, ("ffn_value",), step_done))
            seen = subject_states(model, groups, [("ffn_key", layer)], plan.prepared.contexts)
        refuse_already_true(groups, found[0])
        writer.write(layer, writer.averaged(seen["ffn_key", layer]), found[-1].change)
    missing = {
        layer: float((values.steps > 0).double().mean())
        for layer, values in zip(plan.layers, found, strict=True)
    }
    return Written(writer.changes, writer.keys, found[0], missing)


def _search(
    model: LabModel,
    groups: Sequence[Group],
    layer: int,
    plan: Plan,
    sites: Sequence[Site],
    step_done: Callable[[int, float], None] | None,
) -> Values:
    """`v*` at a layer, bystanders held whom a write of that layer alone would leak to."""
    contexts = plan.prepared.contexts
    keys = group_keys(model, groups, layer, contexts, plan.bare_weight)
    near = plan.prepared.near(groups, layer, keys, plan.search)
    return value_stars(
        model, groups, layer, contexts, plan.search, near=near, sites=sites, step_done=step_done
    )


class _Writer:
    """Layers written so far, and the keys that they were written for."""

    def __init__(self, model: LabModel, groups: Sequence[Group], plan: Plan) -> None:
        self.model, self.groups, self.plan = model, groups, plan
        self.changes: dict[int, Change] = {}
        self.keys: dict[int, Tensor] = {}
        self._held: Tensor | None = None

    @property
    def so_far(self) -> WeightDelta:
        """What is written already, as a delta."""
        named = {self.model.ffn_out_name(layer): made for layer, made in self.changes.items()}
        return WeightDelta(named, self.model.fingerprint)

    def averaged(self, states: Tensor) -> Tensor:
        """`[group width]`: as keys are averaged, over contexts and over a group's requests."""
        sizes = [len(group.requests) for group in self.groups]
        each = key_star(states, self.plan.bare_weight).split(sizes)
        return torch.stack([members.mean(dim=0) for members in each])

    def write(self, layer: int, keys: Tensor, residuals: Tensor) -> None:
        """Answer keys with residuals, softly, in the layer's metric with earlier edits' keys."""
        metric, after = self.plan.prepared.metrics[layer], self.plan.after
        if self._held is None:
            self._held = held(metric, after, layer, keys)
        metric = remembering(metric, after, layer, self._held)
        self.changes[layer] = written(
            self.model, layer, self.groups, metric, keys, residuals, softness=1.0
        )
        self.keys[layer] = keys
