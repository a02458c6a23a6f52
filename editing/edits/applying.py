"""Weight changes in effect for the duration of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from editing.edits.change import added
from editing.edits.delta import WeightDelta
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.running.opened import require_opened


def _require_deltas(deltas: tuple[object, ...]) -> None:
    """Refuse what is no delta: an editor, or a list of deltas."""
    for delta in deltas:
        if not isinstance(delta, WeightDelta):
            raise InputError(
                "what is applied is what an editor returns, delta = ROME()(model, [rewrite]); "
                f"several stand side by side, applied(model, first, second); not a "
                f"{type(delta).__name__}"
            )


@contextmanager
def applied(model: LabModel, *deltas: WeightDelta) -> Iterator[LabModel]:
    """The model with some deltas added, in order, for the duration of the block.

    The original weights are copied aside and copied back, so they are restored bit
    for bit, also after an error or Ctrl-C. Blocks may be nested and undo from within.

    Raises:
        InputError: If it is no opened model, or something is no delta.
        FingerprintMismatch: If a delta belongs to another model; nothing is applied then.
    """
    require_opened(model)
    _require_deltas(deltas)
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
