"""Learners with a closed form, with which a transformer's predictions are compared.

Each predicts at every position from the pairs before it, n = 0, 1, 2, ..., and says 0 where there
are none. With A = sum x x^T and b = sum y x over the n pairs:

    least squares       w = A^+ b                   of least norm while n < d
    ridge               w = (A + lambda I)^-1 b     Bayes-optimal at lambda = sigma^2 (w ~ N(0, I))
    gradient descent    w <- w - eta (A w - b)      k times, from w = 0
    nearest neighbours  mean y of the k nearest x
    mean                mean y
    zero                0

References:
    Akyürek et al. (2023), What Learning Algorithm Is In-Context Learning?, section 4.1.
    Garg et al. (2022), What Can Transformers Learn In-Context?, section 3.

Differs from the paper:
    Akyürek et al. descend with one step size for all prompts, which diverges on some of them and
    on all whose inputs are larger; here it is a share of what each prompt's inputs allow.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.icl.implicit.regression_prompts import Prompts

SINGULAR = 1e-10
"""An eigenvalue of A below this share of the largest counts as 0: least squares then has no say."""


@runtime_checkable
class Learner(Protocol):
    """Predicts y at every position from the pairs before it."""

    @property
    def name(self) -> str:
        """Its name in tables and figures."""
        ...

    def __call__(
        self, x: Float[Tensor, "prompt pos d"], y: Float[Tensor, "prompt pos"]
    ) -> Float[Tensor, "prompt pos"]:
        """Predictions, in float64."""
        ...


def moments(
    x: Float[Tensor, "prompt pos d"], y: Float[Tensor, "prompt pos"]
) -> tuple[Float[Tensor, "prompt pos d d"], Float[Tensor, "prompt pos d"]]:
    """A = sum x x^T and b = sum y x over the pairs before each position, in float64."""
    x, y = x.double(), y.double()
    outer = einsum(x, x, "prompt pos i, prompt pos j -> prompt pos i j")
    product = x * y[..., None]
    # Up to and with a position, moved by one: before it.
    return tuple(  # type: ignore[return-value]
        torch.cat([torch.zeros_like(sums[:, :1]), sums.cumsum(dim=1)[:, :-1]], dim=1)
        for sums in (outer, product)
    )


def _say(x: Tensor, w: Tensor) -> Tensor:
    return einsum(x.double(), w, "prompt pos d, prompt pos d -> prompt pos")


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """The weights that fit the pairs best; of those the shortest."""

    name = "least squares"

    def weights(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos d"]:
        """W after the pairs before each position."""
        A, b = moments(x, y)
        inverse = torch.linalg.pinv(A, rtol=SINGULAR, hermitian=True)
        return einsum(inverse, b, "prompt pos i j, prompt pos j -> prompt pos i")

    def __call__(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos"]:
        """Predictions at every position."""
        return _say(x, self.weights(x, y))


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """Least squares with a penalty on |w|^2.

    Attributes:
        penalty: lambda, above 0; the variance of the noise over that of a weight is Bayes-optimal.
    """

    penalty: float

    def __post_init__(self) -> None:
        """Refuse a penalty that is not above 0."""
        if self.penalty <= 0:
            raise InputError(f"ridge takes a penalty above 0, not {self.penalty}")

    @property
    def name(self) -> str:
        """With its penalty."""
        return f"ridge, λ = {self.penalty:g}"

    def weights(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos d"]:
        """W after the pairs before each position."""
        A, b = moments(x, y)
        price = self.penalty * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        return torch.linalg.solve(A + price, b)

    def __call__(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos"]:
        """Predictions at every position."""
        return _say(x, self.weights(x, y))


@dataclass(frozen=True, kw_only=True)
class GradientDescent:
    """Steps downhill on 1/2 sum (w . x - y)^2, from w = 0.

    Attributes:
        steps: Number of them.
        share: Step size as a share of 2 over the largest eigenvalue of A, in 0..1: the size from
            which on descent diverges on the prompt at hand.
    """

    steps: int
    share: float

    def __post_init__(self) -> None:
        """Refuse a descent without steps."""
        if self.steps < 1 or not 0 < self.share < 1:
            raise InputError(f"no descent in {self.steps} steps at {self.share} of the largest")

    @property
    def name(self) -> str:
        """With its number of steps."""
        return f"{self.steps} gradient step{'s' if self.steps > 1 else ''}"

    def weights(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos d"]:
        """The weights after the pairs before each position."""
        A, b = moments(x, y)
        steepest = torch.linalg.eigvalsh(A)[..., -1:].clamp(min=1e-12)  # 0 without examples
        w = torch.zeros_like(b)
        for _ in range(self.steps):
            slope = einsum(A, w, "prompt pos i j, prompt pos j -> prompt pos i") - b
            w = w - 2 * self.share / steepest * slope
        return w

    def __call__(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos"]:
        """Predictions at every position."""
        return _say(x, self.weights(x, y))


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours:
    """The mean y of the nearest inputs: a learner that does not assume linearity.

    Attributes:
        k: How many; all there are while there are fewer.
    """

    k: int = 3

    def __post_init__(self) -> None:
        """Refuse a mean of nothing."""
        if self.k < 1:
            raise InputError(f"{self.k} neighbours: choose at least 1")

    @property
    def name(self) -> str:
        """With their number."""
        return f"{self.k} nearest neighbours" if self.k > 1 else "nearest neighbour"

    def __call__(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos"]:
        """Predictions at every position."""
        x, y = x.double(), y.double()
        n_pos = x.shape[1]
        later = torch.ones(n_pos, n_pos, dtype=torch.bool, device=x.device).triu()
        distances = torch.cdist(x, x).masked_fill(later, torch.inf)
        near = distances.topk(min(self.k, n_pos), largest=False)
        seen = near.values.isfinite()
        shown = y[:, None, :].expand(-1, n_pos, -1).gather(-1, near.indices)
        return (shown * seen).sum(dim=-1) / seen.sum(dim=-1).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean y: a learner that ignores the inputs."""

    name = "mean"

    def __call__(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos"]:
        """Predictions at every position."""
        sums = torch.cat([torch.zeros_like(y[:, :1]), y.cumsum(dim=1)[:, :-1]], dim=1).double()
        return sums / torch.arange(y.shape[1], device=y.device).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Zero:
    """Always 0: the error of learning nothing."""

    name = "zero"

    def __call__(self, x: Tensor, y: Tensor) -> Float[Tensor, "prompt pos"]:
        """Predictions at every position."""
        return torch.zeros_like(y, dtype=torch.float64)


SHARES = tuple(place / 20 for place in range(1, 20))


def tuned_descent(prompts: Prompts, steps: int) -> GradientDescent:
    """Gradient descent with the step size of least squared error.

    Args:
        prompts: Prompts to choose on; none of them is scored later.
        steps: Number of steps.
    """
    clean = prompts.clean.double()
    tried = [GradientDescent(steps=steps, share=share) for share in SHARES]
    errors = [float((one(prompts.x, prompts.y) - clean).square().mean()) for one in tried]
    return tried[min(range(len(tried)), key=errors.__getitem__)]
