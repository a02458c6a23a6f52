"""ROME: rewrite one fact by a rank-one change of one FFN matrix.

With values as rows (`ffn_out`, `V`, so that the FFN writes `k V + b`), the change is

    V' = V + (C^-1 k*) (v* - k* V - b)^T / (k*^T C^-1 k*)

the smallest change, in the metric of the keys that occur, that makes the FFN answer `k*`
with `v*`. Keys that are C^-1-orthogonal to `k*` are answered as before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editing.closed_form import ClosedForm, StepDone
from editing.delta import WeightDelta
from editing.keys import group_keys
from editing.prepared import Prepared
from editing.presets import preset
from editing.requests import Group, Request, one_rewrite
from editing.solve import Metric, Occurring
from editing.values import refuse_already_true, value_stars
from editing.writing import Written, ffn_answer, written
from labkit.models import LabModel
from labkit.moments import SecondMoment


@dataclass(frozen=True, kw_only=True)
class ROME(ClosedForm):
    """Rank-One Model Editing.

    Besides the fields of `ClosedForm`:

    Attributes:
        layer: The layer to edit; by default the preset of the model.
        covariance: Whether to use `C`. Without it neighbours suffer; for comparison only.
        two_keys: Whether to do as the first published code did, and let `k*` give only the
            direction, while the size of the change is measured with the bare prompt's own
            key. Edits made so drift when they follow one another; for comparison only.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 3.1.
        Gupta et al. 2024, Rebuilding ROME, for the one `k*`.

    Differs from the paper: see `ClosedForm`.
    """

    layer: int | None = None
    covariance: bool = True
    two_keys: bool = False

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is not exactly one rewrite.
            DuplicateSubject: If there are several about one subject.
        """
        one_rewrite(rewrites)

    def layer_for(self, model: LabModel) -> int:
        """The layer that will be edited."""
        return model.layer(preset(model).layer if self.layer is None else self.layer)

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The one layer that will be edited."""
        return (self.layer_for(model),)

    def metric(self) -> Callable[[SecondMoment], Metric] | None:
        """`C`, or none."""
        return Occurring if self.covariance else None

    def write(
        self,
        model: LabModel,
        groups: Sequence[Group],
        layers: Sequence[int],
        prepared: Prepared,
        after: WeightDelta | None,
        step_done: StepDone | None,
    ) -> Written:
        """Answer `k*` with `v*`, exactly."""
        (layer,) = layers
        contexts, metric = prepared.contexts, prepared.metrics[layer]
        keys = group_keys(model, groups, layer, contexts, self.bare_weight)
        near = prepared.near(groups, layer, keys, self.search)
        found = value_stars(
            model, groups, layer, contexts, self.search, near=near, step_done=step_done
        )
        refuse_already_true(groups, found)
        sized_by = group_keys(model, groups, layer, contexts, 1.0) if self.two_keys else keys
        residuals = found.v_star.double() - ffn_answer(model, layer, sized_by)
        if self.two_keys:  # the change answers `k*` with what makes the bare key's answer right
            direction = metric.solve(keys)
            residuals = residuals * (direction * keys).sum() / (direction * sized_by).sum()
        change = written(model, layer, groups, metric, keys, residuals, softness=0.0)
        return Written({layer: change}, {layer: keys}, found)
