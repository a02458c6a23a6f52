"""How an edit was made, as JSON: the one place that decides what each key means.

The provenance of *one* edit:

| key | meaning |
|---|---|
| `method` | name of the method's class |
| `config` | its fields, with the layers actually edited in place of a default |
| `rewrites` | the rewrites that it was asked for, as JSON records |
| `model`, `labkit` | name of the model, version of the lab |
| any other | what the method reports of this edit, by a name that is not in `RESERVED` |

The provenance of a *composition* is `{"steps": [...]}`, a list with the provenance of each
edit in order. A step also has the `digest` of the delta that it was, what that was made
`on_top_of`, and `times`, if it has been scaled since. What a run keeps of the call of a method
stands under `call` (`editing.protocols`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import labkit
from labkit.errors import InputError
from labkit.models.model import LabModel

STEPS = "steps"
RESERVED = frozenset(
    "method config rewrites model labkit steps digest on_top_of times call".split()
)
"""Keys that have a meaning of their own; nothing that a method reports may have their names."""


def of_edit(
    method: Any,
    model: LabModel,
    asked: Sequence[Any],
    *,
    layers: Sequence[int] = (),
    **reported: Any,
) -> dict[str, Any]:
    """The provenance of an edit that a method made.

    Args:
        method: The method, a dataclass.
        model: The model that it edited.
        asked: The requests, dataclasses.
        layers: The layers that were edited, where the method has a field for them, `layer` or
            `layers`: the layers chosen replace a default.
        reported: What the method reports of this edit; JSON values.

    Raises:
        ValueError: If a name of what is reported has another meaning already.
    """
    if taken := RESERVED & set(reported):
        raise ValueError(f"{', '.join(sorted(taken))}: provenance keys with a meaning of their own")
    fields = asdict(method)
    if "layers" in fields and layers:
        fields["layers"] = list(layers)
    elif "layer" in fields and layers:
        (fields["layer"],) = layers
    return {
        "method": type(method).__name__,
        "config": fields,
        "rewrites": [asdict(request) for request in asked],
        "model": model.name,
        "labkit": labkit.__version__,
        **reported,
    }


def of_composition(steps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The provenance of several edits, one after the other."""
    return {STEPS: [dict(step) for step in steps]}


def steps_of(provenance: Mapping[str, Any], **own: Any) -> tuple[dict[str, Any], ...]:
    """The edits that went in, in order, each as its provenance.

    Args:
        provenance: Of an edit or of a composition.
        own: Further keys of the step, where the provenance is that of a single edit.
    """
    if STEPS in provenance:
        return tuple(dict(step) for step in provenance[STEPS])
    return ({**provenance, **own},)


def require_steps(provenance: Mapping[str, Any]) -> None:
    """Refuse a provenance whose `steps` are not a list of edits.

    Raises:
        InputError: If they are not.
    """
    steps = provenance.get(STEPS, [])
    if not isinstance(steps, list | tuple) or not all(isinstance(s, Mapping) for s in steps):
        raise InputError(
            f"the steps of a delta are a list of edits, not {steps!r:.60}: it was made by another "
            "version of labkit; make the edit again"
        )
