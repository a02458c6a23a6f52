"""Fine-tuning: plain gradient descent on one FFN matrix, free or within a ball.

The baseline that every editor has to beat. With values as rows (`ffn_out`, `V`), the change
`D` of one layer's output projection is

    D = argmin_D  mean over rewrites of -log P_{V + D}(new object | prompt)
        subject to  ||D|| <= radius                                  (constrained only)

by Adam from zero. Without the constraint, nothing preserves what the model knows: everything
outside the batch can suffer (claim C8). The ball of Zhu et al. is the simplest remedy: after each
step the change is projected back onto it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.delta import Dense
from editing.methods.tuning.gradient_descent import GradientDescent
from editing.methods.tuning.training import precise
from editing.presets.preset_files import preset
from labkit.bounds import require_finite
from labkit.errors import InputError
from labkit.models.model import LabModel


@dataclass(frozen=True, kw_only=True)
class Ball:
    """How far a weight may move from its original value.

    Attributes:
        norm: "inf", every entry alone, or "2", the whole matrix (Frobenius).
        radius: How far, in units of the weights (Meng et al. 2022: 5e-4 in the infinity norm
            for GPT-2 XL, 5e-5 for GPT-J; SmolLM2-135M does not move within 5e-4, and goes up
            to 1e-2 when free).
    """

    norm: Literal["inf", "2"] = "inf"
    radius: float = 5e-3

    def __post_init__(self) -> None:
        """Refuse an invalid ball."""
        require_finite(self)
        if self.norm not in ("inf", "2") or not self.radius > 0:
            raise InputError(f"a ball of norm {self.norm!r} (inf or 2), radius {self.radius} (> 0)")

    def project_(self, change: Float[Tensor, "rows columns"]) -> None:
        """Project a change onto the ball, in place."""
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
class FineTuning(GradientDescent):
    """Fine-tuning of one FFN output projection, all rewrites together.

        delta = FineTuning(ball=Ball())(model, rewrites)   # ball: stay near the weights

    Attributes:
        layer: The layer to train; by default the measured preset of the model (Meng et al.
            2022: 1 of GPT-2 XL's 48 unconstrained, 0 constrained).
        ball: How far the weights may go; None is plain fine-tuning.
        training: How long and how fast (Meng et al. 2022: Adam, 25 steps at most, lr 5e-4,
            until the loss is 0.03, which is a probability of 0.97).
        seed: Seed of the order in which rewrites take turns, where they do.

    Shows:
        What gradient descent on one matrix makes of a rewrite, and what other facts pay for it:
        the baseline of every editor.

    Does not show:
        That the edit generalises beyond the prompt itself, or that nothing else changes: measure
        both.

    References:
        Zhu et al. 2020, Modifying Memories in Transformer Models, sections 3 and 4.
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, appendix E.1
        (the baselines FT and FT+L).

    Differs from the paper: only facts to be changed are trained on, as in Meng et al.; Zhu
    et al. may mix in facts to be kept. Targets of several tokens are spelt out token by token;
    the code of Meng et al. reads all of them at the last token of the prompt.
    """

    NAME = "fine-tuning"

    layer: int | None = None
    ball: Ball | None = None

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The one layer that will be trained."""
        layer = preset(model, "ft").layer if self.layer is None else self.layer
        return (model.layer(layer),)

    def start(self, model: LabModel, layer: int) -> tuple[Tensor]:
        """The change itself: zero."""
        return (torch.zeros(model.d_mlp, model.d_model, dtype=precise(model), device=model.device),)

    def added(
        self, learnt: tuple[Tensor, ...], key: Float[Tensor, "prompt pos d_mlp"]
    ) -> Float[Tensor, "prompt pos d_model"]:
        """`key @ D`."""
        return key @ learnt[0]

    def change(self, learnt: tuple[Tensor, ...]) -> Dense:
        """`D`."""
        return Dense(learnt[0].detach().float().cpu())

    def constrain_(self, learnt: tuple[Tensor, ...]) -> None:
        """Project the change onto the ball around the current weights, if there is one."""
        if self.ball is not None:
            self.ball.project_(learnt[0])
