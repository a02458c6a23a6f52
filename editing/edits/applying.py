"""Weight changes in effect for the duration of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from editing.edits.change import added
from editing.edits.delta import WeightDelta
from labkit.arguments import checked
from labkit.models.model import LabModel


@checked
@contextmanager
def applied(model: LabModel, *deltas: WeightDelta) -> Iterator[LabModel]:
    """The model with some deltas added, in order, for the duration of the block.

    The original weights are copied aside and copied back, so they are restored bit
    for bit, also after an error or Ctrl-C. Blocks may be nested and undo from within.

    Raises:
        WrongArgument: If it is no opened model, or something is no delta.
        FingerprintMismatch: If a delta belongs to another model; nothing is applied then.
    """
    for delta in deltas:
        delta.require(model)
    parameters = dict(model.hf.named_parameters())
    saved: dict[str, Tensor] = {}
    try:
        for name in dict.fromkeys(name for delta in deltas for name in delta.changes):
            saved[name] = parameters[name].detach().clone()
        for delta in deltas:
            for name, change in delta.changes.items():
                weight = parameters[name].detach()
                weight.copy_(added(weight, change))
        yield model
    finally:
        for name, before in saved.items():
            parameters[name].detach().copy_(before)
