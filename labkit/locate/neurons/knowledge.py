"""Knowledge neurons: which FFN neurons a fact's probability depends on.

For one prompt and one block l, let `w` be the activations of its FFN neurons (its *key*) at
the read positions. Scale them all down together to `alpha w` and follow P(answer):

    Attr(w_i) = w_i * integral_0^1 dP(alpha w)/dw_i dalpha                       (eq. 2)

Integrated gradients, one block at a time, while later blocks respond. For each block
the attributions add up to `P(w) - P(0)`, the contribution of all its FFN activations
(completeness): the result carries both sides, and the integral is refined, block by block, until
they agree. A fact is asked in several wordings, since a neuron may serve the wording and not the
fact. Per prompt, neurons with an attribution of at least `threshold` times the prompt's largest are
kept; those kept in at least a share `shared` of the prompts are the fact's *knowledge neurons*.

Attribution is a ranking. Whether the neurons hold the fact is tested by suppressing and amplifying
exactly them: `KnowledgeNeuronsResult.test`, against random neurons of the same layers.

The blocks below l, and the positions before the first that is read, are as in the clean
run and are not run again.
"""

import logging
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.arguments import checked
from labkit.bounds import STEPS
from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.locate.neurons.key_runs import KeyRun, Positions, ask
from labkit.locate.neurons.knowledge_result import KnowledgeNeuronsResult, most_of
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import measured_on
from labkit.running.logits import MEMORY, rows_within

logger = logging.getLogger(__name__)

REFINED = 3
"""Points become so many times as many: the middles of thirds hold the middle of the whole."""


@dataclass(frozen=True, kw_only=True)
class KnowledgeNeurons:
    """Knowledge neurons of one fact.

        found = KnowledgeNeurons()(model, fact)
        found.test(model, other_facts).figure()

    Attributes:
        positions: Where the neurons' activations are turned down.
        steps: Number of points on the way from 0 to the activations, at first (the paper: 20).
        max_steps: A prompt's points in a block are made three times as many, as long as they are
            at most so many, until its attributions are complete. `steps` itself: the paper's fixed
            number.
        tolerance: Largest gap between the sum of a block's attributions and
            what the block brings, in units of the most that any block brings there. A block
            that stays beyond it is logged, and named by the result's `warning`.
        threshold: Share of a prompt's largest attribution that a neuron must reach, 0..1
            (the paper: 0.2).
        shared: Share of the prompts in which it must do so, 0..1 (the paper: 0.7 at first).
        memory: Bound on the activations held at once, in bytes.

    Shows:
        Which FFN neurons P(answer) depends on, as their activations are turned down to nothing.

    Does not show:
        That the neurons are *for* this fact: many respond to the kind of answer (any city) or to
        its token. The loss of other facts shows how many.

    References:
        Dai et al. 2022, Knowledge Neurons in Pretrained Transformers, sections 3.1 and 3.2.
        Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks.

    Differs from the paper: it reads a masked language model at the mask, here a causal one
    at the last token of the prompt, where the answer is predicted (or at other `positions`,
    all turned down together; attributions are summed over them). Equation 2 turns down one
    neuron, its code and this all neurons of a block. The integral is taken at the middles
    of the steps, not at their ends: the error falls with the square of their number, which
    grows where 20 are too few (in the lowest blocks, where P(answer) comes up all at once). The
    paper moves `shared` by 0.05 until a relation has 2 to 5 neurons per fact; here it stays.
    """

    positions: Positions = "last"
    steps: int = 20
    max_steps: int = 540
    tolerance: float = 0.02
    threshold: float = 0.2
    shared: float = 0.7
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if self.positions not in ("last", "subject", "all"):
            raise InputError(f"positions {self.positions!r}: one of last, subject, all")
        if not 1 <= self.max_steps <= STEPS:
            raise InputError(f"max_steps {self.max_steps}: 1 to {STEPS:,}")
        if not 1 <= self.steps <= self.max_steps:
            raise InputError(
                f"{self.steps} steps, {self.max_steps} at most: integrated gradients need one or "
                "more, and max_steps cannot be less"
            )
        if not self.tolerance > 0:
            raise InputError(f"tolerance {self.tolerance}: choose a tolerance above 0")
        if not (0 < self.threshold <= 1 and 0 < self.shared <= 1):
            raise InputError("threshold and shared are shares: above 0 and at most 1")

    @checked
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
        clean = run.clean_logits.float().softmax(dim=-1).gather(1, answers[:, None])[:, 0].cpu()
        layers = range(model.n_layers)
        with torch.no_grad():
            removed = torch.stack([run.scaled(x, torch.zeros(1), answers)[1] for x in layers], 1)
        removed = removed.cpu()
        most = torch.as_tensor(most_of(clean.numpy(), removed.numpy()))[:, 0]
        attributions = torch.empty(len(clean), model.n_layers, model.d_mlp)
        steps = torch.empty(len(clean), model.n_layers, dtype=torch.long)
        for layer in layers:
            listener(progress)(f"FFN of layer {layer}", layer / model.n_layers)
            allowed = self.tolerance * most
            attributions[:, layer], steps[:, layer] = self._layer(
                run, layer, answers, clean - removed[:, layer], allowed
            )
        decode = model.tokenizer.decode
        result = KnowledgeNeuronsResult(
            fact=fact,
            prompts=questions.prompts,
            answers=tuple(decode([token]) for token in answers.tolist()),
            answer_ids=tuple(answers.tolist()),
            clean=clean.numpy(),
            removed=removed.numpy(),
            attributions=attributions.numpy(),
            steps=steps.numpy(),
            **measured_on(model),
            config=asdict(self),
        )
        if result.warning is not None:
            logger.warning("%s", result.warning)
        return result

    def _layer(
        self, run: KeyRun, layer: int, answers: Tensor, brings: Tensor, allowed: Tensor
    ) -> tuple[Float[Tensor, "prompt d_mlp"], Int[Tensor, " prompt"]]:
        """Attributions of one block's neurons, and the number of points behind them."""
        # Activations of the blocks above wait for the backward run.
        above = run.model.n_layers - layer
        at_once = max(1, rows_within(run.model, run.n_positions, self.memory) // above)
        per_point = max(1, at_once // len(answers))
        total = torch.zeros(len(answers), run.model.d_mlp, device=run.model.device)
        found, behind = torch.zeros(total.shape), torch.zeros(len(answers), dtype=torch.long)
        steps, new = self.steps, (torch.arange(self.steps) + 0.5) / self.steps
        # A prompt that is complete stays as it is, whatever the others need.
        missing = torch.ones(len(answers), dtype=torch.bool)
        while True:
            for chunk in new.split(per_point):
                total += run.gradients(layer, chunk, answers)
            found[missing], behind[missing] = (total / steps).cpu()[missing], steps
            missing = ~((found.sum(dim=-1) - brings).abs() <= allowed)
            if not missing.any() or REFINED * steps > self.max_steps:
                return found, behind
            steps *= REFINED
            number = torch.arange(steps)
            # The points so far are the middle ones of the new threes.
            new = (number[number % REFINED != REFINED // 2] + 0.5) / steps
