"""Knowledge neurons: which FFN neurons a fact's probability depends on.

For one prompt and one block l, let `w` be the activations of its FFN neurons (its *key*) at
the read positions. Turn them all down together to `alpha w` and follow P(answer):

    Attr(w_i) = w_i * integral_0^1 dP(alpha w)/dw_i dalpha                       (eq. 2)

Integrated gradients, one block at a time, the other blocks left to react. For each block
the attributions add up to `P(w) - P(0)`, what its FFN activations as a whole bring
(completeness); the result carries both sides. A fact is asked in several wordings, since a
neuron may serve the wording and not the fact. Per prompt, neurons with an attribution of at
least `threshold` times the prompt's largest are kept; those kept in at least a share
`shared` of the prompts are the fact's *knowledge neurons*.

Attribution is a ranking. Whether the neurons hold the fact is tested by switching exactly
them off and up: `KnowledgeNeuronsResult.test`, against random neurons of the same layers.

What this does not show: that the neurons are *for* this fact. Many answer to the kind of
answer (any city) or to its token; what other facts lose says how many.

The blocks below l, and the positions before the first that is read, are as in the clean
run and are not run again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.bounds import STEPS
from labkit.errors import FingerprintMismatch, InputError
from labkit.facts.fact import Fact
from labkit.intervals import over_units
from labkit.locate.neurons.key_runs import KeyRun, Positions, ask
from labkit.locate.neurons.switching import NeuronTest, switch
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.result import Result
from labkit.running.execute import MEMORY, rows_within


@dataclass(frozen=True, kw_only=True, eq=False)
class KnowledgeNeuronsResult(Result):
    """Attributions of all FFN neurons to one fact, and those that pass.

    Attributes:
        fact: The fact.
        prompts: Its wordings, the template first.
        answers: The token whose probability is followed, behind each prompt: the first of
            the object.
        answer_ids: Their ids.
        clean: P(answer) of each prompt, the model as it is.
        removed: P(answer) with all of a block's neurons off at the read positions.
        attributions: Attribution of every neuron, in units of probability.
        model: Name of the model.
        fingerprint: Fingerprint of the weights in effect when it was measured.
        config: The method's fields.
    """

    fact: Fact
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    answer_ids: tuple[int, ...]
    clean: Float[np.ndarray, " prompt"]
    removed: Float[np.ndarray, "prompt layer"]
    attributions: Float[np.ndarray, "prompt layer d_mlp"]
    model: str
    fingerprint: str
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """How many neurons pass, of what, in how many wordings."""
        n_all = self.attributions.shape[1] * self.attributions.shape[2]
        return (
            f"{len(self.neurons)} of {n_all} FFN neurons carry {self.fact.subject!r} to "
            f"{self.answers[0]!r} in at least {self.config['shared']:.0%} of "
            f"{len(self.prompts)} prompts"
        )

    @property
    def kept(self) -> Bool[np.ndarray, "prompt layer d_mlp"]:
        """Which neurons reach the threshold, prompt by prompt."""
        largest = self.attributions.max(axis=(1, 2), keepdims=True)
        return (self.attributions >= self.config["threshold"] * largest) & (self.attributions > 0)

    @property
    def share(self) -> Float[np.ndarray, "layer d_mlp"]:
        """Share of the prompts in which a neuron reaches the threshold, 0..1."""
        return self.kept.mean(axis=0)

    @property
    def neurons(self) -> tuple[tuple[int, int], ...]:
        """The knowledge neurons, (layer, neuron), largest mean attribution first."""
        # A share of 7 in 10 is 0.7 whatever binary fractions say.
        found = np.argwhere(self.share >= self.config["shared"] - 1e-9)
        mean = self.attributions.mean(axis=0)
        ordered = sorted(found.tolist(), key=lambda at: -mean[at[0], at[1]])
        return tuple((layer, neuron) for layer, neuron in ordered)

    @property
    def profile(self) -> Float[np.ndarray, " layer"]:
        """Attribution of a block's neurons together, mean over prompts."""
        return self.attributions.sum(axis=-1).mean(axis=0)

    @property
    def incompleteness(self) -> Float[np.ndarray, "prompt layer"]:
        """Sum of a block's attributions less what its neurons bring; 0 with enough steps."""
        return self.attributions.sum(axis=-1) - (self.clean[:, None] - self.removed)

    def to_frame(self) -> pd.DataFrame:
        """One row a neuron that reaches the threshold in some prompt, largest first.

        Columns layer, neuron, mean, low, high (attribution: 95 % over prompts),
        share (of the prompts) and knowledge (whether that share is enough).
        """
        layers, neurons = np.nonzero(self.share)
        mean, low, high, _ = over_units(self.attributions[:, layers, neurons])
        share = self.share[layers, neurons]
        frame = pd.DataFrame(
            {
                "layer": layers,
                "neuron": neurons,
                "mean": mean,
                "low": low,
                "high": high,
                "share": share,
                "knowledge": share >= self.config["shared"] - 1e-9,
            }
        )
        return frame.sort_values("mean", ascending=False, ignore_index=True)

    def figure(self) -> Any:
        """One dot a neuron by layer and attribution; knowledge neurons stand out."""
        from labkit.plots import neurons_by_layer

        return neurons_by_layer(
            self.to_frame(),
            n_layers=self.attributions.shape[1],
            n_prompts=len(self.prompts),
            title=self.title,
            subtitle="sums by layer miss the layer's effect by at most "
            f"{np.abs(self.incompleteness).max():.3f} (more steps: less)",
        )

    def test(
        self,
        model: LabModel,
        control_facts: Sequence[Fact] = (),
        *,
        draws: int = 10,
        seed: int = 0,
        memory: int = MEMORY,
    ) -> NeuronTest:
        """Switch exactly these neurons off and up, and look what the answers do.

        Args:
            model: The model they were found in; it is not changed.
            control_facts: Other facts, whose answers should stay.
            draws: Number of sets of random neurons, as many in each layer.
            seed: Seed of these sets.
            memory: Bound on the activations held at once, in bytes.

        Raises:
            FingerprintMismatch: If it is another model.
            InputError: If no neuron passed, this fact is among its controls, or there are
                not enough other neurons for a control.
        """
        if not model.is_own(self.fingerprint):
            raise FingerprintMismatch(f"these neurons are of another model ({self.model})")
        return switch(
            model,
            self.neurons,
            self.fact,
            control_facts,
            answers=self.answer_ids,
            positions=self.config["positions"],
            draws=draws,
            seed=seed,
            memory=memory,
        )


