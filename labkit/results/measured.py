"""Results of one model: which model it was, and which weights were in effect.

A number measured inside an edit is none of the model as it was loaded. Every result of a model
therefore carries the fingerprint of the weights that it was measured on, filled in by
`measured_on` and nowhere else:

    return Predictions(prompt=prompt, ..., **measured_on(model))
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from labkit.documented import with_inherited_fields
from labkit.results.result import Result

if TYPE_CHECKING:
    from labkit.models.model import LabModel


class MeasuredOn(TypedDict):
    """The fields of `Measured`, as keyword arguments."""

    model: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured(Result):
    """Base of the results that were measured on one model.

    Attributes:
        model: Name of the model.
        fingerprint: Fingerprint of the weights in effect when it was measured: the model's own,
            or inside `editing.applied` that of the edited model.
    """

    model: str
    fingerprint: str

    def __init_subclass__(cls) -> None:
        """Let a result's help list the fields that it inherits."""
        super().__init_subclass__()
        cls.__doc__ = with_inherited_fields(cls)


def measured_on(source: "LabModel | Measured") -> MeasuredOn:
    """What a new result says of the model that it was measured on.

    Args:
        source: The model, with the weights in effect now; or a result of it, if the new one is
            computed from that result.

    Returns:
        The keyword arguments of `Measured`.
    """
    if isinstance(source, Measured):
        return {"model": source.model, "fingerprint": source.fingerprint}
    return {"model": source.name, "fingerprint": source.in_effect}
