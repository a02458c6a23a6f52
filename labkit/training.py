"""What every training run of the lab's own small models shares: rates, steps, threads.

Matrices inside the blocks are trained with Muon, the rest (embeddings, norms, maps in and out)
with AdamW; both rates rise to their peak and fall to zero together. For models this small it
takes far fewer steps than AdamW alone.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from labkit.errors import NonFiniteLoss


def rising_then_falling(step: int, *, steps: int, warmup: int) -> float:
    """The share of the peak rates that a step is taken with: linear warm-up, cosine to zero.

    Args:
        step: Number of the step, counted from 0.
        steps: Number of all steps.
        warmup: Steps of the warm-up.
    """
    rising = min(1.0, (step + 1) / max(1, warmup))
    falling = 0.5 * (1 + math.cos(math.pi * step / steps))
    return rising * falling


class Optimiser:
    """Muon for the matrices inside a model's blocks, AdamW for everything else.

    Args:
        model: The model; it is trained in place.
        blocks: Its blocks.
        matrix_rate: Muon's rate at the peak.
        other_rate: AdamW's rate at the peak.
        schedule: The share of both that a step is taken with, by its number from 0.
        weight_decay: Muon's.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: nn.Module,
        *,
        matrix_rate: float,
        other_rate: float,
        schedule: Callable[[int], float],
        weight_decay: float = 0.0,
    ) -> None:
        matrices = [p for p in blocks.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
        self._model = model
        self._optimisers = (
            torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=weight_decay, momentum=0.95),
            torch.optim.AdamW(rest, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(own, schedule) for own in self._optimisers
        ]

    def step(self, loss: Tensor, number: int) -> None:
        """Take a step down a loss; gradients are clipped to a norm of 1.

        Args:
            loss: A scalar that depends on the model.
            number: Number of the step, for the error.

        Raises:
            NonFiniteLoss: If the loss is no number; the model is left as it was.
        """
        if not torch.isfinite(loss):
            raise NonFiniteLoss(f"the loss is {loss.item()} at step {number}: lower the rate")
        self._model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimiser, schedule in zip(self._optimisers, self._schedules, strict=True):
            optimiser.step()
            schedule.step()


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Torch's thread count set to `n`, and back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
