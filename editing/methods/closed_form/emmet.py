"""EMMET: rewrite many facts at once by one change of one FFN matrix, every one exactly.

With values as rows (`V`, the FFN writes `k V + b`), the change `D` is the smallest one, in the
metric of the keys that occur, that answers every key `k_g` with its value `v_g`:

    min_D tr(D^T C D)   subject to   K D = R,   R = V* - K V - b
    D = C^-1 K^T (K C^-1 K^T)^-1 R

For one rewrite this is ROME's change. The constraints are met exactly, at any cost: keys that
nearly coincide make a large change, and keys that coincide are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from editing.edits.delta import WeightDelta
from editing.methods.closed_form.base import OneLayer, refuse_weight
from editing.methods.closed_form.solve import Metric, Occurring
from editing.methods.closed_form.writing import held, remembering
from labkit.text.moments import SecondMoment


@dataclass(frozen=True, kw_only=True)
class EMMET(OneLayer):
    """Equality-constrained Mass Model Editing in a Transformer.

        delta = EMMET()(model, rewrites)            # all of them in one change

    Besides the fields of `OneLayer`:

    Attributes:
        remember: Whether keys of earlier edits that are in effect join the metric, so that
            what was written under them is kept (the paper: no).
        weight: Weight of `C` against those keys, in the unit of
            `editing.methods.closed_form.solve.Occurring`; of no effect on a first edit.

    Shows:
        What a batch of rewrites costs where one layer has to meet every one of them exactly.

    Does not show:
        How well a rewrite is learned: what it asks for is met by construction, so that only
        paraphrases and neighbours can judge it.

    References:
        Gupta et al. 2024, A Unified Framework for Model Editing, section 4.

    Differs from the paper: keys of earlier edits are remembered; see also `ClosedForm`.
    """

    PRESET = "emmet"

    remember: bool = True
    weight: float = 0.1

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        super().__post_init__()
        refuse_weight(self.weight)

    def metric(self) -> Callable[[SecondMoment], Metric] | None:
        """`weight C`, or none."""
        return partial(Occurring, weight=self.weight) if self.covariance else None

    def metric_for(
        self, metric: Metric, after: WeightDelta | None, layer: int, keys: Tensor
    ) -> Metric:
        """The metric, which also penalises changes at remembered keys of earlier edits."""
        if not self.remember:
            return metric
        return remembering(metric, after, layer, held(metric, after, layer, keys))
