"""What is added to one weight: a matrix of low rank, or one without structure.

Both have the orientation of the parameter that they change, in float32.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """A matrix `left @ right`, in the orientation of the parameter that it changes.

    Attributes:
        left: `[rows, rank]`, float32.
        right: `[rank, columns]`, float32.
    """

    left: Float[Tensor, "rows rank"]
    right: Float[Tensor, "rank columns"]

    @property
    def rank(self) -> int:
        """Number of columns of `left`: an upper bound on the matrix's rank."""
        return self.left.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix."""
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The matrix itself."""
        return self.left @ self.right

    def scaled(self, factor: float) -> "LowRank":
        """The matrix times a number."""
        return LowRank(self.left * factor, self.right)

    def __add__(self, other: "Change") -> "Change":
        """The sum: the factors side by side, or dense once that takes less room."""
        if isinstance(other, Dense):
            return other + self
        total = LowRank(
            torch.cat([self.left, other.left], dim=1), torch.cat([self.right, other.right])
        )
        rows, columns = total.shape
        return total if total.rank * (rows + columns) < rows * columns else Dense(total.dense())


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix without structure, or a vector (a bias, a norm's weight).

    Attributes:
        matrix: `[rows, columns]` or `[entries]`, float32.
    """

    matrix: Float[Tensor, "*shape"]

    @property
    def rank(self) -> int:
        """The smaller side: an upper bound on the matrix's rank; 1 for a vector."""
        return min(self.matrix.shape) if self.matrix.dim() > 1 else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix or vector."""
        return tuple(self.matrix.shape)

    def dense(self) -> Float[Tensor, "*shape"]:
        """The matrix itself."""
        return self.matrix

    def scaled(self, factor: float) -> "Dense":
        """The matrix times a number."""
        return Dense(self.matrix * factor)

    def __add__(self, other: "Change") -> "Dense":
        """The sum."""
        return Dense(self.matrix + other.dense())


Change = LowRank | Dense
"""What is added to one weight."""


def added(weight: Float[Tensor, "*shape"], change: Change) -> Float[Tensor, "*shape"]:
    """A weight with a change added, in float32 at least.

    Half precision would round the change away before it is added.
    """
    precise = torch.promote_types(weight.dtype, torch.float32)
    return weight.to(precise) + change.dense().to(weight.device)


def parts(change: Change) -> dict[str, Tensor]:
    """The tensors that make up a change, by name."""
    if isinstance(change, Dense):
        return {"matrix": change.matrix}
    return {"left": change.left, "right": change.right}


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.bfloat16` as `bfloat16`."""
    return str(dtype).removeprefix("torch.")
