"""ROME: rewrite one fact by a rank-one change of one FFN matrix.

With values as rows (`ffn_out`, `V`, so that the FFN writes `k V + b`), the change is

    V' = V + (C^-1 k*) (v* - k* V - b)^T / (k*^T C^-1 k*)

the smallest change, in the metric of the keys that occur, that makes the FFN answer `k*`
with `v*`. The output at keys that are C^-1-orthogonal to `k*` does not change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from editing.edits.requests import Request, one_rewrite
from editing.methods.closed_form.base import OneLayer
from editing.methods.closed_form.plan import Plan


@dataclass(frozen=True, kw_only=True)
class ROME(OneLayer):
    """Rank-One Model Editing.

        delta = ROME(layer=3)(model, [rewrite])     # one rewrite at a time, in a list
        with applied(model, delta):
            predict(model, rewrite.prompt)

    Besides the fields of `OneLayer`:

    Attributes:
        two_keys: Whether to do as the first published code did, and let `k*` give only the
            direction, while the size of the change is measured with the bare prompt's own
            key. Sequences of edits made this way drift; for comparison only.

    Shows:
        How far one rank-one change of one FFN matrix, at the subject's last token, makes a new
        object the answer to the prompt and to its paraphrases, and what neighbours pay for it.

    Does not show:
        That the fact was stored in that layer: where a trace peaks does not predict where an edit
        works (Hase et al. 2023). Nor that what follows from the fact has changed with it.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 3.1.
        Gupta et al. 2024, Rebuilding ROME, for the one `k*`.

    Differs from the paper: see `ClosedForm`.
    """

    PRESET = "rome"

    two_keys: bool = False

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is not exactly one rewrite.
            DuplicateSubject: If there are several about one subject.
        """
        one_rewrite(rewrites)

    def lacking(
        self,
        plan: Plan,
        layer: int,
        keys: Float[Tensor, "group d_mlp"],
        v_star: Float[Tensor, "group d_model"],
    ) -> Float[Tensor, "group d_model"]:
        """The residual at `k*`; with two keys, scaled so that the bare key is mapped to `v*`."""
        if not self.two_keys:
            return super().lacking(plan, layer, keys, v_star)
        bare = plan.keys(layer, bare_weight=1.0)
        direction = plan.prepared.metrics[layer].solve(keys)
        lacking = super().lacking(plan, layer, bare, v_star)
        return lacking * (direction * keys).sum() / (direction * bare).sum()
