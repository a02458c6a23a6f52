"""What the closed-form methods share: from rewrites to a delta, all but what is written.

ROME, EMMET, MEMIT, PMET and AlphaEdit all look for `k*` and `v*` in the same contexts and with
the same second moments, and map the one to the other by least squares. A method says which layers,
which metric, and how the wanted values are written.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from editing.edits.delta import WeightDelta
from editing.edits.requests import Request, check, grouped, listed
from editing.methods.closed_form.keys import fitting
from editing.methods.closed_form.plan import Plan
from editing.methods.closed_form.prepared import Preparation, Prepared, prepare
from editing.methods.closed_form.solve import Metric, Occurring
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.closed_form.values import refuse_already_true
from editing.methods.closed_form.writing import Written, delta_of, ffn_answer, written
from editing.presets.preset_files import preset
from labkit.arguments import checked
from labkit.bounds import require_finite
from labkit.documented import with_inherited_fields
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.text.corpus import Corpus
from labkit.text.moments import SecondMoment


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Base of the closed-form methods.

    Attributes:
        n_contexts: Contexts for `k*` and `v*`, the empty one among them (ROME: 21, MEMIT: 6).
        bare_weight: Share of the bare prompt's key in `k*`, 0..1 (the papers: 0).
        facts_share: Share of `C` that comes from prompts asking for bundled facts, 0..1, the
            rest from the model's own corpus (the papers: 0, all of it Wikipedia).
        search: How `v*` is searched for.
        seed: Seed of the draw of contexts.

    Differs from the papers, in all methods: contexts are sentences of the model's own corpus;
    `C` is measured there and on prompts that ask for facts, whose keys are the ones an edit
    should leave alone; one `k*` and one `v*` per subject, where several rewrites share it; the
    search for `v*` stops when the target is likely enough in every context; the essence
    prompt stands after a context.
    """

    EQUAL_LENGTH: ClassVar[bool] = False
    """Whether the keys behind `C` are brought to one length first."""

    n_contexts: int = 10
    bare_weight: float = 0.5
    facts_share: float = 0.5
    search: ValueSearch = field(default_factory=ValueSearch)
    seed: int = 0

    def __init_subclass__(cls) -> None:
        """Let a method's help list the fields that it inherits."""
        super().__init_subclass__()
        cls.__doc__ = with_inherited_fields(cls)

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        require_finite(self)
        for name in ("bare_weight", "facts_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name} {getattr(self, name)} is out of range: choose a share, 0 to 1"
                )

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be edited, ascending."""
        raise NotImplementedError

    def metric(self) -> Callable[[SecondMoment], Metric] | None:
        """The cost metric of a layer, built from its second moment `C`; None without one."""
        raise NotImplementedError

    def write(self, plan: Plan) -> Written:
        """Search for the wanted values, and solve for the changes that write them."""
        raise NotImplementedError

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError: If there is no rewrite, or one is made twice.
            ContradictoryRewrites: If one prompt is asked to have two answers.
        """
        grouped(rewrites)

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> Prepared:
        """What all edits of one model share: contexts and second moments, measured or cached.

        Args:
            model: The model, unedited.
            corpus: The text behind contexts and `C`; by default the model's own, and prompts
                of facts for a share of `C`.
            progress: Called as measuring goes on.

        Raises:
            InputError, SingularSystem: If the corpus is too short.
        """
        how = Preparation(
            n_contexts=self.n_contexts,
            facts_share=self.facts_share,
            equal_length=self.EQUAL_LENGTH,
            bystanders=self.search.bystanders > 0,
            seed=self.seed,
            corpus=corpus,
        )
        return prepare(model, self.layers_for(model), self.metric(), how, progress=progress)

    @checked
    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request] | Request,
        *,
        prepared: Prepared | None = None,
        after: WeightDelta | None = None,
        progress: Progress | None = None,
    ) -> WeightDelta:
        """The change that makes the rewrites true. The model is restored bit for bit.

        Args:
            model: The model.
            rewrites: The rewrites, or a single one; those of one subject are solved jointly.
            prepared: From `prepare`, to avoid its cost when making many edits.
            after: The edits already in effect, if any.
            progress: Called after each step of a search, and as `prepare` goes on.

        Raises:
            InputError, ContradictoryRewrites: If the method cannot make these rewrites.
            EmptyTarget, SubjectNotFound, SubjectOnSink, LayerOutOfRange: Before any work.
            ContextTooShort: If a prompt with its target is longer than the model reads.
            FingerprintMismatch: If it was prepared for another model.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the search for `v*` fails.
            SingularSystem: If keys coincide, or a key or a wanted state is not finite.
        """
        rewrites = listed(rewrites)
        self.require(rewrites)
        layers = self.layers_for(model)
        check(model, rewrites)
        prepared = self.prepare(model, progress=progress) if prepared is None else prepared
        prepared.require(model, layers)
        plan = Plan(
            model=model,
            groups=grouped(rewrites),
            layers=layers,
            prepared=replace(prepared, contexts=fitting(model, rewrites, prepared.contexts)),
            after=after,
            bare_weight=self.bare_weight,
            search=self.search,
            progress=progress,
        )
        return delta_of(self, rewrites, plan, self.write(plan))


