"""Carry an edit away: a Hugging Face checkpoint that plain `transformers` opens.

The change is added to the weights in float32 and rounded once, to the number format of the
files. What rounding leaves of the edit is read back from the files and stated in the card.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from editing.edits.change import Change, added, dtype_name
from editing.edits.delta import WeightDelta
from editing.export.card import model_card
from editing.export.options import USUAL, ExportOptions
from editing.export.record import new_record, require_change, write_record
from editing.export.reopening import STATES, check_export
from labkit.arguments import checked
from labkit.models.formats import dtype_of
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.result import atomic_folder, atomic_write

UNDO = "undo"


@checked
def export_hf(
    model: LabModel,
    delta: WeightDelta,
    out: str | Path,
    how: ExportOptions = USUAL,
    *,
    audit: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the edited model as a checkpoint that plain `transformers` opens.

    The folder holds config, weights (safetensors), tokenizer, a model card (`README.md`),
    and `labkit.json` with the steps of the delta, checksums and fingerprints. In `undo/` are
    the delta and the changed weights as they were: with these `undo_checkpoint` is exact.

    Args:
        model: The model that the delta was made for; it is not changed.
        delta: The change.
        out: A folder that does not exist or is empty.
        how: Number format, whether to write `undo/`, and whether to open the files again, as
            `ExportOptions` lists them.
        audit: Metrics to state in the card, as `Evaluation.metrics()` gives them.
        progress: Called with what is being done.

    Raises:
        InputError: If the delta is empty.
        FingerprintMismatch: If the delta belongs to another model.
        OutputError: If the folder holds something, or cannot be written; nothing is left.
    """
    require_change(model, delta)
    target = model.dtype if how.dtype is None else dtype_of(how.dtype)
    told = listener(progress)
    with atomic_folder(out) as folder:
        told("writing the checkpoint", None)
        weights = dict(model.hf.named_parameters())
        edited = {n: edited_weight(weights[n], c, target) for n, c in delta.changes.items()}
        write_checkpoint(model.hf, model.tokenizer, edited, target, folder)
        if how.keep_originals:
            write_originals({name: weights[name] for name in edited}, delta, folder)
        record = new_record(model, delta, "checkpoint", target, edited)
        record["originals"] = how.keep_originals
        finish(model, delta, folder, record, audit=audit, check=how.check, progress=progress)
    return Path(out)


def edited_weight(weight: Tensor, change: Change | None, dtype: torch.dtype) -> Tensor:
    """A weight with a change added in float32 at least, rounded once."""
    weight = weight.detach()
    return (weight if change is None else added(weight, change)).to(dtype)


def write_checkpoint(
    hf: Any, tokenizer: Any, edited: Mapping[str, Tensor], dtype: torch.dtype, folder: Path
) -> None:
    """A model's files with some of its weights replaced; the model is not changed."""
    parameters = dict(hf.named_parameters())
    # By address, so that weights that are tied stay one tensor, edited or cast once.
    cast = {parameters[name].data_ptr(): weight for name, weight in edited.items()}
    state = {}
    for name, tensor in hf.state_dict().items():
        if tensor.data_ptr() not in cast:
            kept = not tensor.is_floating_point() or tensor.dtype == dtype
            cast[tensor.data_ptr()] = tensor if kept else tensor.to(dtype)
        state[name] = cast[tensor.data_ptr()]
    hf.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = dtype_name(dtype)  # transformers writes the one in memory
    atomic_write(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_originals(weights: Mapping[str, Tensor], delta: WeightDelta, folder: Path) -> None:
    """What an exact undo needs: the delta, and the weights that it changes."""
    delta.save(folder / UNDO / "delta")
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(tensors, folder / UNDO / "weights.safetensors")


def finish(
    model: LabModel,
    delta: WeightDelta,
    folder: Path,
    record: dict[str, Any],
    *,
    audit: Mapping[str, Any] | None,
    check: bool,
    progress: Progress | None,
) -> None:
    """Read an export back, and write what was found beside it: record and card."""
    write_record(folder, record)
    if check:
        listener(progress)("opening the files again", None)
        found = check_export(model, delta, folder)
        means = {state: found.answer(state) for state in STATES}
        record["result"] = {"fingerprint": found.result}
        record["check"] = {
            "weights": found.weights.to_dict("records"),
            "logits_off": found.logits_off,
            "logits_moved": found.logits_moved,
            "rewrites": len(found.answers),
            "probability_of_target": {k: v.to_dict() for k, v in means.items() if v is not None},
        }
    write_record(folder, record)
    atomic_write(folder / "README.md", model_card(record, audit))
