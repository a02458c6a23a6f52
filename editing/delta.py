"""Weight changes as things: saved, added, applied and taken back.

A `WeightDelta` maps Hugging Face parameter names to matrices to add, low-rank where the
method allows it. It is made by an editor, which never touches the model, and takes effect
inside `applied`:

    delta = ROME(layer=7)(model, [rewrite])
    with applied(model, delta):
        ...                      # the model is edited here
    ...                          # and bit for bit what it was here, also after an error
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from labkit.errors import FingerprintMismatch, InputError, MalformedRecord, MissingFile
from labkit.models import LabModel, fingerprint
from labkit.results import atomic_folder, atomic_write, dumps

FORMAT = 2


@dataclass(frozen=True, eq=False)
class LowRank:
    """A matrix `left @ right`, in the orientation of the parameter that it changes.

    Attributes:
        left: `[rows, rank]`, float32.
        right: `[rank, columns]`, float32.
    """

    left: Float[Tensor, "rows rank"]
    right: Float[Tensor, "rank columns"]

    @property
    def rank(self) -> int:
        """Number of columns of `left`: an upper bound on the matrix's rank."""
        return self.left.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The matrix itself."""
        return self.left @ self.right

    def __add__(self, other: "Change") -> "Change":
        """The sum, its rank the sum of ranks."""
        if isinstance(other, Dense):
            return other + self
        return LowRank(
            torch.cat([self.left, other.left], dim=1), torch.cat([self.right, other.right])
        )


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix without structure, in the orientation of the parameter that it changes.

    Attributes:
        matrix: `[rows, columns]`, float32.
    """

    matrix: Float[Tensor, "rows columns"]

    @property
    def rank(self) -> int:
        """The smaller side: an upper bound on the matrix's rank."""
        return min(self.matrix.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The matrix itself."""
        return self.matrix

    def __add__(self, other: "Change") -> "Dense":
        """The sum."""
        return Dense(self.matrix + other.dense())


Change = LowRank | Dense
"""What is added to one weight."""


@dataclass(frozen=True, eq=False)
class WeightDelta:
    """A change of some weights of one model.

    Attributes:
        changes: By Hugging Face parameter name, the matrix to add.
        base: Fingerprint of the model that it was made for.
        provenance: How it was made: method, its fields, rewrites, versions, and what the
            method wants to report. JSON values only.
        on_top_of: Digest of the delta that was in effect when this one was made; None if
            it was made for the base itself.
        memory: Tensors that a later edit by the same method wants to see, by a name of the
            method's choice, rows an edit: the keys of earlier edits, for one. They change
            no weight.
    """

    changes: Mapping[str, Change]
    base: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    on_top_of: str | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a change that is not finite: applied, it would silence the model."""
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

    @property
    def digest(self) -> str:
        """sha256 over base and changes: two deltas with the same digest do the same."""
        whole = hashlib.sha256(self.base.encode())
        for name in sorted(self.changes):
            whole.update(name.encode())
            for part in parts(self.changes[name]).values():
                whole.update(part.detach().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()

    def __add__(self, other: "WeightDelta") -> "WeightDelta":
        """Both changes at once, as one delta.

        Raises:
            FingerprintMismatch: If they were made for different models.
        """
        if self.base != other.base:
            raise FingerprintMismatch(
                f"deltas of different models ({self.base[:12]}, {other.base[:12]}) do not add"
            )
        changes = dict(self.changes)
        for name, change in other.changes.items():
            changes[name] = changes[name] + change if name in changes else change
        memory = dict(self.memory)
        for name, rows in other.memory.items():
            memory[name] = torch.cat([memory[name], rows]) if name in memory else rows
        provenance = {"sum_of": [dict(self.provenance), dict(other.provenance)]}
        return WeightDelta(changes, self.base, provenance, memory=memory)

    def require(self, model: LabModel) -> None:
        """Refuse a model that this delta was not made for.

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
            intact = delta.digest == header["digest"]
        except (KeyError, TypeError) as error:
            raise MalformedRecord(f"the delta in {path} lacks {error}") from error
        if not intact:
            raise MalformedRecord(f"the delta in {path} is not what was saved: its digest differs")
        return delta


def parts(change: Change) -> dict[str, Tensor]:
    """The tensors that a change is made of, by name."""
    if isinstance(change, Dense):
        return {"matrix": change.matrix}
    return {"left": change.left, "right": change.right}


@contextmanager
def applied(model: LabModel, *deltas: WeightDelta) -> Iterator[LabModel]:
    """The model with some deltas added, in order, for the duration of the block.

    What was there before is copied aside and copied back, so the weights are restored bit
    for bit, also after an error or Ctrl-C. Blocks may be nested and undo from within.

    Raises:
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
                # Added in float32 at least: half precision would round the change away first.
                precise = torch.promote_types(weight.dtype, torch.float32)
                weight.copy_(weight.to(precise) + change.dense().to(weight.device))
        yield model
    finally:
        for name, before in saved.items():
            parameters[name].detach().copy_(before)


def result_fingerprint(model: LabModel, *deltas: WeightDelta) -> str:
    """Fingerprint of the edited model: what loading an export of it will report."""
    with applied(model, *deltas):
        return fingerprint(model.hf, model.tokenizer)
