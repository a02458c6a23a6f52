"""From keys and residuals to the change of one layer, and the keys kept for later edits.

A delta's memory holds the keys that it was made for, by layer: a later edit that reads them
counts what its change does to them as a cost (`editing.methods.closed_form.solve.Remembering`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from editing.edits.delta import Change, Dense, LowRank, WeightDelta
from editing.edits.provenance import of_edit
from editing.edits.requests import Request
from editing.methods.closed_form.plan import Plan
from editing.methods.closed_form.solve import Metric, Remembering, change
from editing.methods.closed_form.values import Values
from labkit.models.model import LabModel

SUPERSEDED = 0.6
"""Cosine, in the metric, from which on a new edit's key takes the place of an earlier one.

On SmolLM2-135M, layers 1 to 6, keys of 40 subjects in two templates: above 0.57 for one
subject (median 0.95), below 0.38 for two.
"""


@dataclass(frozen=True)
class Written:
    """The changes that a closed-form method wrote.

    Attributes:
        changes: By layer, the change of its weight.
        keys: By layer, the keys `[group d_mlp]` that it was made for.
        found: The search for `v*` (the first of them, where there are several).
        missing: Of methods that write several layers, mean over groups of how much was
            missing before each was written, in units of what was missing at first; where
            every layer has a search of its own, the share of groups that lacked anything.
    """

    changes: Mapping[int, Change]
    keys: Mapping[int, Tensor]
    found: Values
    missing: Mapping[int, float] = field(default_factory=dict)


def ffn_answer(
    model: LabModel, layer: int, keys: Float[Tensor, "key d_mlp"]
) -> Float[Tensor, "key d_model"]:
    """The output of the FFN's output projection for keys, bias included, float64."""
    answer = keys.double() @ model.ffn_out(layer).double()
    bias = model.ffn_bias(layer)
    return answer if bias is None else answer + bias.double()


def written(
    plan: Plan,
    layer: int,
    metric: Metric,
    keys: Float[Tensor, "group d_mlp"],
    residuals: Float[Tensor, "group d_model"],
    *,
    softness: float,
) -> Change:
    """The change of a layer's weight that maps keys to residuals, as it is stored.

    Raises:
        SingularSystem: See `editing.methods.closed_form.solve.change`.
    """
    names = [group.subject for group in plan.groups]
    left, right = change(metric, keys, residuals, softness=softness, names=names)
    if plan.model.ffn_out_transposed(layer):
        left, right = right.T, left.T
    rows, columns = left.shape[0], right.shape[1]
    if len(names) * (rows + columns) > rows * columns:
        return Dense((left @ right).float())
    return LowRank(left.float().contiguous(), right.float().contiguous())


def memory_name(layer: int) -> str:
    """Name of a layer's keys in the memory of a delta."""
    return f"keys.{layer}"


def held(
    metric: Metric, after: WeightDelta | None, layer: int, keys: Float[Tensor, "group d_mlp"]
) -> Bool[Tensor, " earlier"]:
    """The keys of earlier edits that a new edit must preserve.

    All but those that (nearly) are one of its own: it is about the same subject then, and
    takes the earlier one's place.

    Args:
        metric: The metric without earlier keys.
        after: The edits in effect.
        layer: The first layer that is edited: its keys depend on no edit of these layers.
        keys: The new edit's keys there.
    """
    earlier = _earlier(after, layer)
    if earlier is None:
        return torch.ones(0, dtype=torch.bool)
    keys = keys.double().cpu()
    old, new = metric.solve(earlier), metric.solve(keys)
    lengths = torch.outer((old * earlier).sum(1), (new * keys).sum(1)).clamp(min=1e-300).sqrt()
    return ((old @ keys.T).abs() < SUPERSEDED * lengths).all(dim=1)


def remembering(
    metric: Metric, after: WeightDelta | None, layer: int, kept: Bool[Tensor, " earlier"]
) -> Metric:
    """The metric that also penalises changes at the keys of earlier edits.

    Args:
        metric: The metric without them.
        after: The edits in effect.
        layer: The layer.
        kept: From `held`, for the first layer that is edited. A layer with another number of
            earlier keys, written by other methods too, keeps them all.
    """
    earlier = _earlier(after, layer)
    if earlier is None:
        return metric
    return Remembering(metric, earlier[kept] if len(kept) == len(earlier) else earlier)


def _earlier(after: WeightDelta | None, layer: int) -> Float[Tensor, "earlier d_mlp"] | None:
    """Keys of the edits in effect, float64, if there are any of this layer."""
    rows = None if after is None else after.memory.get(memory_name(layer))
    return None if rows is None else rows.double().cpu()


def delta_of(method: Any, requests: Sequence[Request], plan: Plan, done: Written) -> WeightDelta:
    """The delta of a closed-form method.

    Args:
        method: The method; its fields go into the provenance.
        requests: What was asked for, in the caller's order.
        plan: What was to be written.
        done: What was written.
    """
    model, after = plan.model, plan.after
    distance = done.found.change.norm(dim=1) / done.found.v.norm(dim=1)
    return WeightDelta(
        {model.ffn_out_name(layer): made for layer, made in done.changes.items()},
        model.fingerprint,
        of_edit(
            method,
            model,
            requests,
            layers=list(done.changes),
            **plan.prepared.provenance(),
            search_steps=done.found.steps.tolist(),
            search_losses=[list(losses) for losses in done.found.losses],
            lowest_target_probability_in_search=done.found.probability.tolist(),
            distance_in_norms=distance.tolist(),
            **({"missing_before": dict(done.missing)} if done.missing else {}),
        ),
        on_top_of=None if after is None else after.digest,
        memory={memory_name(layer): rows.float().cpu() for layer, rows in done.keys.items()},
    )
