"""An edit in effect, whatever its kind: changed weights, or text in front of every prompt.

    with in_effect(model, edit) as prompt:
        ask(model, prompt("The capital of France is"))

Readings of an edited model need nothing else, so that methods of both kinds, and the unedited model
beside them, go through one code path.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from editing.edits.applying import applied
from editing.edits.delta import WeightDelta
from labkit.arguments import checked
from labkit.errors import FingerprintMismatch
from labkit.models.model import LabModel

Wording = Callable[[str], str]
"""How a prompt is put to the model: as it is, or with an edit's text in front."""


@runtime_checkable
class TextEdit(Protocol):
    """An edit that changes the prompt, not the model."""

    @property
    def base(self) -> str:
        """Fingerprint of the model that it was made for."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made. JSON values only."""

    def prompt(self, prompt: str) -> str:
        """The prompt as the model is given it."""


Edit = WeightDelta | TextEdit
"""What an editor returns."""


def as_it_is(prompt: str) -> str:
    """The prompt unchanged: for edits of weights, and for the unedited model."""
    return prompt


@checked
@contextmanager
def in_effect(model: LabModel, edit: Edit | None) -> Iterator[Wording]:
    """The model under an edit for the duration of the block; None is the unedited model.

    Weights are restored bit for bit afterwards, also after an error (see `applied`).

    Yields:
        A function from a prompt to the text that the model is given.

    Raises:
        WrongArgument: If it is no edit.
        FingerprintMismatch: If the edit belongs to another model; nothing is changed then.
    """
    if edit is None:
        yield as_it_is
    elif isinstance(edit, WeightDelta):
        with applied(model, edit):
            yield as_it_is
    else:
        if edit.base != model.fingerprint:
            raise FingerprintMismatch(
                f"the edit was made for the model {edit.base[:12]}, "
                f"but {model.name} is {model.fingerprint[:12]}: load the model it was made for"
            )
        yield edit.prompt
