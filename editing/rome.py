"""ROME: rewrite one fact by a rank-one change of one FFN matrix.

With values as rows (`ffn_out`, `V`, so that the FFN writes `k V + b`), the change is

    V' = V + (C^-1 k*) (v* - k* V - b)^T / (k*^T C^-1 k*)

the smallest change, in the metric of the keys that occur, that makes the FFN answer `k*`
with `v*`. Keys that are C^-1-orthogonal to `k*` are answered as before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from editing.delta import WeightDelta
from editing.keys import group_keys
from editing.prepared import Prepared, prepare, refuse_fields
from editing.presets import preset
from editing.requests import Request, check, grouped, one_rewrite
from editing.solve import Occurring
from editing.values import ValueSearch, refuse_already_true, value_stars
from editing.writing import delta_of, ffn_answer, written
from labkit.corpus import Corpus, Progress
from labkit.models import LabModel


@dataclass(frozen=True, kw_only=True)
class ROME:
    """Rank-One Model Editing.

    Attributes:
        layer: The layer to edit; by default the preset of the model.
        n_contexts: Contexts for `k*` and `v*`, the empty one among them (the paper: 21
            for both).
        bare_weight: Share of the bare prompt's key in `k*`, 0..1 (the paper: 0).
        covariance: Whether to use `C`. Without it neighbours suffer; for comparison only.
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1, the
            rest from the model's own corpus (the paper: 0, all of it Wikipedia).
        two_keys: Whether to do as the first published code did, and let `k*` give only the
            direction, while the size of the change is measured with the bare prompt's own
            key. Edits made so drift when they follow one another; for comparison only.
        search: How `v*` is searched for.
        seed: Seed of the draw of contexts.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 3.1.
        Gupta et al. 2024, Rebuilding ROME, for the one `k*`.

    Differs from the paper: one `k*` everywhere; contexts are sentences of the model's own
    corpus; `C` is measured there and on prompts that ask for facts, whose keys are the ones
    an edit should leave alone; the search for `v*` stops when the target is likely enough in
    every context, and holds bystanders; the essence prompt stands behind a context.
    """

    layer: int | None = None
    n_contexts: int = 10
    bare_weight: float = 0.5
    covariance: bool = True
    facts_share: float = 0.5
    two_keys: bool = False
    search: ValueSearch = field(default_factory=ValueSearch)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        refuse_fields(bare_weight=self.bare_weight, facts_share=self.facts_share)

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is not exactly one rewrite.
            DuplicateSubject: If there are several about one subject.
        """
        one_rewrite(rewrites)

    def layer_for(self, model: LabModel) -> int:
        """The layer that will be edited."""
        return model.layer(preset(model).layer if self.layer is None else self.layer)

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> Prepared:
        """What all edits of a model share: contexts and second moment, measured or cached.

        Args:
            model: The model, unedited.
            corpus: The text behind contexts and `C`; by default the model's own, and prompts
                of facts for a share of `C`.
            progress: Called as measuring goes on.

        Raises:
            InputError, SingularSystem: If the corpus is too short.
        """
        return prepare(
            model,
            [self.layer_for(model)],
            Occurring if self.covariance else None,
            n_contexts=self.n_contexts,
            seed=self.seed,
            facts_share=self.facts_share,
            search=self.search,
            corpus=corpus,
            progress=progress,
        )

    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request],
        *,
        prepared: Prepared | None = None,
        after: WeightDelta | None = None,
        step_done: Callable[[int, float], None] | None = None,
    ) -> WeightDelta:
        """The change that makes one rewrite true. The model is not changed.

        Args:
            model: The model.
            rewrites: Exactly one rewrite; for several at once see EMMET and MEMIT.
            prepared: From `prepare`, to spare its cost when making many edits.
            after: What is applied to the model already, if anything is.
            step_done: Called after each step of the search, with its number and the loss.

        Raises:
            InputError: If there is not exactly one rewrite.
            DuplicateSubject: If there are several about one subject.
            EmptyTarget, SubjectNotFound, SubjectOnSink, LayerOutOfRange: Before any work.
            FingerprintMismatch: If it was prepared for another model.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the search for `v*` fails.
            SingularSystem: If `C` cannot be divided by.
        """
        one_rewrite(rewrites)
        layer = self.layer_for(model)
        check(model, rewrites)
        prepared = self.prepare(model) if prepared is None else prepared
        prepared.require(model, [layer])

        groups, contexts = grouped(rewrites), prepared.contexts
        keys = group_keys(model, groups, layer, contexts, self.bare_weight)
        near = prepared.near(groups, layer, keys, self.search)
        found = value_stars(
            model, groups, layer, contexts, self.search, near=near, step_done=step_done
        )
        refuse_already_true(groups, found)
        sized_by = group_keys(model, groups, layer, contexts, 1.0) if self.two_keys else keys
        residuals = found.v_star.double() - ffn_answer(model, layer, sized_by)
        metric = prepared.metrics[layer]
        if self.two_keys:  # the change answers `k*` with what makes the bare key's answer right
            direction = metric.solve(keys)
            residuals = residuals * (direction * keys).sum() / (direction * sized_by).sum()
        change = written(model, layer, groups, metric, keys, residuals, softness=0.0)
        return delta_of(
            self, model, rewrites, prepared, {layer: change}, {layer: keys}, found, after=after
        )
