"""Removing an edit from an exported checkpoint.

Subtracting the change restores the weights up to rounding only. So `export_hf` keeps the
changed weights as they were, a few percent of the checkpoint, and with them nothing has to be
subtracted: the remaining edits are added to the originals, as the export did.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from editing.edits.delta import WeightDelta
from editing.edits.undoing import Undo, report, run_of, undo
from editing.export.card import model_card
from editing.export.checkpoint import UNDO, edited_weight, write_checkpoint, write_originals
from editing.export.record import checksum, read_record, write_record
from labkit.arguments import checked
from labkit.errors import FingerprintMismatch, InputError, MalformedRecord
from labkit.files import require_free
from labkit.models.checkpoints import open_checkpoint
from labkit.models.formats import DTYPES
from labkit.models.in_effect import fingerprint
from labkit.progress import Progress, listener
from labkit.results.result import atomic_folder, atomic_write


@checked
def undo_checkpoint(
    path: str | Path,
    delta: WeightDelta,
    out: str | Path,
    *,
    progress: Progress | None = None,
) -> Undo:
    """Write an exported checkpoint again without one of its edits.

    Args:
        path: A checkpoint that `export_hf` wrote; it is not changed.
        delta: The edit to undo: all that was exported, or one of its steps.
        out: A folder that does not exist or is empty.
        progress: Called with what is being done.

    Returns:
        How exact the result is. Where the checkpoint has its originals, or where a checksum shows
        that subtracting restored the base exactly, it is bit for bit; elsewhere `differing` is not
        known and `largest` is a bound.

    Raises:
        MissingFile, MalformedRecord: If the folder is no export, or was changed since.
        InputError: If it is an adapter or a GGUF file, does not contain the edit, or
            a truncation has since mixed it with the others.
        FingerprintMismatch: If the delta belongs to another model.
        OutputError: If the output cannot be written; nothing is left.
    """
    require_free(out)
    record = read_record(path)
    if record["kind"] != "checkpoint":
        raise InputError(
            f"{path} is not a checkpoint: its base model is unchanged, so there is nothing to undo"
        )
    if record["base"]["fingerprint"] != delta.base:
        raise FingerprintMismatch(
            f"{path} was made from the model {record['base']['fingerprint'][:12]}, "
            f"the delta for {delta.base[:12]}"
        )
    steps = record["steps"]
    start, times = run_of(steps, delta)
    later = steps[start + len(delta.steps) :]
    left = [*steps[:start], *later]
    told = listener(progress)
    told("opening the checkpoint", None)
    dtype = DTYPES[record["dtype"]]
    hf, tokenizer = open_checkpoint(path, dtype=dtype)
    hf.requires_grad_(False)
    weights = _checked(hf, record, path)

    total, originals = _originals(Path(path), record)
    if total is not None:
        remaining, answer = undo(total, delta)
        restored = {
            name: edited_weight(originals[name], remaining.changes.get(name), dtype)
            for name in weights
        }
        rows = _exact_rows(answer.weights)
    else:
        remaining, answer = None, None
        restored = {
            name: edited_weight(weights[name], change, dtype)
            for name, change in delta.scaled(-times).changes.items()
        }
        known = {name: row["before"] for name, row in record["changed"].items()}
        rows = _subtracted_rows(weights, restored, known if not left else {})
    told("writing the checkpoint", None)
    with atomic_folder(out) as folder:
        write_checkpoint(hf, tokenizer, restored, dtype, folder)
        if remaining is not None and remaining.changes:
            write_originals(
                {name: originals[name] for name in remaining.changes}, remaining, folder
            )
        after = {**weights, **restored}
        new = _record(record, left, after, remaining)
        for name, weight in restored.items():
            hf.get_parameter(name).copy_(weight)
        new["result"] = {"fingerprint": fingerprint(hf, tokenizer)}
        write_record(folder, new)
        atomic_write(folder / "README.md", model_card(new))
    return report(delta, rows, len(left), later)


def _checked(hf: Any, record: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The changed weights of a checkpoint, checked to be as exported.

    Raises:
        MalformedRecord: If one is not.
    """
    parameters = dict(hf.named_parameters())
    for name, row in record["changed"].items():
        if name not in parameters or checksum(parameters[name]) != row["after"]:
            raise MalformedRecord(f"the weight {name} of {path} has changed since the export")
    return {name: parameters[name].detach() for name in record["changed"]}


def _originals(
    path: Path, record: Mapping[str, Any]
) -> tuple[WeightDelta | None, dict[str, Tensor]]:
    """The original weights that the export kept for an exact undo, if it kept any.

    Raises:
        MalformedRecord: If it is damaged, or belongs to another export.
    """
    if not (path / UNDO).is_dir():
        return None, {}
    total = WeightDelta.load(path / UNDO / "delta")
    try:
        originals = load_file(path / UNDO / "weights.safetensors")
    except (OSError, SafetensorError) as error:
        raise MalformedRecord(f"the originals in {path / UNDO} are damaged: {error}") from error
    dtype = DTYPES[record["dtype"]]
    same = total.digest == record["delta"]["digest"] and all(
        name in originals and checksum(originals[name].to(dtype)) == row["before"]
        for name, row in record["changed"].items()
    )
    if not same:
        raise MalformedRecord(f"the originals in {path / UNDO} are not those of this checkpoint")
    return total, originals


def _record(
    record: Mapping[str, Any],
    left: list[Any],
    after: Mapping[str, Tensor],
    remaining: WeightDelta | None,
) -> dict[str, Any]:
    """The record of the new checkpoint: the old one without the edit."""
    changed = {}
    for name, row in record["changed"].items():
        now = checksum(after[name])
        if not left or now == row["before"]:
            continue
        change = None if remaining is None else remaining.changes.get(name)
        size = {} if change is None else {"rank": change.rank, "norm": float(change.dense().norm())}
        changed[name] = {**row, **size, "after": now}
    kept = {k: v for k, v in record.items() if k not in ("check", "result", "originals")}
    digest = None if remaining is None else remaining.digest
    return {**kept, "delta": {"digest": digest}, "changed": changed, "steps": left} | (
        {"originals": True} if remaining is not None and remaining.changes else {}
    )


def _exact_rows(answered: pd.DataFrame) -> list[dict[str, Any]]:
    """Weights computed from their originals: as exact as the remaining change is."""
    rows = answered.to_dict("records")
    for row in rows:
        row["how"] = f"from the original; {row['how']}"
    return rows


def _subtracted_rows(
    weights: Mapping[str, Tensor], restored: Mapping[str, Tensor], known: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Weights after subtracting the change: bit for bit where rounding allows, else a bound."""
    rows = []
    for name, weight in restored.items():
        # Half a unit in the last place for the export's rounding, and again for this one's.
        unit = torch.finfo(weight.dtype).eps / 2
        bound = unit * float((weights[name].abs().double() + weight.abs().double()).max())
        exact = known.get(name) == checksum(weight)
        rows.append(
            {
                "weight": name,
                "entries": weight.numel(),
                "how": "subtracted",
                "differing": 0 if exact else None,
                "largest": 0.0 if exact else bound,
            }
        )
    return rows
