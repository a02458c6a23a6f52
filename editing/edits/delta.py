"""Weight changes as objects: saved, added, composed, applied and undone.

A `WeightDelta` maps Hugging Face parameter names to matrices to add, low-rank where the
method allows it. It is made by an editor, which never touches the model, and takes effect
inside `applied`:

    delta = ROME(layer=7)(model, [rewrite])
    with applied(model, delta):
        ...                      # the model is edited here
    ...                          # and restored bit for bit here, even after an error
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from editing.edits.change import Change, Dense, LowRank, parts
from editing.edits.provenance import of_composition, require_steps, steps_of
from editing.edits.showing import ShownChange
from labkit.errors import FingerprintMismatch, InputError, MalformedRecord, MissingFile
from labkit.models.model import LabModel
from labkit.models.wheels import sha256_of
from labkit.results.result import atomic_folder, atomic_write, dumps

FORMAT = 2

__all__ = ["Change", "Dense", "LowRank", "WeightDelta", "composed", "parts"]


@dataclass(frozen=True, eq=False)
class WeightDelta(ShownChange):
    """A change of some weights of one model.

    Attributes:
        changes: By Hugging Face parameter name, the matrix to add.
        base: Fingerprint of the model that it was made for.
        provenance: How it was made (JSON values); see `editing.edits.provenance`.
        on_top_of: Digest of the delta that was in effect when this one was made; None if
            it was made for the base itself.
        memory: Tensors for later edits by the same method, by a name of its choice, rows per
            edit: the keys of earlier edits, for one. They change no weight.
    """

    changes: Mapping[str, Change]
    base: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    on_top_of: str | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a change that is not finite: the model's output would be NaN."""
        require_steps(self.provenance)
        for name, change in self.changes.items():
            if not all(torch.isfinite(part).all() for part in parts(change).values()):
                raise InputError(f"the change of {name} holds values that are not finite")

    def __repr__(self) -> str:
        """Which weights change, by which rank and how much."""
        shown = (
            f"{name}: rank {change.rank}, norm {change.dense().norm():.3g}"
            for name, change in self.changes.items()
        )
        return f"WeightDelta({'; '.join(shown) or 'nothing'}; base {self.base[:12]})"

    @cached_property
    def digest(self) -> str:
        """sha256 over base and changes: two deltas with the same digest do the same.

        What changes no weight (`memory`, `provenance`) does not count here; `save` keeps a
        checksum of the whole file, so that damage to it is noticed as well.
        """
        whole = hashlib.sha256(self.base.encode())
        for name in sorted(self.changes):
            whole.update(name.encode())
            for part in parts(self.changes[name]).values():
                whole.update(part.detach().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()

    @property
    def steps(self) -> tuple[dict[str, Any], ...]:
        """The edits that went in, in order, each as its provenance.

        An edit that is not composed is one step. A step of a composition also has the
        `digest` of the delta that it was, its `on_top_of`, and `times` if it has been scaled since.
        """
        return steps_of(self.provenance, digest=self.digest, on_top_of=self.on_top_of)

    @property
    def rewrites(self) -> tuple[dict[str, Any], ...]:
        """The rewrites that all of its steps were asked for, in order, as JSON records."""
        return tuple(dict(asked) for step in self.steps for asked in step.get("rewrites", ()))

    def then(self, other: "WeightDelta") -> "WeightDelta":
        """This change, then another, as one delta: edits made one after the other.

        Compose from the first on: `first.then(second).then(third)`, where `third` was made
        with `first.then(second)` in effect.

        Raises:
            FingerprintMismatch: If they were made for different models, or if `other` was made
                on top of something else than this.
        """
        if other.on_top_of not in (None, self.digest):
            raise FingerprintMismatch(
                f"the second delta was made on top of {other.on_top_of[:12]}, the first is "
                f"{self.digest[:12]}: compose edits in the order in which they were made, from "
                "the first on"
            )
        return composed([self, other])

    def __add__(self, other: "WeightDelta") -> "WeightDelta":
        """Both changes at once, as one delta: edits made independently of one another.

        Raises:
            FingerprintMismatch: If they were made for different models, or on top of
                different deltas.
        """
        if self.on_top_of != other.on_top_of:
            raise FingerprintMismatch(
                "deltas made on top of different ones do not add: compose them in order, "
                "first.then(second)"
            )
        return composed([self, other])

    def scaled(self, factor: float) -> "WeightDelta":
        """The change times a number: -1 undoes it, 0.5 goes half-way.

        Raises:
            InputError: If the result is not finite.
        """
        changes = {name: change.scaled(factor) for name, change in self.changes.items()}
        steps = [{**step, "times": factor * step.get("times", 1.0)} for step in self.steps]
        return replace(self, changes=changes, provenance=of_composition(steps))

    def __neg__(self) -> "WeightDelta":
        """The inverse change, up to rounding; see `editing.edits.undoing`."""
        return self.scaled(-1.0)

    def require(self, model: LabModel) -> None:
        """Raise unless this delta was made for the model.

        Raises:
            FingerprintMismatch: If the model is another, or lacks the weights.
        """
        if self.base != model.fingerprint:
            raise FingerprintMismatch(
                f"the delta was made for the model {self.base[:12]}, "
                f"but {model.name} is {model.fingerprint[:12]}: load the model it was made for"
            )
        parameters = dict(model.hf.named_parameters())
        for name, change in self.changes.items():
            if name not in parameters or tuple(parameters[name].shape) != change.shape:
                raise FingerprintMismatch(f"{model.name} has no weight {name} of {change.shape}")

    def save(self, path: str | Path) -> Path:
        """Write a folder with `delta.safetensors` and `delta.json`.

        Raises:
            OutputError: If the folder holds something, or cannot be written.
        """
        tensors = {}
        for name, change in self.changes.items():
            for part, tensor in parts(change).items():
                tensors[f"{name}.{part}"] = tensor.detach().cpu().contiguous()
        for name, rows in self.memory.items():
            tensors[f"memory.{name}"] = rows.detach().cpu().contiguous()
        header = {
            "format": FORMAT,
            "base": self.base,
            "digest": self.digest,
            "weights": {
                name: {"shape": change.shape, "rank": change.rank}
                for name, change in self.changes.items()
            },
            "provenance": dict(self.provenance),
            "on_top_of": self.on_top_of,
            "memory": sorted(self.memory),
        }
        with atomic_folder(path) as folder:
            save_file(tensors, folder / "delta.safetensors")
            header["sha256"] = sha256_of(folder / "delta.safetensors")
            atomic_write(folder / "delta.json", dumps(header) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "WeightDelta":
        """Read what `save` wrote.

        Raises:
            MissingFile: If the folder holds no delta.
            MalformedRecord: If its files are damaged or do not belong together.
        """
        folder = Path(path)
        try:
            header = json.loads((folder / "delta.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "delta.safetensors")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFile(f"{path} holds no delta: {error}") from error
        except (ValueError, SafetensorError) as error:
            raise MalformedRecord(f"the delta in {path} is damaged: {error}") from error
        try:
            if header["format"] != FORMAT:
                raise MalformedRecord(f"{path}: delta format {header['format']}, not {FORMAT}")
            changes: dict[str, Change] = {
                name: Dense(tensors[f"{name}.matrix"])
                if f"{name}.matrix" in tensors
                else LowRank(tensors[f"{name}.left"], tensors[f"{name}.right"])
                for name in header["weights"]
            }
            memory = {name: tensors[f"memory.{name}"] for name in header["memory"]}
            delta = cls(changes, header["base"], header["provenance"], header["on_top_of"], memory)
            whole = sha256_of(folder / "delta.safetensors") == header["sha256"]
            intact = whole and delta.digest == header["digest"]
        except (KeyError, TypeError) as error:
            raise MalformedRecord(f"the delta in {path} lacks {error}") from error
        except InputError as error:
            raise MalformedRecord(f"the delta in {path} cannot be used: {error}") from error
        if not intact:
            raise MalformedRecord(f"the delta in {path} is not what was saved: its digest differs")
        return delta


def composed(deltas: Sequence[WeightDelta]) -> WeightDelta:
    """Deltas in order as one: changes summed, memories side by side, steps in one flat list.

    What each was made on top of is not checked; `WeightDelta.then` checks it.

    Raises:
        InputError: If there is none.
        FingerprintMismatch: If they were made for different models.
    """
    if not deltas:
        raise InputError("nothing to compose: name at least one delta")
    first = deltas[0]
    changes: dict[str, Change] = {}
    memory: dict[str, list[Tensor]] = {}
    for delta in deltas:
        if delta.base != first.base:
            raise FingerprintMismatch(
                f"deltas of different models ({first.base[:12]}, {delta.base[:12]}) do not add"
            )
        for name, change in delta.changes.items():
            changes[name] = changes[name] + change if name in changes else change
        for name, rows in delta.memory.items():
            memory.setdefault(name, []).append(rows)
    steps = of_composition(step for delta in deltas for step in delta.steps)
    joined = {name: torch.cat(rows) for name, rows in memory.items()}
    return WeightDelta(changes, first.base, steps, first.on_top_of, joined)
