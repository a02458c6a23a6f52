"""The machine-readable record beside every export: `labkit.json`.

It says which model the export was made from, by which edits in which order, and gives checksums of
each changed weight before and after. The model card says the same to people.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.edits.change import Change, dtype_name
from editing.edits.delta import WeightDelta
from labkit.errors import InputError, MalformedRecord, MissingFile
from labkit.models.formats import DTYPES
from labkit.models.model import LabModel
from labkit.models.registry import ENTRIES
from labkit.results.provenance import environment
from labkit.results.result import atomic_write, dumps

RECORD = "labkit.json"
KINDS = {"checkpoint": "Hugging Face checkpoint", "adapter": "LoRA adapter", "gguf": "GGUF file"}


def new_record(
    model: LabModel,
    delta: WeightDelta,
    kind: str,
    dtype: torch.dtype,
    after: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The record of an export.

    Args:
        model: The model that the delta was made for.
        delta: The change.
        kind: One of `KINDS`.
        dtype: Number format of the changed weights in the files; see `stored_dtype`.
        after: The changed weights as they are written, for checksums.
    """
    entry = ENTRIES.get(model.name)
    weights = dict(model.hf.named_parameters())
    changed: dict[str, Any] = {}
    for name, change in delta.changes.items():
        changed[name] = {
            "shape": list(change.shape),
            "rank": change.rank,
            "norm": float(change.dense().norm()),
            "dtype": dtype_name(stored_dtype(kind, change, dtype)),
        }
        if after is not None:
            changed[name]["before"] = checksum(weights[name].to(dtype))
            changed[name]["after"] = checksum(after[name])
    return {
        "kind": kind,
        "dtype": dtype_name(dtype),
        "base": {
            # A folder by its last name: where it lies on this machine is nobody's business.
            "name": Path(model.name).name if Path(model.name).is_dir() else model.name,
            "fingerprint": delta.base,
            "dtype": dtype_name(model.dtype),
            "license": entry.license if entry else None,
            "source": entry.source if entry else None,
        },
        "delta": {"digest": delta.digest},
        "changed": changed,
        "steps": list(delta.steps),
        "environment": environment(),
    }


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `labkit.json` into a folder."""
    atomic_write(folder / RECORD, dumps(record) + "\n")


def read_record(path: str | Path) -> dict[str, Any]:
    """The record of an export.

    Raises:
        MissingFile: If there is none: the folder is not an export of this project.
        MalformedRecord: If it is damaged, or of another version.
    """
    file_path = Path(path) / RECORD
    try:
        record = json.loads(file_path.read_text(encoding="utf-8"))
        if record["kind"] not in KINDS:
            raise MalformedRecord(f"{file_path} is of an unknown kind: {record['kind']}")
        DTYPES[record["dtype"]], record["base"]["fingerprint"], record["changed"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFile(
            f"{path} is not an export of labkit: it has no {RECORD}; 'labkit diff' turns any two "
            "checkpoints into a delta"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord(
            f"{file_path} is damaged, or was not written by an export: {error!r}"
        ) from error
    return record


def checksum(tensor: Tensor) -> str:
    """sha256 over number format, shape and bytes of a tensor."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    digest.update(data.numpy().data)
    return digest.hexdigest()


def require_change(model: LabModel, delta: WeightDelta) -> None:
    """Refuse to export a delta of another model, or one that changes nothing.

    Raises:
        FingerprintMismatch: If it belongs to another model.
        InputError: If it is empty, or was made on top of a delta that is not part of it.
    """
    delta.require(model)
    if not delta.changes:
        raise InputError("the delta changes nothing: there is no edit to export")
    if delta.on_top_of is not None:
        raise InputError(
            f"the delta was made while another one ({delta.on_top_of[:12]}) was in effect, and is "
            "incomplete without it: export both, first.then(second), or --delta FIRST --delta "
            "SECOND"
        )


def stored_dtype(kind: str, change: Change, dtype: torch.dtype) -> torch.dtype:
    """Number format of a changed weight in the files.

    Vectors (norms, biases) of a GGUF file are float32: runtimes read no other.
    """
    return torch.float32 if kind == "gguf" and len(change.shape) == 1 else dtype
