"""Knowledge-neuron editing: rewrite a fact in the values of the neurons it depends on.

The neurons are those of `labkit.locate.KnowledgeNeurons`: FFN neurons whose activation the
probability of the old object depends on. With `v_i` the value of such a neuron (what it
writes per unit of activation), `a_i` its activation at the end of the prompt and `u` the
unembedding,

    v_i  <-  v_i + sign(a_i) * (add * u[new object] - remove * u[old object])

so that where the neuron spoke for the old object it speaks for the new one. No gradient, no
second moment, a handful of rows changed.

What this does not promise: that the rewrite succeeds (attribution is a ranking, and nothing
is solved for), or that other facts stay: most of these neurons serve a kind of answer, and
each prompt that makes them fire gets the new object.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import labkit
from editing.delta import LowRank, WeightDelta
from editing.keys import contexts
from editing.readings import score
from editing.requests import Request
from editing.training import rewrites_only
from labkit.activations import capture
from labkit.corpus import Corpus, Progress, corpus_of
from labkit.errors import InputError
from labkit.execute import Execution
from labkit.facts import Fact, Rewrite
from labkit.locate import KnowledgeNeurons, KnowledgeNeuronsResult
from labkit.models import LabModel
from labkit.tokens import target_ids


@dataclass(frozen=True, kw_only=True)
class KnowledgeNeuronEditing:
    """Surgery on the values of a fact's knowledge neurons.

    Attributes:
        remove: Weight of the old object's unembedding, taken away (the paper: 1).
        add: Weight of the new object's unembedding, put in (the paper: 8).
        n_neurons: How many neurons are changed: those kept in the most contexts, and of these
            those of the largest attribution (the paper: about 4, by lowering the share of the
            prompts in which a neuron must be kept).
        n_contexts: Contexts in which a neuron is looked for, the empty one among them: a
            neuron may serve the wording and not the fact.
        locator: How neurons are found; its `shared` plays no part.
        seed: Seed of the draw of contexts.

    References:
        Dai et al. 2022, Knowledge Neurons in Pretrained Transformers, section 5.1 (updating
        facts).

    Differs from the paper: a causal model, read at the end of the prompt; the wordings are
    the prompt behind contexts, not ten paraphrases from a data set, so that the paraphrases
    on which an edit is judged play no part in it; a neuron that speaks for the old object by
    a negative activation (there are such in gated FFNs) is changed with the opposite sign;
    neurons shared by facts of a relation are not left out. Objects of several tokens go by
    their first one.
    """

    remove: float = 1.0
    add: float = 8.0
    n_neurons: int = 5
    n_contexts: int = 5
    locator: KnowledgeNeurons = field(default_factory=KnowledgeNeurons)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        if self.n_neurons < 1 or self.n_contexts < 1 or min(self.remove, self.add) < 0:
            raise InputError(
                "knowledge-neuron editing needs a neuron, a context, and weights of at least 0"
            )

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError, ContradictoryRewrites: See `editing.training.rewrites_only`.
        """
        rewrites_only(rewrites, "knowledge-neuron editing")

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> tuple[str, ...]:
        """The contexts.

        Args:
            model: The model.
            corpus: The text behind them; by default the model's own.
            progress: Called as it is sampled.
        """
        text = corpus_of(model, progress=progress) if corpus is None else corpus
        return contexts(text, self.n_contexts, seed=self.seed)

    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request],
        *,
        prepared: tuple[str, ...] | None = None,
        after: WeightDelta | None = None,
        step_done: Callable[[int, float], None] | None = None,
    ) -> WeightDelta:
        """The change of some neurons' values that stands for some rewrites.

        The neurons of all rewrites are found in the model as it is; the changes add up. The
        model is not changed.

        Args:
            model: The model.
            rewrites: What it should say. Without an old object it is what the model says.
            prepared: From `prepare`.
            after: What is applied to the model already, if anything is.
            step_done: Called after each layer that was searched for neurons, with a running
                number and the NLL of the new object as it is, in nats per token.

        Raises:
            InputError, ContradictoryRewrites: See `require`; or if no neuron is found.
            EmptyTarget, SubjectNotFound, NothingToTrace: Before any work.
        """
        asked = rewrites_only(rewrites, "knowledge-neuron editing")
        nll, _ = score(model, [(rewrite.prompt, rewrite.target_new) for rewrite in asked])
        before = self.prepare(model) if prepared is None else prepared
        values: dict[tuple[int, int], Tensor] = {}
        found = []
        for number, rewrite in enumerate(asked):

            def told(_stage: str, share: float, number: int = number) -> None:
                if step_done is not None:
                    layer = round(share * model.n_layers)
                    step_done(number * model.n_layers + layer, float(nll[number]))

            located = self._locate(model, rewrite, before, told)
            neurons = self._chosen(located)
            if not neurons:
                raise InputError(f"no neuron of {model.name} speaks for {rewrite.prompt!r}")
            found.append([list(neuron) for neuron in neurons])
            for (layer, neuron), value in self._values(model, rewrite, located, neurons).items():
                values[layer, neuron] = values.get((layer, neuron), 0) + value
        return WeightDelta(
            {
                model.ffn_out_name(layer): _rows(model, layer, values)
                for layer in sorted({layer for layer, _ in values})
            },
            model.fingerprint,
            {
                "method": "KnowledgeNeuronEditing",
                "config": asdict(self),
                "rewrites": [asdict(rewrite) for rewrite in asked],
                "neurons": found,
                "model": model.name,
                "labkit": labkit.__version__,
            },
            on_top_of=None if after is None else after.digest,
        )

    def _locate(
        self, model: LabModel, rewrite: Rewrite, before: Sequence[str], progress: Progress
    ) -> KnowledgeNeuronsResult:
        """The neurons that the old object depends on, over contexts."""
        worded = tuple(f"{context} {rewrite.template}" for context in before if context)
        fact = Fact(
            subject=rewrite.subject,
            template=rewrite.template,
            object=rewrite.target_true,
            paraphrases=worded,
        )
        return self.locator(model, fact, progress=progress)

    def _chosen(self, located: KnowledgeNeuronsResult) -> list[tuple[int, int]]:
        """Those kept in the most contexts, the larger mean attribution first where as many."""
        share, mean = located.share, located.attributions.mean(axis=0)
        order = np.lexsort((-mean.ravel(), -share.ravel()))[: self.n_neurons]
        layers, neurons = np.unravel_index(order, share.shape)
        found = zip(layers.tolist(), neurons.tolist(), strict=True)
        return [at for at in found if share[at] > 0]

    def _values(
        self,
        model: LabModel,
        rewrite: Rewrite,
        located: KnowledgeNeuronsResult,
        neurons: Sequence[tuple[int, int]],
    ) -> dict[tuple[int, int], Float[Tensor, " d_model"]]:
        """By neuron, what is added to its value."""
        new = target_ids(model.tokenizer, rewrite.prompt, rewrite.target_new)[0]
        unembed = model.unembed.weight.detach().float()
        towards = self.add * unembed[new] - self.remove * unembed[located.answer_ids[0]]
        layers = sorted({layer for layer, _ in neurons})
        with torch.no_grad(), capture(model, ["ffn_key"], layers) as keys:
            Execution(model, model.tokens([rewrite.prompt])).forward(stop=layers[-1] + 1)
        return {
            (layer, neuron): keys["ffn_key", layer][0, -1, neuron].sign().float() * towards
            for layer, neuron in neurons
        }


def _rows(model: LabModel, layer: int, values: dict[tuple[int, int], Tensor]) -> LowRank:
    """The changed rows of one layer as a change of the parameter, in its own orientation."""
    chosen = {neuron: value for (at, neuron), value in values.items() if at == layer}
    left = torch.zeros(model.d_mlp, len(chosen))
    left[list(chosen), range(len(chosen))] = 1.0
    right = torch.stack(list(chosen.values())).cpu()
    if model.ffn_out_transposed(layer):
        left, right = right.T.contiguous(), left.T.contiguous()
    return LowRank(left, right)
