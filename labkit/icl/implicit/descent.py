"""One layer of linear attention that equals one step of gradient descent, weight by weight.

Tokens are pairs, e_j = (x_j, y_j). Attention without softmax, over the examples alone,

    e_j <- e_j + P sum_i (V e_i) (K e_i) . (Q e_j)

with

    K = Q = [ I  0 ]      V = [ 0   0 ]      P = eta/N  I
            [ 0  0 ]          [ W0  -I ]

leaves every x as it is and adds (eta/N sum_i (W0 x_i - y_i) x_i^T) x_j = -dW x_j to every y, where
dW is the step of gradient descent from W0 on L(W) = 1/(2N) sum_i |W x_i - y_i|^2. A step on the
weights is thereby written as a change of the *data*: W0 with the targets y_i - dW x_i has the same
residuals as W0 + dW with the targets y_i. So the same layer again is the next step, and k layers
are k steps. A query enters as (x, -W0 x) and its y then holds minus the prediction: after k
layers, -W_k x.

References:
    von Oswald et al. (2023), Transformers Learn In-Context by Gradient Descent, Proposition 1 and
    appendix A.1.

Differs from the paper:
    none in the layer; the descent that it is compared with is done by autograd.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.icl.implicit.regression_prompts import Prompts
from labkit.results.result import Result
from labkit.stats import Estimate, average


@dataclass(frozen=True)
class LinearAttention:
    """Attention without softmax, one head: e_j + P sum_i (V e_i) (K e_i) . (Q e_j).

    Attributes:
        K: Keys' matrix.
        Q: Queries' matrix.
        V: Values' matrix.
        P: The matrix applied to the sum before it is added.
    """

    K: Float[Tensor, "e e"]
    Q: Float[Tensor, "e e"]
    V: Float[Tensor, "e e"]
    P: Float[Tensor, "e e"]

    def __call__(
        self, tokens: Float[Tensor, "prompt pos e"], n_examples: int
    ) -> Float[Tensor, "prompt pos e"]:
        """The tokens after the layer; the first `n_examples` are attended to, by all."""
        shown = tokens[:, :n_examples]
        scores = einsum(
            shown, self.K, tokens, self.Q,
            "prompt i e, f e, prompt j g, f g -> prompt j i",
        )  # fmt: skip
        return tokens + einsum(
            scores, shown, self.V, self.P, "prompt j i, prompt i e, v e, out v -> prompt j out"
        )


def gradient_step(
    start: Float[Tensor, "d_y d_x"], *, rate: float, n_examples: int
) -> LinearAttention:
    """The layer that is one step of gradient descent.

    Args:
        start: W0, the weights that descent starts from.
        rate: eta, the step size, above 0.
        n_examples: N, the pairs that the loss is the mean over.

    Raises:
        InputError: If there is no example, or the step does not go downhill.
    """
    if n_examples < 1 or rate <= 0:
        raise InputError(f"no step of size {rate} on {n_examples} examples: both must be above 0")
    d_y, d_x = start.shape
    K, V, P = (start.new_zeros(d_x + d_y, d_x + d_y) for _ in range(3))
    K[:d_x, :d_x].fill_diagonal_(1.0)
    V[d_x:, :d_x] = start
    V[d_x:, d_x:].fill_diagonal_(-1.0)
    P.fill_diagonal_(rate / n_examples)
    return LinearAttention(K=K, Q=K.clone(), V=V, P=P)


def by_attention(
    x: Float[Tensor, "prompt n d_x"],
    y: Float[Tensor, "prompt n d_y"],
    query: Float[Tensor, "prompt d_x"],
    *,
    start: Float[Tensor, "d_y d_x"],
    rate: float,
    steps: int,
) -> Float[Tensor, "step prompt d_y"]:
    """Predictions at the query after every layer of a stack of `gradient_step`s.

    Returns:
        `steps` + 1 predictions: before the first layer, that of W0.
    """
    layer = gradient_step(start, rate=rate, n_examples=x.shape[1])
    asked = torch.cat([query, -query @ start.mT], dim=-1)
    tokens = torch.cat([torch.cat([x, y], dim=-1), asked[:, None]], dim=1)
    said = [-tokens[:, -1, x.shape[-1] :]]
    for _ in range(steps):
        tokens = layer(tokens, x.shape[1])
        said.append(-tokens[:, -1, x.shape[-1] :])
    return torch.stack(said)


def by_autograd(
    x: Float[Tensor, "prompt n d_x"],
    y: Float[Tensor, "prompt n d_y"],
    query: Float[Tensor, "prompt d_x"],
    *,
    start: Float[Tensor, "d_y d_x"],
    rate: float,
    steps: int,
) -> Float[Tensor, "step prompt d_y"]:
    """The same predictions by gradient descent, each prompt with weights of its own."""
    W = start.detach().expand(len(x), *start.shape).clone()
    said = [einsum(W, query, "prompt y x, prompt x -> prompt y")]
    for _ in range(steps):
        W.requires_grad_(True)
        missed = einsum(W, x, "prompt y x, prompt n x -> prompt n y") - y
        loss = missed.square().sum() / (2 * x.shape[1])  # prompts do not share weights
        (slope,) = torch.autograd.grad(loss, W)
        W = (W - rate * slope).detach()
        said.append(einsum(W, query, "prompt y x, prompt x -> prompt y"))
    return torch.stack(said)


@dataclass(frozen=True, kw_only=True)
class DescentResult(Result):
    """Layers of attention beside steps of gradient descent, on the same prompts.

    Attributes:
        d: Dimensions of an input.
        n_examples: Pairs of a prompt.
        rate: Step size.
        matrices: K, Q, V and P, over the coordinates x1, ..., y of a token.
        attention: Prediction at the query after every layer.
        descent: Prediction after every step.
        clean: The true values.
    """

    d: int
    n_examples: int
    rate: float
    matrices: Float[np.ndarray, "4 e e"]
    attention: Float[np.ndarray, "step prompt"]
    descent: Float[np.ndarray, "step prompt"]
    clean: Float[np.ndarray, " prompt"]

    @property
    def title(self) -> str:
        """What was compared, and how far apart it is."""
        return (
            f"{len(self.attention) - 1} layers of linear attention and as many gradient steps: "
            f"at most {self.gap:.0e} apart over {len(self.clean)} prompts"
        )

    @property
    def gap(self) -> float:
        """Largest difference between a prediction by layers and that by steps."""
        return float(np.abs(self.attention - self.descent).max())

    def error(self, step: int) -> Estimate:
        """Squared error after a layer, its interval over prompts."""
        return average((self.attention[step] - self.clean) ** 2)

    def weights(self) -> pd.DataFrame:
        """The four matrices: columns `matrix, row, column, weight`, one row per entry."""
        names = [*(f"x{place + 1}" for place in range(self.d)), "y"]
        return pd.DataFrame(
            [
                {"matrix": matrix, "row": row, "column": column, "weight": float(weight)}
                for matrix, entries in zip("KQVP", self.matrices, strict=True)
                for row, line in zip(names, entries, strict=True)
                for column, weight in zip(names, line, strict=True)
            ]
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per step: `step, mean, low, high, n` (squared error of the layers), `gap`."""
        gaps = np.abs(self.attention - self.descent).max(axis=1)
        return pd.DataFrame(
            [
                {"step": step} | self.error(step).to_dict() | {"gap": float(gap)}
                for step, gap in enumerate(gaps)
            ]
        )

    def figure(self) -> Any:
        """The four matrices with their values."""
        from labkit.plots.icl.regression import attention_weights

        return attention_weights(
            self.weights(),
            title="A layer of attention that is a step of gradient descent",
            subtitle=f"rows write, columns read; N = {self.n_examples}, step size {self.rate:g}",
        )


