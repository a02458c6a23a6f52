"""EMMET: rewrite many facts at once by one change of one FFN matrix, every one exactly.

With values as rows (`V`, the FFN writes `k V + b`), the change `D` is the smallest one, in the
metric of the keys that occur, that answers every key `k_g` with its value `v_g`:

    min_D tr(D^T C D)   subject to   K D = R,   R = V* - K V - b
    D = C^-1 K^T (K C^-1 K^T)^-1 R

One rewrite gives ROME's change. What is asked is met to the letter, at any price: keys that
nearly coincide make a large change, and keys that coincide are refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from editing.closed_form import ClosedForm, StepDone, refuse_weight
from editing.delta import WeightDelta
from editing.keys import group_keys
from editing.prepared import Prepared
from editing.presets import preset
from editing.requests import Group
from editing.solve import Metric, Occurring
from editing.values import refuse_already_true, value_stars
from editing.writing import Written, ffn_answer, held, remembering, written
from labkit.models import LabModel
from labkit.moments import SecondMoment


@dataclass(frozen=True, kw_only=True)
class EMMET(ClosedForm):
    """Equality-constrained Mass Model Editing in a Transformer.

    Besides the fields of `ClosedForm`:

    Attributes:
        layer: The layer to edit; by default the preset of the model.
        covariance: Whether to use `C`. Without it neighbours suffer; for comparison only.
        remember: Whether keys of earlier edits that are in effect join the metric, so that
            what was written under them is kept (the paper: no).
        weight: Weight of `C` against those keys, in the unit of `editing.solve.Occurring`.
            Of no effect on a first edit.

    References:
        Gupta et al. 2024, A Unified Framework for Model Editing, section 4.

    Differs from the paper: keys of earlier edits are remembered; see also `ClosedForm`.
    """

    layer: int | None = None
    covariance: bool = True
    remember: bool = True
    weight: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        super().__post_init__()
        refuse_weight(self.weight)

    def layer_for(self, model: LabModel) -> int:
        """The layer that will be edited."""
        return model.layer(preset(model, "emmet").layer if self.layer is None else self.layer)

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The one layer that will be edited."""
        return (self.layer_for(model),)

    def metric(self) -> Callable[[SecondMoment], Metric] | None:
        """`C`, or none."""
        return partial(Occurring, weight=self.weight) if self.covariance else None

    def write(
        self,
        model: LabModel,
        groups: Sequence[Group],
        layers: Sequence[int],
        prepared: Prepared,
        after: WeightDelta | None,
        step_done: StepDone | None,
    ) -> Written:
        """Answer every key with its value, exactly."""
        (layer,) = layers
        contexts, metric = prepared.contexts, prepared.metrics[layer]
        keys = group_keys(model, groups, layer, contexts, self.bare_weight)
        near = prepared.near(groups, layer, keys, self.search)
        found = value_stars(
            model, groups, layer, contexts, self.search, near=near, step_done=step_done
        )
        refuse_already_true(groups, found)
        known = after if self.remember else None
        metric = remembering(metric, known, layer, held(metric, known, layer, keys))
        residuals = found.v_star.double() - ffn_answer(model, layer, keys)
        change = written(model, layer, groups, metric, keys, residuals, softness=0.0)
        return Written({layer: change}, {layer: keys}, found)
