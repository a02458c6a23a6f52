"""Norms as linear maps: how a norm acts on one summand of its input.

A norm divides by the size of its whole input, so what it does to a part depends on the
rest. With its statistics held at their actual values it is linear, and shares add up:

    norm(x) = gain * (x - mean(x)) / scale(x) + bias        (no mean: RMS norms)

Gain, bias and centring are read off the module itself, from its outputs for three known inputs, so
that no family needs code of its own here; the scale is the one that reproduces the module's output
at the state in question.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import NotDecomposable

TOLERANCE = 1e-3
"""Largest difference between a norm and its linear map at the state, as a share of the norm."""


@dataclass(frozen=True, eq=False)
class LinearNorm:
    """`x -> gain * (x - mean(x)) + bias`, in float64 on the CPU; the scale is in the gain.

    Attributes:
        gain: Weight over scale.
        bias: What the norm adds regardless of its input.
        centred: Whether the mean over d_model is taken away first (LayerNorm).
    """

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool

    def linear(self, x: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """The map of a summand: everything but the bias."""
        return self.gain * self.centre(x)

    def transposed(self, direction: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """The direction whose product with `x` is that of `direction` with `linear(x)`."""
        return self.centre(self.gain * direction)

    def centre(self, x: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """The input with its mean taken away, if the norm does that."""
        return x - x.mean(dim=-1, keepdim=True) if self.centred else x


@torch.no_grad()
def linear_part(norm: nn.Module, d_model: int, like: Tensor) -> LinearNorm:
    """A norm's gain, bias and centring, for an input of root mean square 1.

    Args:
        norm: The module.
        d_model: Width of its input.
        like: A tensor whose dtype and device the input takes.

    Raises:
        NotDecomposable: If its output is not finite.
    """
    signs = torch.ones(d_model, dtype=like.dtype, device=like.device)
    signs[1::2] = -1
    probes = torch.stack([torch.zeros_like(signs), torch.ones_like(signs), signs])
    zero, ones, alternating = norm(probes[:, None])[:, 0].double().cpu()
    if not bool(torch.isfinite(alternating + ones + zero).all()):
        raise NotDecomposable(
            f"{type(norm).__name__} is not a norm that states can be read through"
        )
    centred = float((ones - zero).norm()) < TOLERANCE * float((alternating - zero).norm())
    answered = LinearNorm(alternating - zero, zero, centred)
    return replace(answered, gain=answered.gain / answered.centre(signs.double().cpu()))


@torch.no_grad()
def frozen(norm: nn.Module, state: Float[Tensor, " d_model"]) -> LinearNorm:
    """A norm with its statistics held at what they are for a state.

    Raises:
        NotDecomposable: If the norm is not of the form above, or the number format too
            coarse to tell (load the model in float32).
    """
    norm_of_one = linear_part(norm, len(state), state)
    answered = norm(state[None, None])[0, 0].double().cpu() - norm_of_one.bias
    unscaled = norm_of_one.linear(state.double().cpu())
    scale = float(answered @ unscaled) / max(float(unscaled @ unscaled), 1e-300)
    found = LinearNorm(norm_of_one.gain * scale, norm_of_one.bias, norm_of_one.centred)
    gap = float((answered - scale * unscaled).norm())
    if not gap <= TOLERANCE * float(answered.norm()):
        raise NotDecomposable(
            f"{type(norm).__name__} in {state.dtype} is not a scaled linear map of what it reads "
            f"(off by {gap:.1e} of {float(answered.norm()):.1e}): load the model in float32, or "
            "contributions cannot be computed for this architecture"
        )
    return found
