"""Attribution patching: a causal trace, approximated by gradients.

A trace restores one state of a corrupted run at a time, with one run for each. To first order, all
of them take a single backward pass (Nanda 2023):

    P*[state] - P*  ~  (state_clean - state_corrupted) . dP*/dstate

for every position and layer at once, where the gradient is that of P(answer) in the
corrupted run. The corruption, its draws, the grid and the windows are those of
`CausalTrace`, so that the two can be laid side by side (`AttributionResult.agreement`).

The gradient is the effect of a small step towards the clean state; restoring is a large one.
Where P(answer) is close to 0 or 1 the gradient vanishes although the effect does not. With
`steps > 1` it is averaged along the way from the corrupted to the clean embeddings
(integrated gradients; Hanna et al. 2024), which costs as many backward passes.

Why not by transformer_lens: its `attribution_patch` takes a pair of token sequences, so it
cannot corrupt by noise, scores heads and FFN outputs but no hidden state, and refuses
`ig_steps > 1`. For a pair of prompts it is what `attribution_pairs` runs.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import told
from labkit.facts.fact import Fact
from labkit.locate.attributions.attribution_result import AttributionResult
from labkit.locate.fact_result import about_fact
from labkit.locate.traces.restoring import SITES, Kind, Restoration
from labkit.locate.traces.tracing import (
    Corruption,
    answer_probability,
    corruption,
    object_token,
    require_traceable,
)
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import capture, patched_embedding
from labkit.running.execute import Execution, repeat_rows
from labkit.running.logits import MEMORY, read_logits, rows_within
from labkit.running.prefixes import Prefix
from labkit.tokens import TokenBatch, TokenSpan


@dataclass(frozen=True, kw_only=True)
class AttributionPatching:
    """Attribution patching of one fact, on the grid of a causal trace.

        AttributionPatching()(model, fact).agreement(CausalTrace()(model, fact))

    Attributes:
        kind: What would be restored.
        noise: Standard deviation of the noise, in standard deviations of the token
            embeddings as they enter the model, as in `CausalTrace`.
        samples: Number of noise draws; the same draws as those of a trace of this seed.
        window: Number of consecutive layers whose FFN or attention output is restored
            together, as in `CausalTrace`; to first order their effects add up.
        seed: Seed of the noise.
        steps: Points on the way from the corrupted to the clean embeddings at which the
            gradient is taken; 1 is the plain gradient, at the corrupted run itself.
        memory: Bound on the activations held at once, in bytes.

    Shows:
        A ranking of all states by what a small step towards the clean run would do, for the price
        of one backward pass.

    Does not show:
        The effect itself: where P(answer) is near 0 or 1 the gradient vanishes and the effect
        does not. Check the top of the ranking against a trace.

    References:
        Nanda 2023, Attribution Patching: Activation Patching At Industrial Scale. Syed et
        al. 2023, Attribution Patching Outperforms Automated Circuit Discovery, equation 2.
        Hanna et al. 2024, Have Faith in Faithfulness (EAP-IG), section 3. Sundararajan et
        al. 2017, Axiomatic Attribution for Deep Networks.

    Differs from the papers: nodes are the states of a trace, not edges; the corruption is
    noise; with `steps > 1` the gradient is taken in the middle of each step, not at its
    end, since the error then falls with the square of the number of steps.
    """

    kind: Kind = "resid"
    noise: float = 3.0
    samples: int = 10
    window: int | None = None
    seed: int = 0
    steps: int = 1
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if self.kind not in SITES:
            raise InputError(f"kind {self.kind!r}: one of {', '.join(SITES)}")
        if not 0 < self.noise < math.inf or self.samples < 1 or self.steps < 1:
            raise InputError("attribution needs noise above 0, a noise draw and a step at least")
        if self.window is not None and (self.kind == "resid" or self.window < 1):
            raise InputError("a window is a number of layers of FFN or attention outputs")

    @checked
    def __call__(
        self, model: LabModel, fact: Fact, *, progress: Progress | None = None
    ) -> AttributionResult:
        """Approximate the trace of one fact.

        Args:
            model: The model.
            fact: Prompt, subject and answer (the first token of the object is followed);
                without an object, the answer is what the model itself says next.
            progress: Called with what is being done and the share that is done.

        Raises:
            SubjectNotFound: If the subject is not in the prompt.
            NothingToTrace: If the prompt is one token, or nothing but the subject.
            EmptyTarget: If the object tokenises to nothing.
            NotOneToken: If the object is a number that is cut into digits.
        """
        fact = told(model.tokenizer, fact)
        span, batch = require_traceable(model, fact), model.tokens([fact.prompt])
        answer = object_token(model, fact)
        corrupt = corruption(
            model, fact, span, noise=self.noise, samples=self.samples, seed=self.seed
        )
        grid = first_order(model, batch, corrupt, answer, self, progress=progress)
        return AttributionResult(
            **about_fact(
                model, fact, batch.ids[0].tolist(), answer_id=grid.answer, subject_positions=span
            ),
            kind=self.kind,
            clean=grid.clean,
            corrupted=grid.corrupted,
            effects=self._windowed(grid.effects),
            config=asdict(self),
        )

    def _windowed(
        self, effects: Float[np.ndarray, "sample pos layer"]
    ) -> Float[np.ndarray, "sample pos layer"]:
        """The effect of restoring a window of layers together: the sum of theirs."""
        how, n_layers = Restoration(kind=self.kind, window=self.window), effects.shape[-1]
        windows = [how.layers(layer, n_layers) for layer in range(n_layers)]
        return np.stack([effects[..., list(window)].sum(axis=-1) for window in windows], axis=-1)


@dataclass(frozen=True)
class Grid:
    """First-order effects of restoring each state of a corrupted prompt.

    Attributes:
        answer: The token whose probability is followed.
        clean: P(answer) of the clean run.
        corrupted: P(answer) of the corrupted runs.
        effects: First-order effect of each state on P(answer); 0 before the noise.
    """

    answer: int
    clean: float
    corrupted: Float[np.ndarray, " sample"]
    effects: Float[np.ndarray, "sample pos layer"]


def first_order(
    model: LabModel,
    batch: TokenBatch,
    corrupt: Corruption,
    answer: int | None,
    how: AttributionPatching,
    *,
    progress: Progress | None = None,
) -> Grid:
    """First-order effect of restoring each single state of a prompt corrupted by some noise.

    One clean forward run, and one forward and backward run of the corrupted rows from the
    first corrupted position on; nothing else of the model is run.

    Args:
        model: The model.
        batch: One prompt.
        corrupt: The corrupted positions, and what is added to their token embeddings.
        answer: The token whose probability is followed; None follows the clean run's own.
        how: Which states, the number of steps and the bound on memory; its window and its noise
            are not looked at.
        progress: Called with what is being done and the share that is done.
    """
    site, span, steps = SITES[how.kind], corrupt.span, how.steps
    with torch.no_grad(), capture(model, [site]) as clean:
        resid, prefix = Execution(model, batch).freeze()
        logits = read_logits(model, resid[:, -1:])[0, 0]
    if answer is None:
        answer = int(logits.argmax())
    before = prefix.head(span.start) if span.start else None
    # Every layer's activations wait for the backward run, so that fewer rows fit.
    at_once = max(1, rows_within(model, batch.shape[1], how.memory) // model.n_layers)
    chunks = corrupt.noise.split(at_once)
    corrupted: list[Tensor] = []
    effects: list[Tensor] = []
    for chunk, drawn in enumerate(chunks):
        with torch.set_grad_enabled(steps == 1):
            states, probability = _run(model, batch, span, drawn, answer, site, before)
        corrupted.append(probability.detach())
        gradients = None
        for step in range(steps):
            share = (chunk + step / steps) / len(chunks)
            listener(progress)(f"gradients, step {step + 1} of {steps}", share)
            here, loss = states, probability
            if steps > 1:
                left = drawn * (1 - (step + 0.5) / steps)
                with torch.enable_grad():
                    here, loss = _run(model, batch, span, left, answer, site, before)
            slopes = torch.autograd.grad(loss, here, torch.ones_like(loss))
            gradients = slopes if gradients is None else _added(gradients, slopes)
        assert gradients is not None  # there is a step at least
        by_layer = [
            (clean[site, layer][:, span.start :] - states[layer].detach()) * gradients[layer]
            for layer in range(model.n_layers)
        ]
        effects.append(torch.stack([product.sum(dim=-1) for product in by_layer], dim=-1) / steps)
    grid = torch.zeros(len(corrupt.noise), batch.shape[1], model.n_layers)
    grid[:, span.start :] = torch.cat(effects).cpu()
    return Grid(
        answer=answer,
        clean=logits.float().softmax(dim=-1)[answer].item(),
        corrupted=torch.cat(corrupted).cpu().numpy(),
        effects=grid.numpy(),
    )


def _run(
    model: LabModel,
    batch: TokenBatch,
    span: TokenSpan,
    noise: Float[Tensor, "row subject d_model"],
    answer: int,
    site: Site,
    before: Prefix | None,
) -> tuple[list[Tensor], Float[Tensor, " row"]]:
    """States of every layer and P(answer) under some noise, from the noise's first position on."""
    first = 0 if before is None else before.length
    corrupt = Corruption(TokenSpan(span.start - first, span.stop - first), noise)
    with patched_embedding(model, corrupt):
        run = Execution(model, repeat_rows(batch, len(noise)), before)
    leaf = run.embed.detach().requires_grad_(torch.is_grad_enabled())
    with capture(model, [site]) as seen:
        resid = run.forward(leaf)
    states = [seen[site, layer] for layer in range(model.n_layers)]
    return states, answer_probability(model, resid, answer)


def _added(left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Two gradients, layer by layer, as one."""
    return tuple(a + b for a, b in zip(left, right, strict=True))
