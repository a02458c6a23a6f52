"""LoRA fine-tuning: gradient descent on a product of two thin matrices, in many layers.

With values as rows (`ffn_out`, `V`), the output projection of every layer changes by

    D = (alpha / rank) A B,     A [d_mlp, rank] random,  B [rank, d_model] = 0

so that training begins at the model as it is, and a rewrite costs `rank` rows and columns a
layer instead of a matrix. It is how people fine-tune, and so what an edit is compared with.

The factors are learnt beside the model and handed out as they are, as a change of low rank.
peft would put its own modules in the place of the model's for the duration, which a model
that promises to be untouched does not bear; the numbers are the same.

What this does not promise: see `editing.fine_tuning`. A low rank bounds the directions of a
change, not its size.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

import labkit
from editing.delta import LowRank, WeightDelta
from editing.requests import Request
from editing.training import Added, Training, descend, precise, rewrites_only
from labkit import stats
from labkit.corpus import Corpus, Progress
from labkit.errors import InputError
from labkit.models import LabModel


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adaptation of FFN output projections, all rewrites together.

    Attributes:
        layers: The layers to adapt; by default all of them.
        rank: Rank of the change in each layer (the paper: 1 to 64, mostly 4 or 8).
        alpha: The change is scaled by `alpha / rank` (the paper: fixed at the first rank
            tried, since it acts as a learning rate).
        training: How long and how fast (the paper: epochs over a training set, lr 2e-4). All
            layers move at once: at lr 1e-3 SmolLM2-135M is done in 10 steps, and five of six
            neighbours go with the rewrite.
        seed: Seed of the random factors, and of the order in which rewrites take turns.

    References:
        Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.

    Differs from the paper: it adapts attention's projections, this the FFN's output
    projections, as the editors do; `A` is drawn uniformly as in peft, not from a normal
    distribution; no dropout.
    """

    layers: tuple[int, ...] | None = None
    rank: int = 4
    alpha: float = 8.0
    training: Training = field(default_factory=lambda: Training(lr=5e-4, steps=100))
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        if self.rank < 1 or not self.alpha > 0 or self.layers == ():
            raise InputError("LoRA needs a layer, a rank of at least 1, and alpha above 0")

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError, ContradictoryRewrites: See `editing.training.rewrites_only`.
        """
        rewrites_only(rewrites, "LoRA fine-tuning")

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be adapted."""
        layers = range(model.n_layers) if self.layers is None else self.layers
        return tuple(sorted({model.layer(layer) for layer in layers}))

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> None:
        """Nothing: edits of a model share nothing that could be measured beforehand."""

    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request],
        *,
        prepared: None = None,
        after: WeightDelta | None = None,
        step_done: Callable[[int, float], None] | None = None,
    ) -> WeightDelta:
        """The change that training on some rewrites makes. The model is not changed.

        Args:
            model: The model.
            rewrites: What it should say.
            prepared: Nothing is prepared.
            after: What is applied to the model already, if anything is.
            step_done: Called after each step, with its number and the loss in nats a token.

        Raises:
            InputError, ContradictoryRewrites, EmptyTarget, LayerOutOfRange: Before any work.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the training fails.
        """
        asked = rewrites_only(rewrites, "LoRA fine-tuning")
        factors = {layer: self.start(model, layer) for layer in self.layers_for(model)}
        trained = descend(
            model,
            asked,
            [factor for pair in factors.values() for factor in pair],
            {layer: self._added(*pair) for layer, pair in factors.items()},
            self.training,
            seed=self.seed,
            step_done=step_done,
        )
        return WeightDelta(
            {
                model.ffn_out_name(layer): self._change(model, layer, *pair)
                for layer, pair in factors.items()
            },
            model.fingerprint,
            {
                "method": "LoRA",
                "config": asdict(self) | {"layers": list(factors)},
                "rewrites": [asdict(rewrite) for rewrite in asked],
                "model": model.name,
                "labkit": labkit.__version__,
                **asdict(trained),
            },
            on_top_of=None if after is None else after.digest,
        )

    def start(self, model: LabModel, layer: int) -> tuple[Tensor, Tensor]:
        """The factors before training: `A` `[d_mlp, rank]` random, `B` `[rank, d_model]` zero.

        Entries of `A` are uniform within `+-1 / sqrt(d_mlp)`.
        """
        draw = stats.generator(self.seed, "LoRA", layer)
        uniform = torch.rand(model.d_mlp, self.rank, generator=draw, dtype=torch.float64)
        first = ((2 * uniform - 1) / model.d_mlp**0.5).to(model.device, precise(model))
        second = torch.zeros(self.rank, model.d_model, dtype=precise(model), device=model.device)
        return first.requires_grad_(), second.requires_grad_()

    def _added(self, first: Tensor, second: Tensor) -> Added:
        """What the factors add to an FFN's answer."""
        return lambda key: (key @ first) @ second * (self.alpha / self.rank)

    def _change(self, model: LabModel, layer: int, first: Tensor, second: Tensor) -> LowRank:
        """The factors as a change of the parameter, in its own orientation."""
        left = first.detach().float().cpu()
        right = second.detach().float().cpu() * (self.alpha / self.rank)
        if model.ffn_out_transposed(layer):
            left, right = right.T.contiguous(), left.T.contiguous()
        return LowRank(left, right)
