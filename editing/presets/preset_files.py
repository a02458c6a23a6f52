"""Which layers of a model to edit: measured, shipped or swept, and otherwise a marked guess.

A preset comes from editing (`editing.layers.sweep`), since where a trace peaks is not where an edit
succeeds. It is looked for in this order: the user's own sweep of the weights in effect, in the
cache; with an edit in effect, the sweep of the model without it; the shipped preset of the
model's short name; else a sixth of the depth, which is said to be a guess wherever it is used.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.arguments import checked
from labkit.cache import cache_dir, done_without
from labkit.errors import MalformedRecord, OutputError
from labkit.files import atomic_write
from labkit.models.model import LabModel
from labkit.results.result import dumps

logger = logging.getLogger(__name__)

FORMAT = 2
"""Up to 1 a preset had no checksum, and a sweep on top of an edit was kept as the model's own."""

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
        evidence: The numbers it rests on, as in `editing.layers.sweep_result.LayerSweep`:
            layer, state, reading, metric, mean, low, high, n (cases). Empty for a guess.
    """

    layer: int
    layers: tuple[int, ...]
    source: str
    measured: bool
    evidence: tuple[Mapping[str, Any], ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The evidence as a table."""
        return pd.DataFrame(list(self.evidence))


@checked
def preset(model: LabModel, method: str = "rome") -> Preset:
    """Where to edit a model.

    Args:
        model: The model.
        method: Name of the method, as in `editing.METHODS`. One that was not swept itself
            takes the preset of the one that was, "rome" first.

    Raises:
        MalformedRecord: If the file of the user's own sweep is damaged: a sweep takes minutes, and
            is not repeated without being asked for.
        LayerOutOfRange: If it names layers that the model does not have.
    """
    now = model.in_effect
    own = _own(_file(now), method)
    edited = own is None and now != model.fingerprint
    before = _own(_file(model.fingerprint), method) if edited else None
    if own is not None:
        found = own
    elif before is not None:
        found = replace(before, source=f"{before.source}; without the edit in effect")
    elif model.known_as in SHIPPED:
        shipped = resources.files("editing.presets") / "shipped" / f"{model.known_as}.json"
        found = _of(json.loads(shipped.read_text(encoding="utf-8")), method)
    else:
        found = guess(model)
    for layer in (found.layer, *found.layers):
        model.layer(layer)
    return found


def guess(model: LabModel) -> Preset:
    """A sixth of the depth, and the layers up to one after it."""
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
    """The path of the preset of the user's own sweep of the weights in effect, existing or not."""
    return _file(model.in_effect)


def write_preset(model: LabModel, method: str, found: Preset) -> Path | None:
    """Save a preset for later edits of this model, beside those of other methods.

    Returns:
        The file; None, after a warning, where it is not kept: where the cache cannot be
        written, or states are patched, so that it belongs to no model.
    """
    if model.is_patched:
        logger.warning("the preset of %s is not kept: its states are patched", model.name)
        return None
    path = preset_file(model)
    try:
        presets = _sound(path)["presets"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or one that is replaced
        presets = {}
    record = {
        "format": FORMAT,
        "model": model.name,
        "fingerprint": model.in_effect,
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
    whole = json.loads(dumps(record))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return atomic_write(path, dumps({**whole, "sha256": _checksum(whole)}) + "\n")
    except (OSError, OutputError) as error:
        done_without(path, error)
        return None


def _file(fingerprint: str) -> Path:
    """Where the preset of some weights lies."""
    return cache_dir() / "presets" / f"{fingerprint}.{FORMAT}.json"


def _own(path: Path, method: str) -> Preset | None:
    """The preset of one method in the file of a sweep; None if there is no such file."""
    try:
        return _of(_sound(path), method)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        done_without(path, error)
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord(
            f"the preset {path} is damaged ({error!r}): remove it, or sweep again"
        ) from error


def _sound(path: Path) -> dict[str, Any]:
    """The record of a file, compared with its checksum and its name.

    Raises:
        ValueError, KeyError, TypeError: If it is not what was written there.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.pop("sha256") != _checksum(record) or path != _file(record["fingerprint"]):
        raise ValueError("its checksum differs")
    return record


def _checksum(record: Mapping[str, Any]) -> str:
    """sha256 of a record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


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
