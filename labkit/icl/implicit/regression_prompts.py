"""In-context linear regression: prompts of pairs (x, y), each prompt with its own weights.

    y_i = w . x_i + noise_i,   w ~ N(0, I_d),   x_i ~ N(0, I_d),   noise_i ~ N(0, sigma^2)

A learner sees the pairs before a position and predicts at its x. With noise the best predictor
there is, over all learners, is ridge regression with lambda = sigma^2 (the prior variance of a
weight is 1), so there is an exact floor to compare with. The other settings change one thing
each, so that one can see what was learned: a procedure, or a habit that fits the prompts of
training alone.

References:
    Garg et al. (2022), What Can Transformers Learn In-Context?, sections 2 and 4.
    Akyürek et al. (2023), What Learning Algorithm Is In-Context Learning?, section 4.

Differs from the paper:
    Garg et al. train without noise; Akyürek et al. with several amounts. Their other orthant is
    the query's alone; here every input of a prompt lies in one orthant, so that every position
    can be a query.
"""

from dataclasses import dataclass, replace

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.stats import generator

N_DIMENSIONS = 5
NOISE = 0.5


@dataclass(frozen=True)
class Prompts:
    """Prompts as they are drawn; position i has i pairs before it.

    Attributes:
        x: Inputs.
        y: What is shown at each: w . x with noise.
        clean: The same without noise, which a perfect learner would predict.
        w: The weights of each prompt.
        noise: Standard deviation of the noise.
    """

    x: Float[Tensor, "prompt pos d"]
    y: Float[Tensor, "prompt pos"]
    clean: Float[Tensor, "prompt pos"]
    w: Float[Tensor, "prompt d"]
    noise: float

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.w)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A distribution of prompts.

    Attributes:
        d: Dimensions of an input.
        noise: Standard deviation of the noise of y, 0 or more.
        scale: What inputs are multiplied by.
        decay: The variance along the i-th axis is proportional to i^-decay, in a random rotation
            for each prompt; the mean variance stays. 0 is as round as in training.
        n_weights: Weights that are not zero (`None`: all); E |w|^2 = d all the same.
        one_orthant: Whether all inputs of a prompt have the same signs.
    """

    d: int = N_DIMENSIONS
    noise: float = NOISE
    scale: float = 1.0
    decay: float = 0.0
    n_weights: int | None = None
    one_orthant: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.d < 1:
            raise InputError(f"an input needs a dimension at least, not {self.d}")
        if self.noise < 0 or self.scale <= 0 or self.decay < 0:
            raise InputError(
                "noise and decay must be 0 or more and scale above 0, not "
                f"{self.noise}, {self.decay} and {self.scale}"
            )
        if self.n_weights is not None and not 1 <= self.n_weights <= self.d:
            raise InputError(f"{self.n_weights} of {self.d} weights cannot be kept")

    @property
    def variance(self) -> float:
        """Variance of w . x: the error of predicting 0 everywhere."""
        return self.d * self.scale**2

    def draw(self, n_prompts: int, n_pairs: int, draws: torch.Generator) -> Prompts:
        """New prompts of `n_pairs` pairs and one position more, the last query.

        Raises:
            InputError: If there is no prompt or no pair to draw.
        """
        if n_prompts < 1 or n_pairs < 1:
            raise InputError(f"cannot draw {n_prompts} prompts of {n_pairs} pairs: 1 at least")
        x = torch.randn(n_prompts, n_pairs + 1, self.d, generator=draws)
        w = torch.randn(n_prompts, self.d, generator=draws)
        shocks = torch.randn(n_prompts, n_pairs + 1, generator=draws)
        if self.decay:
            variances = torch.arange(1, self.d + 1).float() ** -self.decay
            stretch = (variances * self.d / variances.sum()).sqrt()
            rotation, _ = torch.linalg.qr(torch.randn(n_prompts, self.d, self.d, generator=draws))
            x = (x * stretch) @ rotation.mT
        if self.one_orthant:
            signs = torch.randint(2, (n_prompts, 1, self.d), generator=draws) * 2 - 1
            x = x.abs() * signs
        if self.n_weights is not None:
            order = torch.rand(n_prompts, self.d, generator=draws).argsort(dim=-1)
            w = w * (order < self.n_weights) * (self.d / self.n_weights) ** 0.5
        x = x * self.scale
        clean = einsum(x, w, "prompt pos d, prompt d -> prompt pos")
        return Prompts(x, clean + self.noise * shocks, clean, w, self.noise)


SETTINGS: dict[str, tuple[Setting, str]] = {
    "trained": (Setting(), "as in training"),
    "small inputs": (Setting(scale=1 / 3), "inputs a third as long"),
    "large inputs": (Setting(scale=2.0), "inputs twice as long"),
    "skewed": (Setting(decay=2.0), "inputs mostly along a few directions"),
    "noisy": (Setting(noise=3 * NOISE), "three times the noise"),
    "noiseless": (Setting(noise=0.0), "no noise"),
    "sparse": (Setting(n_weights=1), "one weight, the others zero"),
    "orthant": (Setting(one_orthant=True), "all inputs of a prompt with the same signs"),
}
"""Distributions of prompts by name, with what is different about each."""


def setting(name: str, *, d: int = N_DIMENSIONS) -> Setting:
    """A setting by name.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in SETTINGS:
        raise InputError(f"no setting {name!r}; there are {', '.join(SETTINGS)}")
    return replace(SETTINGS[name][0], d=d)


def draw(name: str, n_prompts: int, n_pairs: int, *, seed: int, d: int = N_DIMENSIONS) -> Prompts:
    """Prompts of a setting, the same for the same name, numbers and seed."""
    content = ("regression prompts", name, n_prompts, n_pairs, d)
    return setting(name, d=d).draw(n_prompts, n_pairs, generator(seed, *content))
