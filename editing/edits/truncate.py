"""The best approximation of a change at a lower rank, with its error stated.

Of all matrices of rank `r`, the first `r` terms of the singular value decomposition are the
nearest one, in the Frobenius and in the spectral norm (Eckart and Young 1936). The spectral norm of
what is left out is the largest singular value dropped.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.change import Change, Dense, LowRank
from editing.edits.delta import WeightDelta
from editing.edits.provenance import of_composition
from labkit.arguments import checked
from labkit.errors import InputError


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A change as a sum of rank-one terms, largest first, in float64.

    Attributes:
        left: `[rows, term]`, orthonormal columns.
        values: `[term]`, the singular values, descending.
        right: `[term, columns]`, orthonormal rows.
    """

    left: Float[Tensor, "rows term"]
    values: Float[Tensor, " term"]
    right: Float[Tensor, "term columns"]

    @classmethod
    def of(cls, change: Change) -> "Spectrum":
        """The singular value decomposition of a matrix; of factors through their QR.

        Raises:
            InputError: If the change is one of a vector, which has no rank to lower.
        """
        if isinstance(change, LowRank):
            q_left, r_left = torch.linalg.qr(change.left.double())
            q_right, r_right = torch.linalg.qr(change.right.double().T)
            core, values, core_right = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
            return cls(q_left @ core, values, core_right @ q_right.T)
        if change.matrix.dim() != 2:
            raise InputError(f"a change of shape {change.shape} is no matrix and has no rank")
        return cls(*torch.linalg.svd(change.matrix.double(), full_matrices=False))

    def truncated(self, rank: int) -> LowRank:
        """The first terms as factors of equal size, float32."""
        root = self.values[:rank].sqrt()
        left, right = self.left[:, :rank] * root, root[:, None] * self.right[:rank]
        return LowRank(left.float(), right.float())

    def rank_for(self, energy: float) -> int:
        """The smallest rank that keeps a share of the squared Frobenius norm."""
        kept = self.values.square().cumsum(0)
        return 1 + int((kept < energy * kept[-1] * (1 - 1e-15)).sum()) if kept[-1] > 0 else 0


@checked
def truncated(
    delta: WeightDelta, *, rank: int | None = None, energy: float | None = None
) -> WeightDelta:
    """A delta with every matrix replaced by the best one of a lower rank.

    The last of its `steps` says, by weight, what that cost: `relative_error`, the Frobenius
    norm of what is missing over that of the change, and `largest_dropped`, the largest
    singular value left out. Vectors stay as they are.

    Args:
        delta: The delta.
        rank: The rank of every matrix, at most.
        energy: In place of a rank: the share of the squared Frobenius norm that each matrix
            keeps, in (0, 1].

    Raises:
        InputError: If not exactly one of the two is given, or it is out of its range.
    """
    if (rank is None) == (energy is None):
        raise InputError("truncate to a rank or to a share of the energy: name one of the two")
    if rank is not None and rank < 1:
        raise InputError(f"rank {rank}: keep at least one")
    if energy is not None and not 0 < energy <= 1:
        raise InputError(f"energy {energy} is a share of the squared norm: above 0, at most 1")
    changes: dict[str, Change] = {}
    errors = {}
    for name, change in delta.changes.items():
        if isinstance(change, Dense) and change.matrix.dim() != 2:
            changes[name] = change
            continue
        spectrum = Spectrum.of(change)
        keep = rank if rank is not None else spectrum.rank_for(float(energy or 0))
        changes[name], errors[name] = cut(change, spectrum, keep)
    step = {"method": "truncation", "rank": rank, "energy": energy, "weights": errors}
    return replace(delta, changes=changes, provenance=of_composition([*delta.steps, step]))


def cut(change: Change, spectrum: Spectrum, rank: int) -> tuple[LowRank, dict[str, float]]:
    """The leading terms of a change, and the size of the rest.

    The error is measured on the float32 factors that come out, rounding included.
    """
    rank = min(rank, len(spectrum.values))
    short = spectrum.truncated(rank)
    whole = change.dense().double()
    missing = (whole - short.left.double() @ short.right.double()).norm()
    dropped = spectrum.values[rank:]
    return short, {
        "rank": rank,
        "relative_error": float(missing / whole.norm()) if whole.norm() > 0 else 0.0,
        "largest_dropped": float(dropped[0]) if len(dropped) else 0.0,
    }
