"""A prompt opened at its subject: states there, what follows from them, and the derivative.

Everything in front of the subject's last token is frozen (`labkit.running.execute`), so that a
changed subject costs the few tokens after it and the blocks above it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.facts.fact import Fact
from labkit.models.model import LabModel
from labkit.running.execute import Execution, freeze
from labkit.tokens.words import joined
from probes.cloze.translators import depths

ROWS = 128
"""Rows of the Jacobian that are computed together."""


def demonstrations(facts: Sequence[Fact]) -> str:
    """Facts as lines in front of a prompt: `prompt object`, one per line."""
    return "".join(f"{joined(fact.prompt, str(fact.object))}\n" for fact in facts)


@dataclass(frozen=True, eq=False)
class SubjectRun:
    """One prompt, ready to be run from its subject's last token on. Make it with `open`.

    Attributes:
        model: The model.
        run: The tokens from the subject's last one on.
        stack: Their residual stream after 0, 1, ... n_layers blocks.
    """

    model: LabModel
    run: Execution
    stack: tuple[Float[Tensor, "1 pos d_model"], ...]

    @classmethod
    @torch.no_grad()
    def open(cls, model: LabModel, fact: Fact, context: str = "") -> "SubjectRun":
        """Run a fact's prompt after a context.

        Args:
            model: The model.
            fact: The fact.
            context: What stands in front, such as `demonstrations`.

        Raises:
            SubjectNotFound: If no token stands for the subject.
            InputError: If the prompt is longer than what the model reads.
        """
        prompt = context + fact.prompt
        span = model.span(prompt, fact.subject, at=len(context) + fact.subject_start)
        batch = model.tokens([prompt])
        prefix = freeze(model, batch, length=span.last) if span.last else None
        run = Execution(model, batch, prefix)
        return cls(model, run, tuple(depths(run)))

    @property
    def states(self) -> Float[Tensor, "depth d_model"]:
        """The subject's last token, at every depth."""
        return torch.stack([resid[0, 0] for resid in self.stack])

    @property
    def output(self) -> Float[Tensor, " d_model"]:
        """The prompt's last token after the last block, before the final norm."""
        return self.stack[-1][0, -1]

    @torch.no_grad()
    def outputs_from(
        self, depth: int, states: Float[Tensor, "row d_model"]
    ) -> Float[Tensor, "row d_model"]:
        """The output, with other states in place of the subject's.

        Args:
            depth: How many blocks the states have passed through.
            states: One per row.
        """
        resid = self.stack[depth].repeat(len(states), 1, 1)
        resid[:, 0] = states
        return self.run.forward(resid, start=depth)[:, -1]

    @torch.enable_grad()
    def jacobians(self) -> Float[Tensor, "depth d_out d_in"]:
        """Derivative of the output by the subject's state, at every depth, in one backward pass.

        The other tokens' states of that depth are held, as in a run that resumes there. One
        vector-Jacobian product per row of the output, many of them together, runs down through all
        depths at once.
        """
        resid = self.stack[0].clone().requires_grad_()
        stack = [resid]
        for layer in range(self.model.n_layers):
            resid = self.run.forward(resid, start=layer, stop=layer + 1)
            stack.append(resid)
        output = resid[0, -1]
        rows = []
        for some in torch.eye(len(output), dtype=output.dtype, device=output.device).split(ROWS):
            found = torch.autograd.grad(
                output, stack, some, is_grads_batched=True, retain_graph=True
            )
            rows.append(torch.stack([gradient[:, 0, 0] for gradient in found]))
        return torch.cat(rows, dim=1).detach()
