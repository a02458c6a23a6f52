"""Which layers of a model to edit: measured, shipped or swept, and otherwise a marked guess.

A preset comes from editing (`editing.layers.sweep`), since where a trace peaks is not where an edit
succeeds. It is looked for in this order: the user's own sweep of these very weights, in the
cache; the shipped preset of the model's short name; else a sixth of the depth, which is said
to be a guess wherever it is used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.errors import MalformedRecord
from labkit.files import atomic_write, output_errors
from labkit.models.fetch import cache_dir
from labkit.models.model import LabModel
from labkit.results.result import dumps

FORMAT = 1

DEPTH = 6
"""Without a measurement, the layer is this fraction of the depth."""

SPREAD = 3
"""Number of layers of a preset for methods that edit several (the paper of MEMIT: 5 or 6)."""

SHIPPED = ("smollm2-135m", "pocket")
"""Short names of the models whose presets ship with the package."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Where to edit one model.

    Attributes:
        layer: The layer, for methods that edit one.
        layers: Consecutive layers, in order, for methods that edit several.
        source: In words, where it comes from: for the provenance of an edit.
        measured: Whether it was measured; False for a guess.
        evidence: One row a number behind it, as in `editing.layers.sweep.LayerSweep`: layer, state,
            reading, metric, mean, low, high, n (cases). Empty for a guess.
    """

    layer: int
    layers: tuple[int, ...]
    source: str
    measured: bool
    evidence: tuple[Mapping[str, Any], ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The evidence as a table."""
        return pd.DataFrame(list(self.evidence))


def preset(model: LabModel, method: str = "rome") -> Preset:
    """Where to edit a model.

    Args:
        model: The model.
        method: Name of the method, as in `editing.METHODS`. One that was not swept itself
            takes the preset of the one that was, "rome" first.

    Raises:
        MalformedRecord: If the file of the user's own sweep is damaged.
        LayerOutOfRange: If it names layers that the model does not have.
    """
    own = preset_file(model)
    if own.is_file():
        try:
            found = _of(json.loads(own.read_text(encoding="utf-8")), method)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MalformedRecord(
                f"the preset {own} is damaged ({error!r}): remove it, or sweep again"
            ) from error
    elif model.known_as in SHIPPED:
        shipped = resources.files("editing.presets") / "shipped" / f"{model.known_as}.json"
        found = _of(json.loads(shipped.read_text(encoding="utf-8")), method)
    else:
        found = guess(model)
    for layer in (found.layer, *found.layers):
        model.layer(layer)
    return found


def guess(model: LabModel) -> Preset:
    """A sixth of the depth, and the layers up to one behind it."""
    layer = model.n_layers // DEPTH
    first = max(0, min(layer - 1, model.n_layers - SPREAD))
    layers = tuple(range(first, min(first + SPREAD, model.n_layers)))
    return Preset(
        layer=layer,
        layers=layers,
        source=f"guess: a sixth of the depth (no sweep of {model.name}: see `labkit sweep`)",
        measured=False,
    )


def preset_file(model: LabModel) -> Path:
    """Where the preset of the user's own sweep of these weights lies, or would lie."""
    return cache_dir() / "presets" / f"{model.fingerprint}.json"


def write_preset(model: LabModel, method: str, found: Preset) -> Path:
    """Keep a preset for every later edit of this model, beside those of other methods.

    Returns:
        The file.

    Raises:
        OutputError: If it cannot be written.
    """
    path = preset_file(model)
    try:
        presets = json.loads(path.read_text(encoding="utf-8"))["presets"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or one that is replaced
        presets = {}
    record = {
        "format": FORMAT,
        "model": model.name,
        "fingerprint": model.fingerprint,
        "presets": presets
        | {
            method: {
                "layer": found.layer,
                "layers": found.layers,
                "source": found.source,
                "evidence": found.evidence,
            }
        },
    }
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return atomic_write(path, dumps(record) + "\n")


def _of(record: Mapping[str, Any], method: str) -> Preset:
    """The preset of one method in a file's record."""
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']}, not {FORMAT}")
    presets = record["presets"]
    one = presets.get(method) or presets.get("rome") or next(iter(presets.values()))
    return Preset(
        layer=int(one["layer"]),
        layers=tuple(int(layer) for layer in one["layers"]),
        source=str(one["source"]),
        measured=True,
        evidence=tuple(one["evidence"]),
    )
