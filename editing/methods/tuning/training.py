"""Gradient descent on what some FFNs add to their output, without modifying the weights.

The methods that fine-tune share this loop (`editing.methods.tuning.gradient_descent`). They hand
over, by layer, a differentiable function from an FFN's key to what is to be added to its output
(`key @ D` for a change `D` of the output projection), and the tensors to learn. The weights
themselves are never touched and ask for no gradient:

    minimise  mean over rewrites, mean over target tokens  -log P(target token | prompt ...)

A change of a weight acts at every position, so no prefix of a prompt can be frozen; but the
blocks below the lowest changed layer are run once, and the unembedding where a target token
is read.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit import stats
from labkit.bounds import STEPS, require_finite
from labkit.errors import AlreadyTrue, InputError, NonFiniteLoss
from labkit.facts.fact import Rewrite
from labkit.metrics import log_prob
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import capture, patched
from labkit.running.execute import Execution
from labkit.running.logits import read_logits, rows_within
from labkit.tokens import target_ids

MEMORY = 256 << 20
"""Bound, in bytes, on what is kept for a backward run; a step goes through in parts."""

Added = Callable[[Float[Tensor, "prompt pos d_mlp"]], Float[Tensor, "prompt pos d_model"]]
"""From an FFN's key to what is added to its answer."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Number of steps, learning rate and stopping rule.

    Attributes:
        steps: Steps of Adam at most.
        lr: Its step size, in units of the weights.
        batch: Rewrites per step; more than that take turns, in an order drawn anew each round.
        enough: Learning ends when P(target), per token, has reached this for every rewrite
            within one round, 0..1.
    """

    steps: int = 50
    lr: float = 5e-4
    batch: int = 32
    enough: float = 0.97

    def __post_init__(self) -> None:
        """Refuse a training configuration with nothing to do."""
        require_finite(self)
        if not 1 <= self.steps <= STEPS or self.batch < 1 or not self.lr > 0:
            raise InputError(
                f"training needs 1 to {STEPS:,} steps, one rewrite per step, and lr above 0"
            )
        if not 0 <= self.enough <= 1:
            raise InputError(f"enough {self.enough} is a probability: 0 to 1")


@dataclass(frozen=True)
class Learnt:
    """What is learnt, and how it acts.

    Attributes:
        parameters: The tensors, changed in place.
        added: By layer, how they act; see `adding`.
        constrain: Called after each step, to project them onto the constraint set.
    """

    parameters: Sequence[Tensor]
    added: Mapping[int, Added]
    constrain: Callable[[], None]


@dataclass(frozen=True)
class Trained:
    """The outcome of training.

    Attributes:
        steps: Steps taken.
        losses: The loss before each step and at the end, in nats per token.
        probability: Lowest P(target), per token, when each rewrite was last seen.
    """

    steps: int
    losses: tuple[float, ...]
    probability: float


class Lessons:
    """Rewrites as a batch whose runs begin at the lowest layer that is changed.

    Args:
        model: The model as it is now.
        rewrites: The rewrites.
        layer: The lowest layer that is changed.

    Attributes:
        at_once: How many rewrites fit together into the bound on memory.

    Raises:
        EmptyTarget: If a target is nothing that the tokenizer knows.
        InputError: If a prompt is longer than the model reads.
    """

    @torch.no_grad()
    def __init__(self, model: LabModel, rewrites: Sequence[Rewrite], layer: int) -> None:
        targets = [target_ids(model.tokenizer, r.prompt, r.target_new) for r in rewrites]
        batch = model.pad(
            [
                model.ids(rewrite.prompt) + target[:-1]
                for rewrite, target in zip(rewrites, targets, strict=True)
            ]
        )
        self.model, self.layer, self.targets = model, layer, targets
        self.at_once = rows_within(model, batch.shape[1], MEMORY // (model.n_layers - layer))
        self.run = Execution(model, batch)
        chunks = torch.arange(len(rewrites)).split(self.at_once)
        self.entering = torch.cat([self.run.forward(stop=layer, rows=rows) for rows in chunks])

    def log_probs(self, rows: Int[Tensor, " row"]) -> tuple[Float[Tensor, " token"], ...]:
        """For each of some rewrites, the log-probability of every token of its target."""
        resid = self.run.forward(self.entering[rows], start=self.layer, rows=rows)
        targets = [self.targets[row] for row in rows.tolist()]
        reads = [
            (place, offset - len(target), token)
            for place, target in enumerate(targets)
            for offset, token in enumerate(target)
        ]
        place, column, token = torch.tensor(reads, device=resid.device).T
        logits = read_logits(self.model, resid[place, column][:, None])[:, 0]
        return log_prob(logits.to(precise(self.model)), token).split([len(t) for t in targets])


@contextmanager
def adding(model: LabModel, added: Mapping[int, Added]) -> Iterator[None]:
    """Add to the outputs of some FFNs for the duration of the block; no weight is changed.

    Args:
        model: The model.
        added: By layer, what is added to the output of the FFN's output projection.
    """
    with capture(model, ["ffn_key"], added) as keys:

        def answer(out: Tensor, layer: int) -> Tensor:
            key = keys["ffn_key", layer]
            return out + added[layer](key.to(precise(model))).to(out.dtype)

        with patched(
            model, {("ffn_value", layer): partial(answer, layer=layer) for layer in added}
        ):
            yield


def precise(model: LabModel) -> torch.dtype:
    """The number format to learn in: the model's own, float32 at least."""
    return torch.promote_types(model.dtype, torch.float32)


