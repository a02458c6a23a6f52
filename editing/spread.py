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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from editing.delta import Change, WeightDelta, applied
from editing.keys import key_star
from editing.requests import Group
from editing.solve import Metric
from editing.states import subject_states
from editing.values import Values, ValueSearch, refuse_already_true, value_stars
from editing.writing import remembering, written
from labkit.models import LabModel, Site

Share = Literal["even", "sqrt"]
"""Which part of what is missing a layer takes, with n layers left: 1 / n or 1 / sqrt(n)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a spread is made of.

    Attributes:
        layers: The layers to write, ascending.
        metrics: By layer, what a change costs elsewhere.
        contexts: What stands in front of a prompt; the first one is empty.
        bare_weight: See `editing.keys.key_star`.
        search: How `v*` is searched for.
        softness: See `editing.solve.change`.
        after: What is applied to the model, if its keys are to be remembered.
    """

    layers: Sequence[int]
    metrics: Mapping[int, Metric]
    contexts: Sequence[str]
    bare_weight: float
    search: ValueSearch
    softness: float
    after: WeightDelta | None


@dataclass(frozen=True)
class Spread:
    """What was written.

    Attributes:
        changes: By layer, the change of its weight.
        keys: By layer, the keys `[group d_mlp]` that it was made for.
        found: The search for `v*` (the first of them, where there are several).
        missing: By layer, mean over groups of how much was missing before it was written,
            in units of what was missing at first.
    """

    changes: dict[int, Change]
    keys: dict[int, Tensor]
    found: Values
    missing: dict[int, float]


def spread(
    model: LabModel,
    groups: Sequence[Group],
    plan: Plan,
    *,
    share: Share,
    compared: Site = "resid_post",
    sites: Sequence[Site] = ("ffn_value",),
    step_done: Callable[[int, float], None] | None = None,
) -> Spread:
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
    last = plan.layers[-1]
    found = value_stars(
        model, groups, last, plan.contexts, plan.search, sites=sites, step_done=step_done
    )
    refuse_already_true(groups, found)
    wanted = subject_states(
        model, groups, [(compared, last)], plan.contexts, push=(last, found.change)
    )[compared, last]
    changes: dict[int, Change] = {}
    kept: dict[int, Tensor] = {}
    missing: dict[int, float] = {}
    at_first: Tensor | None = None
    for number, layer in enumerate(plan.layers):
        with applied(model, _so_far(model, changes)):
            seen = subject_states(
                model, groups, [("ffn_key", layer), (compared, last)], plan.contexts
            )
        keys = _averaged(seen["ffn_key", layer], groups, plan.bare_weight)
        residuals = _averaged(wanted - seen[compared, last], groups, plan.bare_weight)
        lengths = residuals.norm(dim=1)
        at_first = lengths if at_first is None else at_first
        missing[layer] = float((lengths / at_first).mean())
        n_left = len(plan.layers) - number
        metric = remembering(plan.metrics[layer], plan.after, layer, keys)
        part = residuals / (n_left if share == "even" else n_left**0.5)
        changes[layer] = written(model, layer, groups, metric, keys, part, softness=plan.softness)
        kept[layer] = keys
    return Spread(changes, kept, found, missing)


def boundary(
    model: LabModel,
    groups: Sequence[Group],
    plan: Plan,
    *,
    step_done: Callable[[int, float], None] | None = None,
) -> Spread:
    """Write the first and the last layer, each with its own search for `v*`.

    The last layer's search runs on the model with the first layer written: it adds what is
    still missing, which may be nothing.

    Raises:
        AlreadyTrue, NonFiniteLoss, SingularSystem: Nothing is written then.
    """
    changes: dict[int, Change] = {}
    kept: dict[int, Tensor] = {}
    missing: dict[int, float] = {}
    first: Values | None = None
    for layer in dict.fromkeys((plan.layers[0], plan.layers[-1])):
        with applied(model, _so_far(model, changes)):
            found = value_stars(
                model, groups, layer, plan.contexts, plan.search, step_done=step_done
            )
            seen = subject_states(model, groups, [("ffn_key", layer)], plan.contexts)
        if first is None:
            refuse_already_true(groups, found)
            first = found
        keys = _averaged(seen["ffn_key", layer], groups, plan.bare_weight)
        metric = remembering(plan.metrics[layer], plan.after, layer, keys)
        changes[layer] = written(
            model, layer, groups, metric, keys, found.change, softness=plan.softness
        )
        kept[layer] = keys
        missing[layer] = float((found.steps > 0).double().mean())
    assert first is not None  # there is at least one layer
    return Spread(changes, kept, first, missing)


def _averaged(states: Tensor, groups: Sequence[Group], bare_weight: float) -> Tensor:
    """`[group width]`: as keys are averaged, over contexts and over a group's requests."""
    each = key_star(states, bare_weight).split([len(group.requests) for group in groups])
    return torch.stack([members.mean(dim=0) for members in each])


def _so_far(model: LabModel, changes: Mapping[int, Change]) -> WeightDelta:
    """What is written already, as a delta."""
    named = {model.ffn_out_name(layer): made for layer, made in changes.items()}
    return WeightDelta(named, model.fingerprint)
