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
from typing import Literal

from torch import Tensor

from editing.edits.applying import applied
from editing.edits.delta import Change, WeightDelta
from editing.methods.closed_form.plan import Plan
from editing.methods.closed_form.values import Values, refuse_already_true
from editing.methods.closed_form.writing import Written, held, remembering, written
from labkit.models.anatomy import Site

Share = Literal["even", "sqrt"]
"""Which part of what is missing a layer takes, with n layers left: 1 / n or 1 / sqrt(n)."""


def spread(
    plan: Plan,
    *,
    share: Share,
    remember: bool,
    compared: Site = "resid_post",
    sites: Sequence[Site] = ("ffn_value",),
) -> Written:
    """Write what is missing at the last layer, a share per layer.

    Args:
        plan: The plan.
        share: The share of the residual that a layer takes.
        remember: Whether keys of the edits in effect join the metric.
        compared: At which site of the last layer wanted and present states are compared.
        sites: What the search may move; see `editing.methods.closed_form.values.value_stars`.

    Raises:
        AlreadyTrue, NonFiniteLoss, SingularSystem: Nothing is written then.
    """
    last = plan.layers[-1]
    found = plan.values(last, sites=sites)
    refuse_already_true(plan.groups, found)
    goal = (compared, last)
    wanted = plan.states([goal], push=(last, found.change))[goal]
    writer = _Writer(plan, remember)
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


def boundary(plan: Plan, *, remember: bool) -> Written:
    """Write every layer of the plan (in BLUE the first and the last), each with its own search.

    A later layer's search runs on the model with the earlier ones written: it adds what is
    still missing, which may be nothing.

    Args:
        plan: The plan.
        remember: Whether keys of the edits in effect join the metric.

    Raises:
        AlreadyTrue, NonFiniteLoss, SingularSystem: Nothing is written then.
    """
    writer = _Writer(plan, remember)
    found: list[Values] = []
    for layer in plan.layers:
        with applied(plan.model, writer.so_far):
            found.append(plan.values(layer))
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

    def __init__(self, plan: Plan, remember: bool) -> None:
        self.plan = plan
        self._after = plan.after if remember else None
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
        metric = self.plan.prepared.metrics[layer]
        if self._held is None:
            self._held = held(metric, self._after, layer, keys)
        metric = remembering(metric, self._after, layer, self._held)
        self.changes[layer] = written(self.plan, layer, metric, keys, residuals, softness=1.0)
        self.keys[layer] = keys
