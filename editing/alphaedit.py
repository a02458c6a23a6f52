"""AlphaEdit: rewrite facts where the keys that occur have next to nothing.

The change is confined to directions of the keys that the keys behind `C` hardly have, so that
these are answered as before whatever is asked:

    min_X  lambda ||X||^2 + ||K_p B X||^2 + ||K B X - R||^2,   D = B X

with values as rows (the FFN writes `k V + b`), `B` an orthonormal basis of the eigenvectors of
`C` that together hold at most `threshold` of its trace, and `K_p` the keys of earlier edits that
are in effect (kept in the delta's memory). `v*` is found at the last of the layers, and from the
first on each is given a share of what is still missing there, as by MEMIT.

What it does not promise: a subject whose key lies among the usual ones can hardly be rewritten.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from editing.delta import WeightDelta
from editing.prepared import Prepared, prepare, refuse_fields
from editing.presets import preset
from editing.requests import Request, check, grouped
from editing.solve import null_space
from editing.spread import Plan, boundary, spread
from editing.values import ValueSearch
from editing.writing import delta_of
from labkit.corpus import Corpus, Progress
from labkit.errors import InputError
from labkit.models import LabModel


@dataclass(frozen=True, kw_only=True)
class AlphaEdit:
    """Null-space constrained editing.

    Attributes:
        layers: The layers to edit, ascending; by default the preset of the model (the paper:
            five of GPT-J, 3 to 8).
        spread: "even": what is missing at the last layer, divided by the number of layers
            left (the paper). "boundary": the first and the last layer only, each with a
            search of its own (BLUE; see `MEMIT`).
        threshold: Share of the trace of `C` that the directions of change may hold together,
            0..1 (the paper: every eigenvector with an eigenvalue below 0.02, whatever the
            scale of the model's keys).
        weight: `lambda`, in units of what those directions hold of the trace: of a residual,
            a key as usual as those behind `C` would alone be given `1 / (1 + weight)` (the
            paper: 10, whatever the scale of the model's keys).
        n_contexts: Contexts for `k*` and `v*`, the empty one among them.
        bare_weight: Share of the bare prompt's key in `k*`, 0..1 (the paper: 0).
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1, the
            rest from the model's own corpus (the paper: 0, all of it Wikipedia).
        remember: Whether keys of earlier edits that are in effect count (the paper: yes).
        search: How `v*` is searched for.
        seed: Seed of the draw of contexts.

    References:
        Fang et al. 2025, AlphaEdit: Null-Space Constrained Knowledge Editing for Language
        Models, section 3.

    Differs from the paper: threshold and weight are relative to the spectrum; the basis is
    kept in place of the projector; what is missing is the mean over the contexts, as the keys
    are; one `k*` and one `v*` a subject; an earlier key that a new edit is about is dropped.
    """

    layers: tuple[int, ...] | None = None
    spread: Literal["even", "boundary"] = "even"
    threshold: float = 0.1
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
        if not 0 < self.threshold <= 1:
            raise InputError(f"threshold {self.threshold} is a share of the trace: above 0, to 1")

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is no rewrite, or one is made twice.
            ContradictoryRewrites: If one prompt is asked to have two answers.
        """
        grouped(rewrites)

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be edited."""
        layers = preset(model, "alphaedit").layers if self.layers is None else self.layers
        layers = tuple(model.layer(layer) for layer in layers)
        return layers if self.spread == "even" else tuple(dict.fromkeys((layers[0], layers[-1])))

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
            lambda moment: null_space(moment, self.threshold, weight=self.weight),
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
            SingularSystem: If a key or a wanted state is not finite, or has no part in the
                directions of change.
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
        if self.spread == "even":
            done = spread(model, groups, plan, share="even", step_done=step_done)
        else:
            done = boundary(model, groups, plan, step_done=step_done)
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
