"""Runs of prompts with their FFN neurons scaled at some positions.

The runs with which knowledge neurons are found and tested. The positions before the first that is
read, and the blocks below the first that is changed, are as in the clean run and are not run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.facts.answers import told
from labkit.facts.fact import Fact
from labkit.locate.traces.tracing import object_token, require_traceable
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.running.activations import capture, patched
from labkit.running.execute import Execution
from labkit.running.logits import read_logits
from labkit.tokens import TokenBatch

Positions = Literal["last", "subject", "all"]
"""At which positions neurons are scaled: the last token, the subject's tokens, all."""


@dataclass(frozen=True)
class Questions:
    """Facts, each in one wording, as a batch.

    Attributes:
        prompts: The texts.
        batch: Their tokens, left-padded.
        read: True at the positions where neurons are scaled.
        answers: First token of the object after each prompt; -1 without an object.
    """

    prompts: tuple[str, ...]
    batch: TokenBatch
    read: Bool[Tensor, "prompt pos"]
    answers: Int[Tensor, " prompt"]


def ask(
    model: LabModel, facts: Sequence[Fact], templates: Sequence[str], positions: Positions
) -> Questions:
    """Facts in a wording each.

    Args:
        model: The model.
        facts: The facts.
        templates: For each fact, a template with one `{}`.
        positions: Where neurons are to be scaled.

    Raises:
        NothingToTrace: If a prompt is one token, or nothing but the subject.
        SubjectNotFound: If the subject is not in a prompt.
        EmptyTarget: If an object tokenises to nothing.
        NotOneToken: If an object is a number that is cut into digits.
    """
    asked = [
        told(model.tokenizer, replace(fact, template=template))
        for template, fact in zip(templates, facts, strict=True)
    ]
    prompts = tuple(fact.prompt for fact in asked)
    batch = model.tokens(prompts)
    read = torch.zeros_like(batch.mask)
    answers: list[int] = []
    for row, fact in enumerate(asked):
        padding = batch.shape[1] - int(batch.lengths[row])
        span = require_traceable(model, fact)
        if positions == "last":
            read[row, -1] = True
        elif positions == "all":
            read[row] = batch.mask[row]
        else:
            read[row, padding + span.start : padding + span.stop] = True
        token = object_token(model, fact)
        answers.append(-1 if token is None else token)
    return Questions(prompts, batch, read, torch.tensor(answers, device=model.device))


class KeyRun:
    """Runs of some prompts with FFN activations changed, from the first read position on.

    Args:
        model: The model.
        questions: The prompts, and where their activations are read.

    Attributes:
        clean_logits: Logits after each prompt, `[prompt, vocab]`.
        n_positions: Number of positions of the prompts.
    """

    @torch.no_grad()
    def __init__(self, model: LabModel, questions: Questions) -> None:
        self.model, self.n_positions = model, questions.batch.shape[1]
        with capture(model, ["resid_pre", "ffn_key"]) as seen:
            resid, prefix = Execution(model, questions.batch).freeze()
        self.clean_logits = read_logits(model, resid[:, -1:])[:, 0]
        self.first = int(questions.read.any(dim=0).int().argmax())
        self.read = questions.read[:, self.first :]
        self.run = Execution(
            model, questions.batch, prefix.head(self.first) if self.first else None
        )
        self._seen = {key: tensor[:, self.first :] for key, tensor in seen.items()}

    def scaled(
        self, layer: int, scales: Float[Tensor, " point"], answers: Tensor
    ) -> tuple[Tensor, Float[Tensor, " row"]]:
        """P(answer) with one block's read activations scaled; rows are (point, prompt).

        Returns:
            The scaled activations `[row, pos, d_mlp]`, which the graph begins at, and P.
        """
        key, resid = self._seen["ffn_key", layer], self._seen["resid_pre", layer]
        scale = torch.where(self.read, scales.to(key)[:, None, None], 1.0)
        leaf = einsum(scale, key, "point prompt pos, prompt pos mlp -> point prompt pos mlp")
        leaf = rearrange(leaf, "point prompt pos mlp -> (point prompt) pos mlp").detach()
        leaf.requires_grad_(torch.is_grad_enabled())
        rows = repeat(torch.arange(len(key), device=key.device), "p -> (k p)", k=len(scales))
        with patched(self.model, {("ffn_key", layer): lambda _: leaf}):
            out = self.run.forward(resid[rows], start=layer, rows=rows)
        return leaf, self.probability(out, answers[rows])

    def gradients(
        self, layer: int, scales: Float[Tensor, " point"], answers: Tensor
    ) -> Float[Tensor, "prompt d_mlp"]:
        """Activation times gradient, summed over points and read positions."""
        with torch.enable_grad():
            leaf, probability = self.scaled(layer, scales, answers)
        (slope,) = torch.autograd.grad(probability, leaf, torch.ones_like(probability))
        slope = rearrange(
            slope, "(point prompt) pos mlp -> point prompt pos mlp", point=len(scales)
        )
        key = self._seen["ffn_key", layer] * self.read[..., None]
        return einsum(slope, key, "point prompt pos mlp, prompt pos mlp -> prompt mlp")

    def intervened(
        self, scales: dict[int, Float[Tensor, "variant d_mlp"]]
    ) -> Float[Tensor, "variant prompt vocab"]:
        """Logits with neurons scaled at the read positions, all blocks at once.

        Args:
            scales: By layer, the factor of every neuron, one row per variant; layers left out
                stay as they are. Later blocks react, and are scaled as they react.
        """
        start, n_prompts = min(scales), len(self.read)
        n_variants = len(scales[start])

        def change(layer: int) -> Callable[[Tensor], Tensor]:
            rows = repeat(scales[layer], "variant mlp -> (variant prompt) 1 mlp", prompt=n_prompts)
            read = repeat(self.read, "prompt pos -> (variant prompt) pos 1", variant=n_variants)
            return lambda key: torch.where(read, key * rows.to(key), key)

        rows = torch.arange(n_prompts, device=self.read.device).repeat(n_variants)
        site: Site = "ffn_key"
        changes = {(site, layer): change(layer) for layer in scales}
        with torch.no_grad(), patched(self.model, changes):
            resid = self._seen["resid_pre", start][rows]
            out = self.run.forward(resid, start=start, rows=rows)
            logits = read_logits(self.model, out[:, -1:])[:, 0]
        return rearrange(logits, "(variant prompt) vocab -> variant prompt vocab", prompt=n_prompts)

    def probability(self, resid: Tensor, answers: Tensor) -> Float[Tensor, " row"]:
        """P of each row's answer at the last position."""
        logits = read_logits(self.model, resid[:, -1:])[:, 0]
        return logits.float().softmax(dim=-1).gather(1, answers[:, None])[:, 0]
