"""MEMIT: rewrite many facts at once, spreading the change over several layers.

`v*` is found at the last of the layers. From the first layer on, each is given a share of the
remaining residual, by weighted least squares:

    min_D  lambda tr(D^T C D) + ||K D - R||^2
    D = (lambda C + K^T K)^-1 K^T R

with values as rows (the FFN writes `k V + b`). Rewrites are met as far as the weight `lambda`
allows. `spread="boundary"` is BLUE: the first and the last layer only, each with its own
search, and without distributing a residual.
"""

from dataclasses import dataclass
from typing import Literal

from editing.methods.closed_form.base import Spreading
from editing.methods.closed_form.plan import Plan
from editing.methods.closed_form.spreading import boundary, spread
from editing.methods.closed_form.writing import Written
from labkit.models.model import LabModel


@dataclass(frozen=True, kw_only=True)
class MEMIT(Spreading):
    """Mass-Editing Memory in a Transformer, and BLUE.

        delta = MEMIT()(model, rewrites)            # BLUE: MEMIT(spread="boundary")

    Besides the fields of `Spreading`:

    Attributes:
        spread: "even": what is missing at the last layer, divided by the number of layers
            left (the paper). "boundary": BLUE.
        weight: `lambda`, in units of `d_mlp`: of a residual, a key as usual as those behind
            `C` would alone be given `1 / (1 + weight)`. The paper's 15000 for GPT-J
            (`d_mlp` 16384) is 0.92 in this unit, its 20000 for GPT-2 XL (6400) is 3.1.

    Shows:
        What a batch of rewrites reaches where several layers share it, and each gives way to the
        keys that usually occur as far as `weight` says.

    Does not show:
        Which of the layers did it: the blocks between do not pass on all that is written below
        them, so that the last one writes more than its share.

    References:
        Meng et al. 2023, Mass-Editing Memory in a Transformer, equations 13 to 20 and
        algorithm 1.
        Li et al. 2025, Rethinking Residual Distribution in Locate-then-Edit Model Editing.

    Differs from the paper: what is missing is the mean over the contexts, as the keys are;
    keys of earlier edits are remembered; see also `ClosedForm`. BLUE's second search runs on
    the model with the first layer written, and adds what is then missing.
    """

    PRESET = "memit"

    spread: Literal["even", "boundary"] = "even"

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be edited."""
        layers = super().layers_for(model)
        return layers if self.spread == "even" else tuple(dict.fromkeys((layers[0], layers[-1])))

    def write(self, plan: Plan) -> Written:
        """Write the last layer's residual, or what each layer's own search finds."""
        if self.spread == "even":
            return spread(plan, share="even", remember=self.remember)
        return boundary(plan, remember=self.remember)
