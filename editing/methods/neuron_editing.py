"""Knowledge-neuron editing: rewrite a fact in the value vectors of the neurons it depends on.

The neurons are those of `labkit.locate.KnowledgeNeurons`: FFN neurons whose activation the
probability of the old object depends on. With `v_i` the value of such a neuron (what it
writes per unit of activation), `a_i` its activation at the end of the prompt and `u` the
unembedding,

    v_i  <-  v_i + sign(a_i) * (add * u[new object] - remove * u[old object])

so that the neuron promotes the new object where it promoted the old one. No gradient, no
second moment, a handful of rows changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.delta import Change, LowRank, WeightDelta
from editing.edits.provenance import of_edit
from editing.edits.requests import Request, listed, rewrites_only
from editing.methods.closed_form.keys import contexts, fitting, in_front
from editing.methods.tuning.gradient_descent import as_stored
from labkit import stats
from labkit.arguments import checked
from labkit.bounds import require_finite
from labkit.errors import InputError
from labkit.facts.answers import follow
from labkit.facts.fact import Fact, Rewrite
from labkit.facts.worlds import facts_of
from labkit.locate import KnowledgeNeurons, KnowledgeNeuronsResult
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.running.activations import capture
from labkit.running.execute import Execution
from labkit.text.corpus import Corpus, corpus_of
from labkit.tokens import target_ids

REFERENCE = 64
"""Prompts of facts behind which the usual activations are measured."""


@dataclass(frozen=True, kw_only=True)
class KnowledgeNeuronEditing:
    """Surgery on the values of a fact's knowledge neurons.

        delta = KnowledgeNeuronEditing()(model, [rewrite])

    Attributes:
        remove: Weight of the old object's unembedding, taken away (the paper: 1).
        add: Weight of the new object's unembedding, put in (the paper: 8, which gated FFNs
            with their larger activations do not survive).
        n_neurons: How many neurons are changed: those kept in the most contexts, and of these
            those of the largest attribution (the paper: about 4, by lowering the share of the
            prompts in which a neuron must be kept).
        specific: A neuron is left alone unless its activation at the end of the prompt is this
            many times as large as at the end of other facts' prompts, on average; where none
            is, the one that comes closest is changed. 0 takes all. Without it SmolLM2-135M
            loses 1 nat per token of running text, at 6 less than 0.01.
        n_contexts: Contexts in which a neuron is looked for, the empty one among them: a
            neuron may serve the wording and not the fact.
        locator: How neurons are found; its `shared` plays no part.
        seed: Seed of the draw of contexts.

    Shows:
        Whether the values of the few neurons that a fact's probability depends on suffice to turn
        its answer, without a gradient or a second moment.

    Does not show:
        That the rewrite succeeds (attribution is a ranking, and nothing is solved for), or that
        other facts stay: most of these neurons serve a kind of answer, and each prompt that makes
        them fire gets the new object.

    References:
        Dai et al. 2022, Knowledge Neurons in Pretrained Transformers, section 5.1 (updating
        facts).

    Differs from the paper: a causal model, read at the end of the prompt; the wordings are
    the prompt after contexts, not ten paraphrases from a data set, so that the paraphrases
    on which an edit is judged play no part in it; a neuron that speaks for the old object by
    a negative activation (there are such in gated FFNs) is changed with the opposite sign;
    a neuron that serves facts of all kinds is told by its activations elsewhere, not by being a
    knowledge neuron of more than a tenth of the relations. Objects of several tokens go by
    their first one.
    """

    remove: float = 1.0
    add: float = 2.0
    n_neurons: int = 10
    specific: float = 6.0
    n_contexts: int = 4
    locator: KnowledgeNeurons = field(default_factory=lambda: KnowledgeNeurons(steps=8))
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        require_finite(self)
        if (
            self.n_neurons < 1
            or self.n_contexts < 1
            or min(self.remove, self.add, self.specific) < 0
        ):
            raise InputError(
                "knowledge-neuron editing needs a neuron, a context, and weights of at least 0"
            )

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError, ContradictoryRewrites: See `editing.edits.requests.rewrites_only`.
        """
        rewrites_only(rewrites, "knowledge-neuron editing")

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> "Prepared":
        """The contexts, and how active each neuron is at the end of prompts of other facts.

        Args:
            model: The model.
            corpus: The text behind the contexts; by default the model's own.
            progress: Called as it is sampled.
        """
        text = corpus_of(model, progress=progress) if corpus is None else corpus
        facts = facts_of(model)
        draw = stats.generator(self.seed, "usual activations")
        some = torch.randperm(len(facts), generator=draw)[:REFERENCE].tolist()
        usual = activations(model, [facts[i].prompt for i in some]).abs().mean(dim=0)
        return Prepared(contexts(text, self.n_contexts, seed=self.seed), usual)

    @checked
    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request] | Request,
        *,
        prepared: "Prepared | None" = None,
        after: WeightDelta | None = None,
        progress: Progress | None = None,
    ) -> WeightDelta:
        """The change of some neurons' values that makes some rewrites.

        The neurons of all rewrites are found in the model as it is; the changes add up. The
        model is not changed.

        Args:
            model: The model.
            rewrites: The rewrites, or a single one. Without an old object, the
                model's own answer is taken for it.
            prepared: From `prepare`.
            after: The edits already in effect, if any.
            progress: Called after each layer that was searched for neurons.

        Raises:
            InputError, ContradictoryRewrites: See `require`; or if no neuron is found.
            EmptyTarget, SubjectNotFound, NothingToTrace: Before any work.
            ContextTooShort: If a prompt with its target is longer than the model reads.
        """
        asked = rewrites_only(listed(rewrites), "knowledge-neuron editing")
        for rewrite in asked:
            target_ids(model.tokenizer, rewrite.prompt, rewrite.target_new)
        prepared = self.prepare(model, progress=progress) if prepared is None else prepared
        fronts = [fitting(model, [rewrite], prepared.contexts) for rewrite in asked]
        values: dict[tuple[int, int], Tensor] = {}
        found = []
        for number, (rewrite, front) in enumerate(zip(asked, fronts, strict=True)):
            told = part_of(progress, number / len(asked), 1 / len(asked), f"{rewrite.subject}: ")
            located = self._locate(model, rewrite, front, told)
            asked_at, new = self._new_token(model, rewrite, located)
            (active,) = activations(model, [asked_at])
            neurons = self._chosen(located, active, prepared.usual)
            if not neurons:
                raise InputError(
                    f"no neuron of {model.name} supports the answer to {rewrite.prompt!r}"
                )
            found.append([list(neuron) for neuron in neurons])
            towards = self._towards(model, new, located)
            for at in neurons:
                values[at] = values.get(at, 0) + active[at].sign() * towards
        return WeightDelta(
            {
                model.ffn_out_name(layer): _rows(model, layer, values)
                for layer in sorted({layer for layer, _ in values})
            },
            model.fingerprint,
            of_edit(self, model, asked, neurons=found),
            on_top_of=None if after is None else after.digest,
        )

    def _locate(
        self, model: LabModel, rewrite: Rewrite, before: Sequence[str], progress: Progress
    ) -> KnowledgeNeuronsResult:
        """The neurons that the old object's probability depends on, over contexts."""
        worded = tuple(in_front(context) + rewrite.template for context in before if context)
        fact = Fact(
            subject=rewrite.subject,
            template=rewrite.template,
            object=rewrite.target_true,
            paraphrases=worded,
        )
        return self.locator(model, fact, progress=progress)

    def _chosen(
        self,
        located: KnowledgeNeuronsResult,
        active: Float[Tensor, "layer d_mlp"],
        usual: Float[Tensor, "layer d_mlp"],
    ) -> list[tuple[int, int]]:
        """Those kept in the most contexts, the larger mean attribution first where as many."""
        share, mean = located.share, located.attributions.mean(axis=0)
        ratio = np.where(share > 0, (active.abs() / usual.clamp(min=1e-12)).numpy(), 0.0)
        kept = (share > 0) & (ratio >= min(self.specific, ratio.max()))
        order = np.lexsort((-mean[kept], -share[kept]))[: self.n_neurons]
        return [(int(layer), int(neuron)) for layer, neuron in np.argwhere(kept)[order]]

    def _new_token(
        self, model: LabModel, rewrite: Rewrite, located: KnowledgeNeuronsResult
    ) -> tuple[str, int]:
        """Where the objects diverge: the prompt up to there, and the new object's next token."""
        prompt, answer = rewrite.prompt, rewrite.target_new
        if located.prompts[0] != prompt:  # what the old object begins with says nothing
            longer, rest = follow(model.tokenizer, prompt, answer)
            if longer == located.prompts[0]:
                prompt, answer = longer, rest
        return prompt, target_ids(model.tokenizer, prompt, answer)[0]

    def _towards(
        self, model: LabModel, new: int, located: KnowledgeNeuronsResult
    ) -> Float[Tensor, " d_model"]:
        """From the old object to the new one, in the residual stream, as weighed."""
        rows = model.unembed.weight.detach()[[new, located.answer_ids[0]]].float().cpu()
        return self.add * rows[0] - self.remove * rows[1]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all edits of a model share.

    Attributes:
        contexts: The contexts put before a prompt; the first one is empty.
        usual: Mean size of each neuron's activation at the end of prompts of other facts.
    """

    contexts: tuple[str, ...]
    usual: Float[Tensor, "layer d_mlp"]


@torch.no_grad()
def activations(model: LabModel, prompts: Sequence[str]) -> Float[Tensor, "prompt layer d_mlp"]:
    """Activations of all FFN neurons at the end of some prompts."""
    with capture(model, ["ffn_key"]) as keys:
        Execution(model, model.tokens(prompts)).forward()
    ends = [keys["ffn_key", layer][:, -1] for layer in range(model.n_layers)]
    return torch.stack(ends, dim=1).float().cpu()


def _rows(model: LabModel, layer: int, values: dict[tuple[int, int], Tensor]) -> Change:
    """The changed rows of one layer as a change of the parameter, in its own orientation."""
    chosen = {neuron: value for (at, neuron), value in values.items() if at == layer}
    left = torch.zeros(model.d_mlp, len(chosen))
    left[list(chosen), range(len(chosen))] = 1.0
    right = torch.stack(list(chosen.values()))
    return as_stored(model, layer, LowRank(left, right))
