"""PMET: many facts at once, searched for in attention and FFN together, written into the FFN.

At the last of the layers, a change of attention's output and a change of the FFN's output are
searched for together; what belongs to attention takes its part in saying the new object and is
then dropped, so that the FFN is asked for no more than its own part. What the FFN's output
there still lacks is written into every layer, a square-root share each:

    R_l = (v* - v) / sqrt(L - l + 1)
    D = (lambda C + K^T K)^-1 K^T R_l

with values as rows (the FFN writes `k V + b`).

What it does not promise: since attention's part is not written, the edited model need not say
what the search had found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from editing.delta import WeightDelta
from editing.prepared import Prepared, prepare, refuse_fields
from editing.presets import preset
from editing.requests import Request, check, grouped
from editing.solve import Occurring
from editing.spread import Plan, spread
from editing.values import ValueSearch
from editing.writing import delta_of
from labkit.corpus import Corpus, Progress
from labkit.models import LabModel


@dataclass(frozen=True, kw_only=True)
class PMET:
    """Precise Model Editing in a Transformer.

    Attributes:
        layers: The layers to edit, ascending; by default the preset of the model (the paper:
            3 to 8 of GPT-J).
        weight: `lambda`, in units of `d_mlp`: of a residual, a key as usual as those behind
            `C` would alone be given `1 / (1 + weight)`. The paper's 6000 for GPT-J
            (`d_mlp` 16384) is 0.37 in this unit.
        n_contexts: Contexts for `k*` and `v*`, the empty one among them.
        bare_weight: Share of the bare prompt's key in `k*`, 0..1 (the paper: 0).
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1, the
            rest from the model's own corpus (the paper: 0, all of it Wikipedia).
        remember: Whether keys of earlier edits that are in effect join the metric, so that
            what was written under them is kept (the paper: no).
        search: How `v*` is searched for.
        seed: Seed of the draw of contexts.

    References:
        Li et al. 2024, PMET: Precise Model Editing in a Transformer, section 4.

    Differs from the paper: what is missing is the mean over the contexts, as the keys are;
    one `k*` and one `v*` a subject; keys of earlier edits are remembered.
    """

    layers: tuple[int, ...] | None = None
    weight: float = 0.1
    n_contexts: int = 10
    bare_weight: float = 0.5
    facts_share: float = 0.5
    remember: bool = True
    search: ValueSearch = field(default_factory=ValueSearch)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        refuse_fields(
            bare_weight=self.bare_weight,
            facts_share=self.facts_share,
            weight=self.weight,
            layers=self.layers,
        )

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is no rewrite, or one is made twice.
            ContradictoryRewrites: If one prompt is asked to have two answers.
        """
        grouped(rewrites)

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be edited."""
        layers = preset(model, "pmet").layers if self.layers is None else self.layers
        return tuple(model.layer(layer) for layer in layers)

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> Prepared:
        """What all edits of a model share: contexts and second moments, measured or cached.

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
            self.layers_for(model),
            lambda moment: Occurring(moment, self.weight),
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
        """The change that makes the rewrites true. The model is restored bit for bit.

        Args:
            model: The model.
            rewrites: The rewrites; those of one subject are solved jointly.
            prepared: From `prepare`, to spare its cost when making many edits.
            after: What is applied to the model already, if anything is.
            step_done: Called after each step of a search, with its number and the loss.

        Raises:
            InputError, ContradictoryRewrites: If the rewrites do not go together.
            EmptyTarget, SubjectNotFound, SubjectOnSink, LayerOutOfRange: Before any work.
            FingerprintMismatch: If it was prepared for another model.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the search for `v*` fails.
            SingularSystem: If a key or a wanted state is not finite.
        """
        groups = grouped(rewrites)
        layers = self.layers_for(model)
        check(model, rewrites)
        prepared = self.prepare(model) if prepared is None else prepared
        prepared.require(model, layers)
        plan = Plan(
            layers=layers,
            prepared=prepared,
            bare_weight=self.bare_weight,
            search=self.search,
            after=after if self.remember else None,
        )
        done = spread(
            model,
            groups,
            plan,
            share="sqrt",
            compared="ffn_value",
            sites=("ffn_value", "attn_out"),
            step_done=step_done,
        )
        return delta_of(
            self,
            model,
            rewrites,
            prepared,
            done.changes,
            done.keys,
            done.found,
            after=after,
            missing_before=done.missing,
        )
