"""ROME: rewrite one fact by a rank-one change of one FFN matrix.

With values as rows (`ffn_out`, `V`, so that the FFN writes `k V + b`), the change is

    V' = V + (C^-1 k*) (v* - k* V - b)^T / (k*^T C^-1 k*)

the smallest change, in the metric of the keys that occur, that makes the FFN answer `k*`
with `v*`. Keys that are C^-1-orthogonal to `k*` are answered as before.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch

import labkit
from editing.delta import LowRank, WeightDelta
from editing.keys import contexts, group_keys
from editing.requests import Request, check, grouped, one_rewrite
from editing.values import ValueSearch, refuse_already_true, value_stars
from labkit.corpus import Corpus, Progress, corpus_of, fact_prompts
from labkit.errors import InputError
from labkit.models import LabModel
from labkit.moments import SecondMoment, second_moments

PRESETS = {"smollm2-135m": 3, "pocket": 0}
"""Measured layers, by short name; LOG.md has the sweeps. Other models: a sixth of the depth."""


@dataclass(frozen=True, kw_only=True)
class ROME:
    """Rank-One Model Editing.

    Attributes:
        layer: The layer to edit; by default the measured preset of the model.
        n_contexts: Contexts for `k*` and `v*`, the empty one among them (the paper: 21
            for both).
        bare_weight: Share of the bare prompt's key in `k*`, 0..1 (the paper: 0).
        covariance: Whether to use `C`. Without it neighbours suffer; for comparison only.
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1, the
            rest from the model's own corpus (the paper: 0, all of it Wikipedia).
        search: How `v*` is searched for.
        seed: Seed of the draw of contexts.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 3.1.
        Gupta et al. 2024, Rebuilding ROME, for the one `k*`.

    Differs from the paper: one `k*` everywhere; contexts are sentences of the model's own
    corpus; `C` is measured there and on prompts that ask for facts, whose keys are the ones
    an edit should leave alone; the search for `v*` stops when the target is likely enough in
    every context; the essence prompt stands behind a context.
    """

    layer: int | None = None
    n_contexts: int = 10
    bare_weight: float = 0.5
    covariance: bool = True
    facts_share: float = 0.5
    search: ValueSearch = field(default_factory=ValueSearch)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        if not 0 <= self.bare_weight <= 1:
            raise InputError(f"bare_weight {self.bare_weight} is a share: 0 to 1")
        if not 0 <= self.facts_share <= 1:
            raise InputError(f"facts_share {self.facts_share} is a share: 0 to 1")

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is not exactly one rewrite.
            DuplicateSubject: If there are several about one subject.
        """
        one_rewrite(rewrites)

    def layer_for(self, model: LabModel) -> int:
        """The layer that will be edited."""
        default = PRESETS.get(model.name, model.n_layers // 6)
        return model.layer(default if self.layer is None else self.layer)

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> "Prepared":
        """What all edits of a model share: contexts and second moment, measured or cached.

        Args:
            model: The model.
            corpus: The text behind contexts and `C`; by default the model's own, and prompts
                of facts for a share of `C`.
            progress: Called as measuring goes on.
        """
        layer = self.layer_for(model)
        text = corpus_of(model, progress=progress) if corpus is None else corpus
        before = contexts(text, self.n_contexts, seed=self.seed)
        moment = None
        if self.covariance:
            moment = self.moments(model, [layer], corpus=corpus, progress=progress)[layer]
        return Prepared(layer, before, moment)

    def moments(
        self,
        model: LabModel,
        layers: Sequence[int],
        *,
        corpus: Corpus | None = None,
        progress: Progress | None = None,
    ) -> dict[int, SecondMoment]:
        """`C` of some layers, all measured in one pass, or from the cache.

        Args:
            model: The model.
            layers: Which layers.
            corpus: The text; by default the model's own, and prompts of facts for a share.
            progress: Called as measuring goes on.
        """
        text = corpus_of(model, progress=progress) if corpus is None else corpus
        found = second_moments(model, layers, text, progress=progress)
        prompts = fact_prompts(model) if corpus is None and self.facts_share else None
        if prompts is None:
            return found
        asked = second_moments(model, layers, prompts, progress=progress)
        return {layer: found[layer].blended(asked[layer], self.facts_share) for layer in found}

    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request],
        *,
        prepared: "Prepared | None" = None,
        after: WeightDelta | None = None,
        step_done: Callable[[int, float], None] | None = None,
    ) -> WeightDelta:
        """The change that makes one rewrite true. The model is not changed.

        Args:
            model: The model.
            rewrites: Exactly one rewrite; for several at once see MEMIT.
            prepared: From `prepare`, to spare its cost when making many edits.
            after: What is applied to the model already, if anything is.
            step_done: Called after each step of the search, with its number and the loss.

        Raises:
            InputError: If there is not exactly one rewrite.
            DuplicateSubject: If there are several about one subject.
            EmptyTarget, SubjectNotFound, SubjectOnSink, LayerOutOfRange: Before any work.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the search for `v*` fails.
        """
        one_rewrite(rewrites)
        check(model, rewrites)
        groups = grouped(rewrites)
        prepared = self.prepare(model) if prepared is None else prepared
        layer, moment = prepared.layer, prepared.moment

        (k_star,) = group_keys(model, groups, layer, prepared.contexts, self.bare_weight)
        found = value_stars(
            model, groups, layer, prepared.contexts, self.search, step_done=step_done
        )
        refuse_already_true(groups, found)
        answered = _ffn_answer(model, layer, k_star)
        direction = k_star if moment is None else moment.solve(k_star[None])[0]
        left = direction / (direction @ k_star)
        right = found.v_star[0].double() - answered
        if model.ffn_out_transposed(layer):
            left, right = right, left
        change = LowRank(left.float()[:, None].cpu(), right.float()[None].cpu())
        return WeightDelta(
            {model.ffn_out_name(layer): change},
            model.fingerprint,
            {
                "method": "ROME",
                "config": asdict(self) | {"layer": layer},
                "rewrites": [asdict(rewrite) for rewrite in rewrites],
                "model": model.name,
                "labkit": labkit.__version__,
                "keys_behind_C": None if moment is None else moment.n_keys,
                "corpus": None if moment is None else moment.source,
                "steps": int(found.steps[0]),
                "lowest_target_probability_in_search": float(found.probability[0]),
                "distance_in_norms": float(found.change.norm() / found.v.norm()),
            },
            on_top_of=None if after is None else after.digest,
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all of an editor's edits of one model share."""

    layer: int
    contexts: tuple[str, ...]
    moment: SecondMoment | None


def _ffn_answer(model: LabModel, layer: int, key: torch.Tensor) -> torch.Tensor:
    """What the FFN's output projection answers to a key, float64 `[d_model]`."""
    answer = key @ model.ffn_out(layer).double()
    bias = model.ffn_bias(layer)
    return answer if bias is None else answer + bias.double()
