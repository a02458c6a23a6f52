"""What the methods that fine-tune share: from rewrites to a delta, all but what is learnt.

Fine-tuning and LoRA descend the same loss in the same loop (`editing.methods.tuning.training`). A
method says which layers, which tensors are learnt there, what they add to an FFN's output, and
which change of its values that is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from editing.edits.delta import Change, Dense, LowRank, WeightDelta
from editing.edits.provenance import of_edit
from editing.edits.requests import Request, listed, rewrites_only
from editing.methods.tuning.training import Learnt, Training, descend
from labkit.arguments import checked
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.text.corpus import Corpus


@dataclass(frozen=True, kw_only=True)
class GradientDescent:
    """Base of the methods that fine-tune.

    Attributes:
        training: Number of steps, learning rate and stopping rule.
        seed: Seed of the order in which rewrites take turns, where they do.
    """

    NAME: ClassVar[str]

    training: Training = field(default_factory=Training)
    seed: int = 0

    def layers_for(self, model: LabModel) -> tuple[int, ...]:
        """The layers that will be trained, ascending."""
        raise NotImplementedError

    def start(self, model: LabModel, layer: int) -> tuple[Tensor, ...]:
        """The parameters of a layer before the first step."""
        raise NotImplementedError

    def added(
        self, learnt: tuple[Tensor, ...], key: Float[Tensor, "prompt pos d_mlp"]
    ) -> Float[Tensor, "prompt pos d_model"]:
        """What a layer adds to its FFN's output for a key."""
        raise NotImplementedError

    def change(self, learnt: tuple[Tensor, ...]) -> Change:
        """The learnt parameters of a layer as a change of its values (`ffn_out`), float32."""
        raise NotImplementedError

    def constrain_(self, learnt: tuple[Tensor, ...]) -> None:
        """Project what a layer learns onto the constraint set; by default there is none."""

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError, ContradictoryRewrites: See `editing.edits.requests.rewrites_only`.
        """
        rewrites_only(rewrites, self.NAME)

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> None:
        """Nothing: edits of a model share nothing that could be measured beforehand."""

    @checked
    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request] | Request,
        *,
        prepared: None = None,
        after: WeightDelta | None = None,
        progress: Progress | None = None,
    ) -> WeightDelta:
        """The change that training on some rewrites makes. The model is not changed.

        Args:
            model: The model.
            rewrites: The rewrites, or a single one.
            prepared: Nothing is prepared.
            after: The edits already in effect, if any. Training begins at the weights as they are
                now.
            progress: Called before each step.

        Raises:
            InputError, ContradictoryRewrites, EmptyTarget, LayerOutOfRange: Before any work.
            AlreadyTrue: If the model says what is asked for already.
            NonFiniteLoss: If the training fails.
        """
        asked = rewrites_only(listed(rewrites), self.NAME)
        by_layer = {layer: self.start(model, layer) for layer in self.layers_for(model)}

        def constrain() -> None:
            for tensors in by_layer.values():
                self.constrain_(tensors)

        learnt = Learnt(
            [tensor.requires_grad_() for tensors in by_layer.values() for tensor in tensors],
            {layer: partial(self.added, tensors) for layer, tensors in by_layer.items()},
            constrain,
        )
        trained = descend(model, asked, learnt, self.training, seed=self.seed, progress=progress)
        return WeightDelta(
            {
                model.ffn_out_name(layer): as_stored(model, layer, self.change(tensors))
                for layer, tensors in by_layer.items()
            },
            model.fingerprint,
            of_edit(
                self,
                model,
                asked,
                layers=list(by_layer),
                training_steps=trained.steps,
                loss=trained.losses[-1],
                losses=list(trained.losses),
                probability=trained.probability,
            ),
            on_top_of=None if after is None else after.digest,
        )


def as_stored(model: LabModel, layer: int, change: Change) -> Change:
    """A change of a layer's values (`ffn_out`) in the orientation of the parameter."""
    if not model.ffn_out_transposed(layer):
        return change
    if isinstance(change, Dense):
        return Dense(change.matrix.T.contiguous())
    return LowRank(change.right.T.contiguous(), change.left.T.contiguous())