@dataclass(frozen=True, kw_only=True)
class OneLayer(ClosedForm):
    """Base of the methods that write one layer, exactly.

    Attributes:
        layer: The layer to edit; by default the preset of the model (ROME: 17 of GPT-2 XL's 48,
            5 of GPT-J's 28).
        covariance: Whether to use `C`. Without it neighbours suffer; for comparison only.
    """

    PRESET: ClassVar[str]

    layer: int | None = None
    covariance: bool = True

    def layer_for(self, model: LabModel) -> int:
        """The layer that will be edited."""
        return model.layer(preset(model, self.PRESET).layer if self.layer is None else self.layer)

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The one layer that will be edited."""
        return (self.layer_for(model),)

    def metric(self) -> Callable[[SecondMoment], Metric] | None:
        """`C`, or none."""
        return Occurring if self.covariance else None

    def metric_for(
        self, metric: Metric, after: WeightDelta | None, layer: int, keys: Tensor
    ) -> Metric:
        """The metric of one edit, given the edits already in effect."""
        return metric

    def lacking(
        self,
        plan: Plan,
        layer: int,
        keys: Float[Tensor, "group d_mlp"],
        v_star: Float[Tensor, "group d_model"],
    ) -> Float[Tensor, "group d_model"]:
        """The residuals at the keys: `v* - k* V - b`."""
        return v_star.double() - ffn_answer(plan.model, layer, keys)

    def write(self, plan: Plan) -> Written:
        """Answer every key with its value, exactly."""
        (layer,) = plan.layers
        keys = plan.keys(layer)
        found = plan.values(layer, keys=keys)
        refuse_already_true(plan.groups, found)
        metric = self.metric_for(plan.prepared.metrics[layer], plan.after, layer, keys)
        residuals = self.lacking(plan, layer, keys, found.v_star)
        change = written(plan, layer, metric, keys, residuals, softness=0.0)
        return Written({layer: change}, {layer: keys}, found)


@dataclass(frozen=True, kw_only=True)
class Spreading(ClosedForm):
    """Base of the methods that write several layers, softly.

    Attributes:
        layers: The layers to edit, ascending; by default the preset of the model (MEMIT: 3
            to 8 of GPT-J's 28).
        weight: Weight of the cost elsewhere against the residuals, above 0; the method defines its
            unit.
        remember: Whether keys of earlier edits that are in effect join the metric, so that
            what was written under them is kept (AlphaEdit: yes; the other papers: no).
    """

    PRESET: ClassVar[str]

    layers: tuple[int, ...] | None = None
    weight: float = 0.1
    remember: bool = True

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        super().__post_init__()
        refuse_weight(self.weight)
        if self.layers is not None and (
            not self.layers or list(self.layers) != sorted(set(self.layers))
        ):
            raise InputError(f"layers {list(self.layers)}: name them in ascending order, each once")

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be edited."""
        layers = preset(model, self.PRESET).layers if self.layers is None else self.layers
        return tuple(model.layer(layer) for layer in layers)

    def metric(self) -> Callable[[SecondMoment], Metric] | None:
        """`weight C`."""
        return partial(Occurring, weight=self.weight)


def refuse_weight(weight: float) -> None:
    """Refuse a weight that is not above 0.

    Raises:
        InputError: If it is not above 0.
    """
    if not 0 < weight < math.inf:
        raise InputError(f"weight {weight}: choose a weight above 0")
