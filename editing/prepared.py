"""What all edits of one model share: contexts, and second moments of the edited layers.

Measured once on the unedited model, or read from the cache, and handed to every edit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editing.keys import contexts
from labkit.corpus import Corpus, Progress, corpus_of, fact_prompts
from labkit.errors import FingerprintMismatch, InputError, SingularSystem
from labkit.models import LabModel
from labkit.moments import SecondMoment, second_moments


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all of a closed-form method's edits of one model share.

    Attributes:
        contexts: What stands in front of a prompt; the first one is empty.
        moments: `C` by layer; empty for a method that does without.
    """

    contexts: tuple[str, ...]
    moments: Mapping[int, SecondMoment]

    def require(self, model: LabModel, layers: Sequence[int]) -> None:
        """Refuse second moments that are not those of a model's layers.

        Raises:
            FingerprintMismatch: If one was measured on another model.
            InputError: If one of the layers is missing.
            SingularSystem: If one is of fewer keys than there are neurons.
        """
        for moment in self.moments.values():
            if moment.fingerprint != model.fingerprint:
                raise FingerprintMismatch(
                    f"the second moment of layer {moment.layer} was measured on the model "
                    f"{moment.fingerprint[:12]}, but {model.name} is {model.fingerprint[:12]}: "
                    "prepare the method with the model that it edits"
                )
        for layer in layers:
            if layer not in self.moments:
                raise InputError(
                    f"layer {layer} is edited, but second moments were prepared for "
                    f"{sorted(self.moments)}: prepare the method that edits"
                )
            refuse_too_few(self.moments[layer])

    def provenance(self) -> dict[str, Any]:
        """What a delta says about its second moments."""
        return {
            "keys_behind_C": {str(layer): m.n_keys for layer, m in self.moments.items()},
            "corpus": next((m.source for m in self.moments.values()), None),
        }


def prepare(
    model: LabModel,
    layers: Sequence[int],
    *,
    n_contexts: int,
    seed: int,
    facts_share: float,
    covariance: bool = True,
    corpus: Corpus | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Contexts, and the second moments of some layers.

    Args:
        model: The model, unedited.
        layers: The layers that will be edited.
        n_contexts: Number of contexts, the empty one among them.
        seed: Seed of the draw of contexts.
        facts_share: See `moments`.
        covariance: Whether second moments are needed at all.
        corpus: The text behind both; by default the model's own, and prompts of facts for a
            share of `C`.
        progress: Called as measuring goes on.

    Raises:
        InputError: If the corpus has too few short sentences.
        SingularSystem: If it is too short for second moments.
    """
    text = corpus_of(model, progress=progress) if corpus is None else corpus
    before = contexts(text, n_contexts, seed=seed)
    if not covariance:
        return Prepared(before, {})
    found = moments(model, layers, facts_share, corpus=corpus, progress=progress)
    for moment in found.values():
        refuse_too_few(moment)
    return Prepared(before, found)


def moments(
    model: LabModel,
    layers: Sequence[int],
    facts_share: float,
    *,
    corpus: Corpus | None = None,
    progress: Progress | None = None,
) -> dict[int, SecondMoment]:
    """`C` of some layers, all measured in one pass, or from the cache.

    Args:
        model: The model, unedited.
        layers: Which layers.
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1. It
            applies to the default corpus only.
        corpus: The text; by default the model's own, and prompts of facts for a share.
        progress: Called as measuring goes on.
    """
    text = corpus_of(model, progress=progress) if corpus is None else corpus
    found = second_moments(model, layers, text, progress=progress)
    prompts = fact_prompts(model) if corpus is None and facts_share else None
    if prompts is None:
        return found
    asked = second_moments(model, layers, prompts, progress=progress)
    return {layer: found[layer].blended(asked[layer], facts_share) for layer in found}


def refuse_too_few(moment: SecondMoment) -> None:
    """Refuse a second moment that cannot have full rank.

    Raises:
        SingularSystem: If there are fewer keys behind it than neurons.
    """
    if moment.n_keys < len(moment.matrix):
        raise SingularSystem(
            f"the second moment of layer {moment.layer} comes from {moment.n_keys} keys "
            f"({moment.source}), too few for {len(moment.matrix)} neurons: give more text, ten "
            "tokens a neuron or so"
        )
