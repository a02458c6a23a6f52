"""EMMET: rewrite many facts at once by one change of one FFN matrix, every one exactly.

With values as rows (`V`, the FFN writes `k V + b`), the change `D` is the smallest one, in the
metric of the keys that occur, that answers every key `k_g` with its value `v_g`:

    min_D tr(D^T C D)   subject to   K D = R,   R = V* - K V - b
    D = C^-1 K^T (K C^-1 K^T)^-1 R

One rewrite gives ROME's change. What is asked is met to the letter, at any price: keys that
nearly coincide make a large change, and keys that coincide are refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from editing.delta import WeightDelta
from editing.keys import group_keys
from editing.prepared import Prepared, prepare, refuse_fields
from editing.presets import preset
from editing.requests import Request, check, grouped
from editing.solve import Occurring
from editing.values import ValueSearch, refuse_already_true, value_stars
from editing.writing import delta_of, ffn_answer, held, remembering, written
from labkit.corpus import Corpus, Progress
from labkit.models import LabModel


@dataclass(frozen=True, kw_only=True)
class EMMET:
    """Equality-constrained Mass Model Editing in a Transformer.

    Attributes:
        layer: The layer to edit; by default the preset of the model.
        n_contexts: Contexts for `k*` and `v*`, the empty one among them.
        bare_weight: Share of the bare prompt's key in `k*`, 0..1 (the paper: 0).
        covariance: Whether to use `C`. Without it neighbours suffer; for comparison only.
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1, the
            rest from the model's own corpus (the paper: 0, all of it Wikipedia).
        remember: Whether keys of earlier edits that are in effect join the metric, so that
            what was written under them is kept (the paper: no).
        weight: Weight of `C` against those keys, in the unit of `editing.solve.Occurring`.
            Of no effect on a first edit.
        search: How `v*` is searched for.
        seed: Seed of the draw of contexts.

    References:
        Gupta et al. 2024, A Unified Framework for Model Editing, section 4.

    Differs from the paper: one `k*` and one `v*` a subject, where several rewrites share it;
    keys of earlier edits are remembered; contexts, `C` and the search are those of `ROME`.
    """

    layer: int | None = None
    n_contexts: int = 10
    bare_weight: float = 0.5
    covariance: bool = True
    facts_share: float = 0.5
    remember: bool = True
    weight: float = 0.1
    search: ValueSearch = field(default_factory=ValueSearch)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        refuse_fields(
            bare_weight=self.bare_weight, facts_share=self.facts_share, weight=self.weight
        )

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is no rewrite, or one is made twice.
            ContradictoryRewrites: If one prompt is asked to have two answers.
        """
        grouped(rewrites)

    def layer_for(self, model: LabModel) -> int:
        """The layer that will be edited."""
        return model.layer(preset(model, "emmet").layer if self.layer is None else self.layer)

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
            (lambda moment: Occurring(moment, self.weight)) if self.covariance else None,
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
        """The change that makes all rewrites true. The model is not changed.

        Args:
            model: The model.
            rewrites: The rewrites; those of one subject are solved jointly.
            prepared: From `prepare`, to spare its cost when making many edits.
            after: What is applied to the model already, if anything is.
            step_done: Called after each step of the search, with its number and the loss.

        Raises:
            InputError, ContradictoryRewrites: If the rewrites do not go together.
            EmptyTarget, SubjectNotFound, SubjectOnSink, LayerOutOfRange: Before any work.
            FingerprintMismatch: If it was prepared for another model.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the search for `v*` fails.
            SingularSystem: If keys coincide.
        """
        groups = grouped(rewrites)
        layer = self.layer_for(model)
        check(model, rewrites)
        prepared = self.prepare(model) if prepared is None else prepared
        prepared.require(model, [layer])

        keys = group_keys(model, groups, layer, prepared.contexts, self.bare_weight)
        near = prepared.near(groups, layer, keys, self.search)
        found = value_stars(
            model, groups, layer, prepared.contexts, self.search, near=near, step_done=step_done
        )
        refuse_already_true(groups, found)
        metric, known = prepared.metrics[layer], after if self.remember else None
        metric = remembering(metric, known, layer, held(metric, known, layer, keys))
        residuals = found.v_star.double() - ffn_answer(model, layer, keys)
        change = written(model, layer, groups, metric, keys, residuals, softness=0.0)
        return delta_of(
            self, model, rewrites, prepared, {layer: change}, {layer: keys}, found, after=after
        )