@dataclass(frozen=True, kw_only=True)
class Descend:
    """Solve prompts by stacked layers and by gradient descent, from W = 0.

        Descend(steps=5)(prompts).figure()

    Attributes:
        steps: Layers, and steps.
        rate: Step size.

    Shows:
        That layers of attention *can* be steps of gradient descent, with weights that one can
        read (`DescentResult.figure`).

    Does not show:
        That a trained transformer does this.
    """

    steps: int = 4
    rate: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a stack without layers."""
        if self.steps < 1 or self.rate <= 0:
            raise InputError(f"no descent in {self.steps} steps of size {self.rate}")

    def __call__(self, prompts: Prompts) -> DescentResult:
        """Both, on prompts whose last position is the query, in float64."""
        x, y = prompts.x.double(), prompts.y.double()
        start = torch.zeros(1, x.shape[-1], dtype=x.dtype, device=x.device)
        given = (x[:, :-1], y[:, :-1, None], x[:, -1])
        how: dict[str, Any] = {"start": start, "rate": self.rate, "steps": self.steps}
        layer = gradient_step(start, rate=self.rate, n_examples=x.shape[1] - 1)
        matrices = torch.stack([layer.K, layer.Q, layer.V, layer.P])
        return DescentResult(
            d=x.shape[-1],
            n_examples=x.shape[1] - 1,
            rate=self.rate,
            matrices=matrices.cpu().numpy(),
            attention=by_attention(*given, **how)[..., 0].cpu().numpy(),
            descent=by_autograd(*given, **how)[..., 0].cpu().numpy(),
            clean=prompts.clean[:, -1].double().cpu().numpy(),
        )
