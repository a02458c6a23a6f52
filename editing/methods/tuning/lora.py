"""LoRA fine-tuning: gradient descent on a product of two thin matrices, in many layers.

With values as rows (`ffn_out`, `V`), the output projection of every layer changes by

    D = (alpha / rank) A B,     A [d_mlp, rank] random,  B [rank, d_model] = 0

so that training begins at the model as it is, and a rewrite costs `rank` rows and columns per layer
instead of a matrix. It is the usual way to fine-tune, and so a natural baseline for edits.

The factors are trained outside the model and returned as they are, as a change of low rank.
peft would replace the model's modules by its own during training, whereas methods here must leave
the model untouched; the numbers are the same.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.delta import LowRank
from editing.methods.tuning.gradient_descent import GradientDescent
from editing.methods.tuning.training import Training, precise
from labkit import stats
from labkit.bounds import require_finite
from labkit.errors import InputError
from labkit.models.model import LabModel


@dataclass(frozen=True, kw_only=True)
class LoRA(GradientDescent):
    """Low-rank adaptation of FFN output projections, all rewrites together.

        delta = LoRA(rank=4)(model, rewrites)

    Attributes:
        layers: The layers to adapt; by default all of them.
        rank: Rank of the change in each layer (the paper: 1 to 64, mostly 4 or 8).
        alpha: The change is scaled by `alpha / rank` (the paper: fixed at the first rank
            tried, since it acts as a learning rate).
        training: How long and how fast (the paper: epochs over a training set, lr 2e-4). All
            layers move at once: at lr 1e-3 SmolLM2-135M is done in 10 steps, and five of six
            neighbours go with the rewrite.
        seed: Seed of the random factors, and of the order in which rewrites take turns.

    Shows:
        What the usual way of fine-tuning makes of a rewrite, in all layers at a low rank.

    Does not show:
        That the edit generalises, or that nothing else changes: a low rank bounds the directions
        of a change, not its size.

    References:
        Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.

    Differs from the paper: it adapts attention's projections, this the FFN's output
    projections, as the editors do; `A` is drawn uniformly as in peft, not from a normal
    distribution; no dropout.
    """

    NAME = "LoRA fine-tuning"

    layers: tuple[int, ...] | None = None
    rank: int = 4
    alpha: float = 8.0
    training: Training = field(default_factory=lambda: Training(lr=5e-4, steps=100))

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        require_finite(self)
        if self.rank < 1 or not self.alpha > 0 or self.layers == ():
            raise InputError("LoRA needs a layer, a rank of at least 1, and alpha above 0")

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be adapted."""
        layers = range(model.n_layers) if self.layers is None else self.layers
        return tuple(sorted({model.layer(layer) for layer in layers}))

    def start(self, model: LabModel, layer: int) -> tuple[Tensor, Tensor]:
        """The factors before training: `A` `[d_mlp, rank]` random, `B` `[rank, d_model]` zero.

        Entries of `A` are uniform within `+-1 / sqrt(d_mlp)`.

        Raises:
            InputError: If the rank is higher than that of any change of the matrix.
        """
        highest = min(model.d_mlp, model.d_model)
        if self.rank > highest:
            raise InputError(f"rank {self.rank}: a change of {model.name} has {highest} at most")
        draw = stats.generator(self.seed, "LoRA", layer)
        uniform = torch.rand(model.d_mlp, self.rank, generator=draw, dtype=torch.float64)
        first = ((2 * uniform - 1) / model.d_mlp**0.5).to(model.device, precise(model))
        second = torch.zeros(self.rank, model.d_model, dtype=precise(model), device=model.device)
        return first, second

    def added(
        self, learnt: tuple[Tensor, ...], key: Float[Tensor, "prompt pos d_mlp"]
    ) -> Float[Tensor, "prompt pos d_model"]:
        """`(alpha / rank) key @ A @ B`."""
        first, second = learnt
        return (key @ first) @ second * (self.alpha / self.rank)

    def change(self, learnt: tuple[Tensor, ...]) -> LowRank:
        """`A`, and `B` times `alpha / rank`."""
        first, second = (factor.detach().float().cpu() for factor in learnt)
        return LowRank(first, second * (self.alpha / self.rank))
