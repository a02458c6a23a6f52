"""A relation as an affine map from the subject's state to the output."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from labkit.errors import FingerprintMismatch
from labkit.models.model import LabModel
from labkit.results.measured import Measured


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearOperator(Measured):
    """A relation as an affine map from the subject's state to the output.

    Attributes:
        relation: Its name.
        weight: `W`.
        bias: `b`.
        beta: What `W` is scaled by.
        depth: Blocks that the subject's state has passed through.
        rank: Singular directions of `W` that are inverted for an edit.
        context: The demonstrations in front of every prompt.
        subjects: The subjects it was made from.
        chosen_on: The subjects on which depth, beta and rank were chosen.
        states: States of the examples at this depth.
        outputs: Their outputs.
        selection: On the latter: depth, beta, faithful (share of them), log_prob (of the model's
            own next token, mean in nats).
        selection_of_rank: Edits between them: rank, causal (share), log_prob.
    """

    relation: str
    weight: Float[Tensor, "d_out d_in"]
    bias: Float[Tensor, " d_out"]
    beta: float
    depth: int
    rank: int
    context: str
    subjects: tuple[str, ...]
    chosen_on: tuple[str, ...]
    states: Float[Tensor, "example d_model"]
    outputs: Float[Tensor, "example d_model"]
    selection: pd.DataFrame
    selection_of_rank: pd.DataFrame

    @property
    def title(self) -> str:
        """The relation, the depth, beta and rank."""
        return (
            f"{self.relation} as a linear map after {self.depth} blocks of {self.model}, "
            f"beta {self.beta:g}, from {len(self.subjects)} subjects"
        )

    def __call__(self, states: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """Outputs that the map predicts for subjects' states."""
        weight, bias = self.weight.to(states), self.bias.to(states)
        return self.beta * states @ weight.T + bias

    def edit(self, change: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """The move of the subject's state that should change the output so: `W_r^+ change`."""
        return change @ pseudo_inverse(self.weight, self.rank).to(change).T

    def require(self, model: LabModel) -> None:
        """Raise unless the operator is this model's.

        Raises:
            FingerprintMismatch: If it is another's.
        """
        if not model.is_own(self.fingerprint):
            raise FingerprintMismatch(
                f"the operator of {self.relation!r} is {self.model}'s and not {model.name}'s"
            )

    def to_frame(self) -> pd.DataFrame:
        """How depth and beta were chosen: depth, beta, faithful, log_prob."""
        return self.selection

    def figure(self) -> Any:
        """Log-probability of the model's own answer under the map, by depth and beta."""
        from labkit.plots import operator_selection

        return operator_selection(
            self.selection, depth=self.depth, beta=self.beta, title=self.title
        )


def pseudo_inverse(weight: Float[Tensor, "out d_in"], rank: int) -> Float[Tensor, "d_in out"]:
    """The inverse of a map on its `rank` largest singular directions, zero on the others."""
    u, sizes, vh = torch.linalg.svd(weight.float())
    sizes = sizes[:rank].clamp(min=torch.finfo(sizes.dtype).tiny)
    return einsum(vh[:rank], 1 / sizes, u[:, :rank], "r d_in, r, out r -> d_in out")
