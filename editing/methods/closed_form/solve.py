"""Least squares over keys: the problem that every closed-form method solves, in float64.

With values as rows (the FFN writes `k V`), a change `D` of `V` has to map some keys `K` to
residuals `R` at the least cost to all other keys, which a metric `A` measures:

    exact:  min_D  tr(D^T A D)                     subject to  K D = R
    soft:   min_D  tr(D^T A D) + ||K D - R||^2 / s

Both are solved by

    D = A^-1 K^T (K A^-1 K^T + s I)^-1 R           (s = 0 for exact)

so that the metric is the only difference between ROME and EMMET (`A = C`), MEMIT (`A = lambda C`)
and AlphaEdit (`A = lambda I` inside a subspace, infinite outside). Keys of earlier edits join
any metric, `A + K_p^T K_p`, by Woodbury's identity: nothing of the size of a weight is factorised
anew for an edit.

References:
    Meng et al. 2022, Locating and Editing Factual Associations in GPT, equation 2.
    Meng et al. 2023, Mass-Editing Memory in a Transformer, equation 14.
    Gupta et al. 2024, A Unified Framework for Model Editing, section 4.
    Fang et al. 2025, AlphaEdit, equations 7 to 14.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError, SingularSystem
from labkit.text.moments import SecondMoment

logger = logging.getLogger(__name__)

NEARLY_ALL = 0.9
"""Share of all directions from which on a null space is remarked upon."""

COLLISION = 1e-6
"""Share of a key, in squared length, that the keys before it must leave unexplained."""


@runtime_checkable
class Metric(Protocol):
    """The cost of a change for all other keys: `tr(D^T A D)`."""

    def solve(self, keys: Float[Tensor, "key d_mlp"]) -> Float[Tensor, "key d_mlp"]:
        """`A^-1 k` for every key, float64."""
        ...


@dataclass(frozen=True)
class Euclidean:
    """`A = scale I`: every direction costs the same."""

    scale: float = 1.0

    def solve(self, keys: Float[Tensor, "key d_mlp"]) -> Float[Tensor, "key d_mlp"]:
        """`A^-1 k` for every key, float64."""
        return keys.double() / self.scale


@dataclass(frozen=True, eq=False)
class Occurring:
    """`A = weight d_mlp C`: a direction costs in proportion to its second moment.

    Attributes:
        moment: `C`.
        weight: In this unit a key as usual as those behind `C` (whose mean of `k^T C^-1 k`
            is `d_mlp`) would, softly and alone, be given `1 / (1 + weight)` of its residual,
            whatever the model and the number of keys behind `C`.
    """

    moment: SecondMoment
    weight: float = 1.0

    def solve(self, keys: Float[Tensor, "key d_mlp"]) -> Float[Tensor, "key d_mlp"]:
        """`A^-1 k` for every key, float64.

        Raises:
            SingularSystem: If `C` is singular or not finite.
        """
        return self.moment.solve(keys.double()) / (self.weight * keys.shape[1])


@dataclass(frozen=True, eq=False)
class Subspace:
    """`A = scale I` for changes `D = P D` of a subspace, with projector `P`; no other is allowed.

    Attributes:
        basis: Orthonormal columns, float64: of the subspace, or of what lies outside of it,
            whichever are fewer.
        outside: Whether they are those outside: `P = I - B B^T` in place of `B B^T`.
        scale: What a change inside costs.
    """

    basis: Float[Tensor, "d_mlp direction"]
    outside: bool = False
    scale: float = 1.0

    @property
    def dimension(self) -> int:
        """Number of directions in which a change is allowed."""
        d_mlp, n_columns = self.basis.shape
        return d_mlp - n_columns if self.outside else n_columns

    def solve(self, keys: Float[Tensor, "key d_mlp"]) -> Float[Tensor, "key d_mlp"]:
        """`P k / scale` for every key, float64."""
        keys = keys.double()
        part = (keys @ self.basis) @ self.basis.T
        return (keys - part if self.outside else part) / self.scale


@dataclass(frozen=True, eq=False)
class Remembering:
    """`A + K_p^T K_p`: a metric that also penalises changes at the keys of earlier edits.

    Attributes:
        metric: `A`.
        earlier: `K_p`, the keys of earlier edits.
    """

    metric: Metric
    earlier: Float[Tensor, "earlier d_mlp"]

    @cached_property
    def _solved(self) -> tuple[Tensor, Tensor]:
        """`A^-1 K_p^T`, as rows, and the Cholesky factor of `I + K_p A^-1 K_p^T`."""
        earlier = self.earlier.double()
        directions = self.metric.solve(earlier)
        gram = directions @ earlier.T
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return directions, torch.linalg.cholesky(eye + (gram + gram.T) / 2)

    def solve(self, keys: Float[Tensor, "key d_mlp"]) -> Float[Tensor, "key d_mlp"]:
        """`(A + K_p^T K_p)^-1 k` for every key, float64."""
        if not len(self.earlier):
            return self.metric.solve(keys)
        directions, factor = self._solved
        return (
            self.metric.solve(keys)
            - torch.cholesky_solve(directions @ keys.double().T, factor).T @ directions
        )


def null_space(moment: SecondMoment, threshold: float, *, weight: float = 1.0) -> Subspace:
    """The (approximate) null space of the keys that occur, as a metric.

    The eigenvectors of `C` with the smallest eigenvalues, as many as together hold at most
    `threshold` of its trace: of the squared length of the keys behind `C`, all but that share
    lies outside and is answered as before. If those keys differ much in length, that is a
    statement about the longest: bring them to one length first
    (`labkit.text.moments.second_moments`).

    Args:
        moment: `C`.
        threshold: Share of the trace, 0..1; at 1 the subspace is the whole space.
        weight: What a change inside costs, in the unit of `Occurring`: softly and alone, a
            key as usual as those behind `C` would be given `1 / (1 + weight)` of its residual.

    Raises:
        InputError: If the threshold is not in 0..1, or leaves no direction.
        SingularSystem: If `C` is zero or not finite.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"a null space with {threshold} of the trace: choose a share, 0 to 1")
    if not (0 < float(moment.matrix.trace()) < torch.inf):
        raise SingularSystem(
            f"the second moment of layer {moment.layer} has a trace of {moment.matrix.trace()}: "
            "measure it on more text, or on a model that does not overflow"
        )
    held, directions = torch.linalg.eigh(moment.matrix)  # smallest first
    held = held.clamp(min=0)
    share = held.cumsum(0) / held.sum()
    n_kept = len(held) if threshold == 1 else int((share <= threshold).sum())
    if not n_kept:
        raise InputError(
            f"threshold {threshold} leaves no direction of layer {moment.layer}: its smallest "
            f"one holds {share[0]:.2g} of the trace"
        )
    # Directions that no key has (dead neurons) cost something all the same.
    if n_kept > NEARLY_ALL * len(held):
        logger.warning(
            "of layer %d, %d of %d directions are open to change: a null space this large may hold "
            "ordinary keys, and protects little. Choose a smaller threshold (now %g), or another "
            "layer",
            moment.layer,
            n_kept,
            len(held),
            threshold,
        )
    usual = held[:n_kept].sum() + torch.finfo(held.dtype).eps * held.sum()
    outside = 2 * n_kept > len(held)
    basis = directions[:, n_kept:] if outside else directions[:, :n_kept]
    return Subspace(basis.contiguous(), outside, float(weight * usual))


