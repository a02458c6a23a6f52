"""PMET: many facts at once, searched for in attention and FFN together, written into the FFN.

At the last of the layers, a change of attention's output and a change of the FFN's output are
searched for together; attention's part helps to produce the new object and is then dropped, so that
only the FFN's own part is written. The residual of the FFN's output there is written into every
layer, a square-root share each:

    R_l = (v* - v) / sqrt(L - l + 1)
    D = (lambda C + K^T K)^-1 K^T R_l

with values as rows (the FFN writes `k V + b`).
"""

from dataclasses import dataclass

from editing.methods.closed_form.base import Spreading
from editing.methods.closed_form.plan import Plan
from editing.methods.closed_form.spreading import spread
from editing.methods.closed_form.writing import Written


@dataclass(frozen=True, kw_only=True)
class PMET(Spreading):
    """Precise Model Editing in a Transformer.

        delta = PMET()(model, rewrites)

    Besides the fields of `Spreading`:

    Attributes:
        weight: `lambda`, in units of `d_mlp`: of a residual, a key as usual as those behind
            `C` would alone be given `1 / (1 + weight)`. The paper's 6000 for GPT-J
            (`d_mlp` 16384) is 0.37 in this unit.

    Shows:
        What is gained where the search may use attention, and only the FFN is written.

    Does not show:
        That the edited model produces what the search found: attention's part is not written.

    References:
        Li et al. 2024, PMET: Precise Model Editing in a Transformer, section 4.

    Differs from the paper: what is missing is the mean over the contexts, as the keys are;
    keys of earlier edits are remembered; see also `ClosedForm`.
    """

    PRESET = "pmet"

    def write(self, plan: Plan) -> Written:
        """Write the residual of the FFN's output at the last layer."""
        return spread(
            plan,
            share="sqrt",
            remember=self.remember,
            compared="ffn_value",
            sites=("ffn_value", "attn_out"),
        )
