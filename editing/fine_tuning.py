"""Fine-tuning: plain gradient descent on one FFN matrix, free or within a ball.

The baseline that every editor has to beat. With values as rows (`ffn_out`, `V`), the change
`D` of one layer's output projection is

    D = argmin_D  mean over rewrites of -log P_{V + D}(new object | prompt)
        subject to  ||D|| <= radius                                  (constrained only)

by Adam from zero. Unconstrained, nothing asks the model to keep what it knows: what is not
in the batch pays (claim C8). The ball of Zhu et al. is the simplest remedy: after each step
the change is put back into it.

What this does not promise: that anything but the prompt itself changes its answer in the
intended way, or that nothing else does. Measure both.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

import labkit
from editing.delta import Dense, WeightDelta
from editing.presets import preset
from editing.requests import Request
from editing.training import Training, descend, precise, rewrites_only
from labkit.corpus import Corpus, Progress
from labkit.errors import InputError
from labkit.models import LabModel


@dataclass(frozen=True, kw_only=True)
class Ball:
    """How far a weight may go from where it was.

    Attributes:
        norm: "inf", every entry alone, or "2", the whole matrix (Frobenius).
        radius: How far, in units of the weights (Meng et al. 2022: 5e-4 in the infinity norm
            for GPT-2 XL, 5e-5 for GPT-J; SmolLM2-135M does not move within 5e-4, and goes up
            to 1e-2 when free).
    """

    norm: Literal["inf", "2"] = "inf"
    radius: float = 5e-3

    def __post_init__(self) -> None:
        """Refuse a ball that is none."""
        if self.norm not in ("inf", "2") or not self.radius > 0:
            raise InputError(f"a ball of norm {self.norm!r} (inf or 2), radius {self.radius} (> 0)")

    def project_(self, change: Float[Tensor, "rows columns"]) -> None:
        """Put a change back to the nearest point of the ball, in place."""
        # A change is handed out in float32: the bound holds there too.
        if self.norm == "inf":
            bound = torch.tensor(self.radius, dtype=torch.float32)
            if float(bound) > self.radius:
                bound = torch.nextafter(bound, torch.zeros_like(bound))
            change.clamp_(-float(bound), float(bound))
            return
        norm = float(change.double().norm())
        if norm > self.radius:  # a hair inside
            change.mul_(self.radius / norm * (1 - torch.finfo(torch.float32).eps))


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Fine-tuning of one FFN output projection, all rewrites together.

    Attributes:
        layer: The layer to train; by default the measured preset of the model (Meng et al.
            2022: 1 of GPT-2 XL's 48 unconstrained, 0 constrained).
        ball: How far the weights may go; None is plain fine-tuning.
        training: How long and how fast (Meng et al. 2022: Adam, 25 steps at most, lr 5e-4,
            until the loss is 0.03, which is a probability of 0.97).
        seed: Seed of the order in which rewrites take turns, where they do.

    References:
        Zhu et al. 2020, Modifying Memories in Transformer Models, sections 3 and 4.
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, appendix E.1
        (the baselines FT and FT+L).

    Differs from the paper: only facts to be changed are trained on, as in Meng et al.; Zhu
    et al. may mix in facts to be kept. Targets of several tokens are spelt out token by token;
    the code of Meng et al. reads all of them at the last token of the prompt.
    """

    layer: int | None = None
    ball: Ball | None = None
    training: Training = field(default_factory=Training)
    seed: int = 0

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError, ContradictoryRewrites: See `editing.training.rewrites_only`.
        """
        rewrites_only(rewrites, "fine-tuning")

    def layer_for(self, model: LabModel) -> int:
        """The layer that will be trained."""
        return model.layer(preset(model, "ft").layer if self.layer is None else self.layer)

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
            after: What is applied to the model already, if anything is. The ball is around
                the weights as they are now.
            step_done: Called after each step, with its number and the loss in nats a token.

        Raises:
            InputError, ContradictoryRewrites, EmptyTarget, LayerOutOfRange: Before any work.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the training fails.
        """
        asked = rewrites_only(rewrites, "fine-tuning")
        layer = self.layer_for(model)
        change = torch.zeros(model.d_mlp, model.d_model, dtype=precise(model), device=model.device)
        change.requires_grad_()
        ball = self.ball
        trained = descend(
            model,
            asked,
            [change],
            {layer: lambda key: key @ change},
            self.training,
            seed=self.seed,
            constrain=None if ball is None else partial(ball.project_, change),
            step_done=step_done,
        )
        matrix = change.detach().float().cpu()
        if model.ffn_out_transposed(layer):
            matrix = matrix.T.contiguous()
        return WeightDelta(
            {model.ffn_out_name(layer): Dense(matrix)},
            model.fingerprint,
            {
                "method": "FineTuning",
                "config": asdict(self) | {"layer": layer},
                "rewrites": [asdict(rewrite) for rewrite in asked],
                "model": model.name,
                "labkit": labkit.__version__,
                **asdict(trained),
            },
            on_top_of=None if after is None else after.digest,
        )