@dataclass(frozen=True, kw_only=True)
class KnowledgeNeurons:
    """Knowledge neurons of one fact.

    Attributes:
        positions: Where the neurons' activations are turned down.
        steps: Number of points on the way from 0 to the activations (the paper: 20).
        threshold: Share of a prompt's largest attribution that a neuron must reach, 0..1
            (the paper: 0.2).
        shared: Share of the prompts in which it must do so, 0..1 (the paper: 0.7 at first).
        memory: Bound on the activations held at once, in bytes.

    References:
        Dai et al. 2022, Knowledge Neurons in Pretrained Transformers, sections 3.1 and 3.2.
        Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks.

    Differs from the paper: it reads a masked language model at the mask, here a causal one
    at the last token of the prompt, where the answer is predicted (or at other `positions`,
    all turned down together; attributions are summed over them). Equation 2 turns down one
    neuron, its code and this all neurons of a block. The integral is taken at the middles
    of the steps, not at their ends: the error falls with the square of their number. The
    paper moves `shared` by 0.05 until a relation has 2 to 5 neurons a fact; here it stays.
    """

    positions: Positions = "last"
    steps: int = 20
    threshold: float = 0.2
    shared: float = 0.7
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        if self.positions not in ("last", "subject", "all"):
            raise InputError(f"positions {self.positions!r}: one of last, subject, all")
        if not 1 <= self.steps <= STEPS:
            raise InputError(f"integrated gradients need 1 to {STEPS:,} steps")
        if not (0 < self.threshold <= 1 and 0 < self.shared <= 1):
            raise InputError("threshold and shared are shares: above 0 and at most 1")

    def __call__(
        self, model: LabModel, fact: Fact, *, progress: Progress | None = None
    ) -> KnowledgeNeuronsResult:
        """Find the knowledge neurons of a fact.

        Args:
            model: The model.
            fact: Subject, template and paraphrases; the first token of the object is
                followed. Without an object it is what the model says next to the template.
            progress: Called with what is being done and the share that is done.

        Raises:
            NothingToTrace: If a prompt is one token, or nothing but the subject.
            SubjectNotFound: If the subject is not in a prompt.
            EmptyTarget: If the object tokenises to nothing.
        """
        templates = list(dict.fromkeys((fact.template, *fact.paraphrases)))
        questions = ask(model, [fact] * len(templates), templates, self.positions)
        run = KeyRun(model, questions)
        answers = questions.answers
        if fact.object is None:
            answers = run.clean_logits[:1].argmax(dim=-1).expand(len(templates))
        shape = (len(questions.prompts), model.n_layers)
        attributions = torch.empty(*shape, model.d_mlp)
        removed = torch.empty(shape)
        for layer in range(model.n_layers):
            listener(progress)(f"FFN of layer {layer}", layer / model.n_layers)
            attributions[:, layer], removed[:, layer] = self._layer(run, layer, answers)
        clean = run.clean_logits.float().softmax(dim=-1)
        decode = model.tokenizer.decode
        return KnowledgeNeuronsResult(
            fact=fact,
            prompts=questions.prompts,
            answers=tuple(decode([token]) for token in answers.tolist()),
            answer_ids=tuple(answers.tolist()),
            clean=clean.gather(1, answers[:, None])[:, 0].cpu().numpy(),
            removed=removed.numpy(),
            attributions=attributions.numpy(),
            model=model.name,
            fingerprint=model.in_effect,
            config=asdict(self),
        )

    def _layer(
        self, run: KeyRun, layer: int, answers: Tensor
    ) -> tuple[Float[Tensor, "prompt d_mlp"], Float[Tensor, " prompt"]]:
        """Attributions of one block's neurons, and P(answer) without any of them."""
        points = (torch.arange(self.steps) + 0.5) / self.steps
        # Activations of the blocks above wait for the backward run.
        above = run.model.n_layers - layer
        at_once = max(1, rows_within(run.model, run.n_positions, self.memory) // above)
        per_point = max(1, at_once // len(answers))
        total = torch.zeros(len(answers), run.model.d_mlp, device=run.model.device)
        for chunk in points.split(per_point):
            total += run.gradients(layer, chunk, answers)
        with torch.no_grad():
            _, off = run.scaled(layer, torch.zeros(1), answers)
        return (total / self.steps).cpu(), off.cpu()