def change(
    metric: Metric,
    keys: Float[Tensor, "key d_mlp"],
    residuals: Float[Tensor, "key d_model"],
    *,
    softness: float = 0.0,
    names: Sequence[str] | None = None,
) -> tuple[Float[Tensor, "d_mlp key"], Float[Tensor, "key d_model"]]:
    """The change that maps keys to residuals, as the factors of `D = left @ right`.

    Args:
        metric: The cost of the change elsewhere.
        keys: `K`, distinct.
        residuals: `R`, the wanted change of the output at each key.
        softness: `s`: 0 for `K D = R` exactly.
        names: Names of the keys in error messages: their subjects.

    Returns:
        Left and right, float64 on the CPU. `left` is orthonormal in the metric (for `s = 0`),
        so that rounding the factors costs no more than rounding `D`.

    Raises:
        SingularSystem: If a key or residual is not finite, or (nearly) a combination of
            the others, or the metric allows no change that would answer it.
    """
    keys, residuals = keys.double().cpu(), residuals.double().cpu()
    names = [f"number {i}" for i in range(len(keys))] if names is None else list(names)
    for i, name in enumerate(names):
        if not (keys[i].isfinite().all() and residuals[i].isfinite().all()):
            raise SingularSystem(
                f"the key or the wanted answer of {name!r} is not finite: the model overflows "
                "there; load it in a wider dtype"
            )
    directions = metric.solve(keys)
    gram = directions @ keys.T
    gram = (gram + gram.T) / 2
    factor = _cholesky(gram, softness, names)
    left = torch.linalg.solve_triangular(factor, directions, upper=False).T
    right = torch.linalg.solve_triangular(factor, residuals, upper=False)
    return left, right


def _cholesky(gram: Tensor, softness: float, names: Sequence[str]) -> Tensor:
    """Cholesky factor of `gram + softness I`, or an error with the names of the culprits."""
    diagonal = gram.diagonal() + softness
    unanswered = (~(diagonal > torch.finfo(gram.dtype).tiny)).nonzero()
    if len(unanswered):
        raise SingularSystem(
            f"the key of {names[int(unanswered[0])]!r} lies outside the directions that may be "
            "changed: raise threshold"
        )
    length = diagonal.sqrt()
    cosine = (gram + softness * torch.eye(len(gram), dtype=gram.dtype)) / torch.outer(
        length, length
    )
    factor, failed = torch.linalg.cholesky_ex(cosine)
    # What the keys before it leave unexplained of each key; unknown from a failure on.
    unexplained = factor.diagonal().square()
    culprit = int(failed) - 1 if failed else int(unexplained.argmin())
    if failed or unexplained[culprit] < COLLISION:
        twin = int(cosine[culprit, :culprit].abs().argmax())
        raise SingularSystem(
            f"the key of {names[culprit]!r} is (nearly) that of {names[twin]!r} or made up of "
            f"those of others (cosine {float(cosine[culprit, twin]):.6f}): one key cannot be "
            "answered in two ways. Leave one out, edit another layer, or use a method that need "
            "not answer exactly (MEMIT)"
        )
    return length[:, None] * factor
