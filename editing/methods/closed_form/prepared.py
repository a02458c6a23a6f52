"""What all edits of one model share: contexts, and second moments of the edited layers.

Measured once on the unedited model, or read from the cache, and handed to every edit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from editing.edits.requests import Group
from editing.methods.closed_form.bystanders import Bystander, Pool, pool_of
from editing.methods.closed_form.keys import contexts
from editing.methods.closed_form.solve import Euclidean, Metric, Subspace
from editing.methods.closed_form.value_search import ValueSearch
from labkit.errors import FingerprintMismatch, InputError, SingularSystem
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.text.corpus import Corpus, corpus_of, fact_prompts
from labkit.text.moments import SecondMoment, second_moments
from labkit.text.streams import pieces


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all of a closed-form method's edits of one model share.

    Attributes:
        contexts: The contexts put before a prompt; the first one is empty.
        metrics: By layer, the cost metric of a change, with the method's weight.
        moments: `C` by layer; empty for a method that does without.
        pool: Subjects that may be bystanders; None for a search without bystanders.
    """

    contexts: tuple[str, ...]
    metrics: Mapping[int, Metric]
    moments: Mapping[int, SecondMoment]
    pool: Pool | None = None

    def near(
        self,
        groups: Sequence[Group],
        layer: int,
        k_star: Float[Tensor, "group d_mlp"],
        search: ValueSearch,
    ) -> list[tuple[Bystander, ...]]:
        """The bystanders of some groups for the search for their values."""
        if self.pool is None:
            return []
        return self.pool.near(groups, layer, self.metrics[layer], k_star, search.bystanders)

    def require(self, model: LabModel, layers: Sequence[int]) -> None:
        """Raise unless it was prepared for these layers of this model.

        Raises:
            FingerprintMismatch: If a second moment was measured on another model, or while an
                edit was in effect, and none is now.
            InputError: If one of the layers is missing.
        """
        for moment in self.moments.values():
            base = moment.base or moment.fingerprint
            if base != model.fingerprint:
                raise FingerprintMismatch(
                    f"the second moment of layer {moment.layer} was measured on the model "
                    f"{base[:12]}, but {model.name} is {model.fingerprint[:12]}: "
                    "prepare the method with the model that it edits"
                )
            if moment.fingerprint != base == model.in_effect:
                raise FingerprintMismatch(
                    f"the second moment of layer {moment.layer} was measured while an edit was "
                    f"in effect ({moment.fingerprint[:12]}), and none is now: prepare the method "
                    "again, without the edit"
                )
        missing = [layer for layer in layers if layer not in self.metrics]
        if missing:
            raise InputError(
                f"layers {missing} are to be edited, but the method was prepared for "
                f"{sorted(self.metrics)}: prepare it with the fields that it edits with"
            )

    def provenance(self) -> dict[str, Any]:
        """What a delta records about its second moments, and the subspace of its changes."""
        free = {
            str(layer): metric.dimension
            for layer, metric in self.metrics.items()
            if isinstance(metric, Subspace)
        }
        return {
            "keys_behind_C": {str(layer): m.n_keys for layer, m in self.moments.items()},
            "contexts": len(self.contexts),
            "corpus": next((m.source for m in self.moments.values()), None),
            "weights_behind_C": next((m.fingerprint for m in self.moments.values()), None),
            **({"directions_of_change": free} if free else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a method's edits are prepared from.

    Attributes:
        n_contexts: Number of contexts, the empty one among them.
        facts_share: Share of `C` from prompts that ask for facts, 0..1; see `moments`.
        equal_length: Whether the keys behind `C` are brought to one length first.
        bystanders: Whether the search for `v*` will have bystanders.
        seed: Seed of the draw of contexts.
        corpus: The text behind contexts and `C`; by default the model's own, and prompts of
            facts for a share of `C`.
    """

    n_contexts: int
    facts_share: float
    equal_length: bool = False
    bystanders: bool = False
    seed: int = 0
    corpus: Corpus | None = None


def prepare(
    model: LabModel,
    layers: Sequence[int],
    metric: Callable[[SecondMoment], Metric] | None,
    how: Preparation,
    *,
    progress: Progress | None = None,
) -> Prepared:
    """Contexts, the metrics of some layers, and the candidate bystanders.

    Args:
        model: The model, unedited.
        layers: The layers that will be edited.
        metric: Builds a layer's cost metric from its second moment `C`; None does without.
        how: Contexts, the text behind them and behind `C`, and whether there are bystanders.
        progress: Called as measuring goes on.

    Raises:
        InputError: If the corpus has too few short sentences.
        SingularSystem: If there are fewer keys behind a second moment than neurons.
    """
    text = corpus_of(model, progress=progress) if how.corpus is None else how.corpus
    before = contexts(text, how.n_contexts, seed=how.seed)
    pool = pool_of(model, layers) if how.bystanders else None
    if metric is None:
        return Prepared(before, {layer: Euclidean() for layer in layers}, {}, pool)
    require_keys(model, text)
    found = moments(
        model,
        layers,
        how.facts_share,
        equal_length=how.equal_length,
        corpus=how.corpus,
        progress=progress,
    )
    metrics = {layer: metric(moment) for layer, moment in found.items()}
    return Prepared(before, metrics, found, pool)


def moments(
    model: LabModel,
    layers: Sequence[int],
    facts_share: float,
    *,
    equal_length: bool = False,
    corpus: Corpus | None = None,
    progress: Progress | None = None,
) -> dict[int, SecondMoment]:
    """`C` of some layers, all measured in one pass, or from the cache.

    Args:
        model: The model, unedited.
        layers: Which layers.
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1. It
            applies to the default corpus only.
        equal_length: Whether keys are brought to one length first.
        corpus: The text; by default the model's own, and prompts of facts for a share.
        progress: Called as measuring goes on.
    """
    text = corpus_of(model, progress=progress) if corpus is None else corpus
    found = second_moments(model, layers, text, equal_length=equal_length, progress=progress)
    prompts = fact_prompts(model) if corpus is None and facts_share else None
    if prompts is None:
        return found
    asked = second_moments(model, layers, prompts, equal_length=equal_length, progress=progress)
    return {layer: found[layer].blended(asked[layer], facts_share) for layer in found}


def require_keys(model: LabModel, corpus: Corpus) -> None:
    """Refuse text whose keys cannot span: a second moment of it would not have full rank.

    Raises:
        SingularSystem: If it has fewer tokens than an FFN has neurons.
    """
    n_keys = sum(len(piece.ids) for piece in pieces(model, corpus, min_tokens=model.d_mlp))
    if n_keys < model.d_mlp:
        raise SingularSystem(
            f"the text ({corpus.source}) has {n_keys} tokens, too few for {model.d_mlp} neurons: "
            "give more text, about ten tokens per neuron"
        )