def descend(
    model: LabModel,
    rewrites: Sequence[Rewrite],
    learnt: Learnt,
    training: Training,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trained:
    """Learn some tensors so that the model says the new objects. No weight is changed.

    Args:
        model: The model.
        rewrites: The rewrites.
        learnt: What is learnt, how it acts, and what holds it.
        training: Number of steps, learning rate and stopping rule.
        seed: Seed of the order in which rewrites take turns.
        progress: Called before each step.

    Raises:
        EmptyTarget: Before any work.
        AlreadyTrue: If every target is likely enough before the first step.
        NonFiniteLoss: If the loss stops being a number.
    """
    lessons = Lessons(model, rewrites, min(learnt.added))
    optimiser = torch.optim.Adam(learnt.parameters, lr=training.lr)
    draw = stats.generator(seed, "order", len(rewrites))
    turns: list[Tensor] = []
    losses: list[float] = []
    told = listener(progress)
    for step in range(training.steps + 1):
        if not turns:
            turns = list(torch.randperm(len(rewrites), generator=draw).split(training.batch))
            lowest = torch.zeros(len(rewrites))  # P(target token) of what this round has seen
        rows, loss, last = turns.pop(0), 0.0, step == training.steps
        optimiser.zero_grad()
        for chunk in rows.split(lessons.at_once):  # gradients add up, activations do not
            with torch.set_grad_enabled(not last), adding(model, learnt.added):
                found = lessons.log_probs(chunk)
            part = -torch.stack([of_one.mean() for of_one in found]).sum() / len(rows)
            loss += part.item()
            lowest[chunk] = torch.tensor([float(of_one.detach().min().exp()) for of_one in found])
            if not math.isfinite(loss):
                raise NonFiniteLoss(
                    f"the loss is {loss} at step {step}: try a smaller lr; the model is untouched"
                )
            if not last:
                part.backward()
        losses.append(loss)
        told(f"tuning, step {step} of {training.steps}", step / training.steps)
        if last or float(lowest.min()) >= training.enough:
            break
        optimiser.step()
        with torch.no_grad():
            learnt.constrain()
    if step == 0:
        asked = ", ".join(rewrite.subject for rewrite in rewrites)
        raise AlreadyTrue(f"the model says what is asked for already: {asked}")
    return Trained(step, tuple(losses), float(lowest.min()))
