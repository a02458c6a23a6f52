"""An edit as a LoRA adapter: loaded beside the base model, taken off again, swapped.

LoRA adds `(alpha / r) B A` to a weight, and a change of low rank is of that form: with
`alpha = r` the adapter is the delta, exactly. One rank serves all weights, so that every
reader of adapters can open it: factors of lower rank are padded with zeros, which add
nothing.

References:
    Hu et al. 2021, LoRA, section 4.1.
"""

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editing.edits.change import Change, Dense
from editing.edits.delta import WeightDelta
from editing.export.checkpoint import finish
from editing.export.merging import peft_package, without_notes
from editing.export.options import USUAL, ExportOptions, require_heeded
from editing.export.record import new_record, require_change
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.result import atomic_folder


@checked
def export_peft(
    model: LabModel,
    delta: WeightDelta,
    out: str | Path,
    how: ExportOptions = USUAL,
    *,
    audit: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a delta as a PEFT LoRA adapter, a model card and `labkit.json`.

    Args:
        model: The model that the delta was made for; it is not changed.
        delta: The change: matrices of low rank, of linear layers only.
        out: A folder that does not exist or is empty.
        how: Whether to open the files again (`ExportOptions(check=...)`); an adapter heeds no
            other option.
        audit: Metrics to state in the card.
        progress: Called with what is being done.

    Raises:
        InputError: If a change is dense, or one of something else than a linear layer; if
            another option is given; if peft is not installed.
        FingerprintMismatch: If the delta belongs to another model.
        OutputError: If the folder holds something, or cannot be written; nothing is left.
    """
    require_heeded(how, "an adapter", ("check",))
    peft = peft_package()
    require_change(model, delta)
    factors = {name: _factors(model, name, change) for name, change in delta.changes.items()}
    rank = max(change.rank for change in delta.changes.values())
    modules = [name.removesuffix(".weight") for name in factors]
    conv = [not isinstance(model.hf.get_submodule(module), nn.Linear) for module in modules]
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=modules,
        fan_in_fan_out=all(conv),
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    listener(progress)("writing the adapter", None)
    with atomic_folder(out) as folder:
        with without_notes():
            # A second skeleton over the same tensors: peft puts its layers into that one.
            shared = {id(t): t for t in itertools.chain(model.hf.parameters(), model.hf.buffers())}
            adapted = peft.get_peft_model(copy.deepcopy(model.hf, shared), config)
            for module, (a, b) in zip(modules, factors.values(), strict=True):
                layer = adapted.base_model.model.get_submodule(module)
                _fill(layer.lora_A["default"].weight, a)
                _fill(layer.lora_B["default"].weight.T, b.T)
            # By the lab's name: the path that transformers keeps is one of this machine.
            adapted.peft_config["default"].base_model_name_or_path = model.name
            adapted.save_pretrained(folder, save_embedding_layers=False)
        record = new_record(model, delta, "adapter", torch.float32)
        finish(model, delta, folder, record, audit=audit, check=how.check, progress=progress)
    return Path(out)


def _factors(model: LabModel, name: str, change: Change) -> tuple[Tensor, Tensor]:
    """`A` `[rank, in]` and `B` `[out, rank]` of a change.

    Raises:
        InputError: If there are none.
    """
    module_name, _, parameter = name.rpartition(".")
    module = model.hf.get_submodule(module_name)
    linear = isinstance(module, nn.Linear)
    if parameter != "weight" or not (linear or type(module).__name__ == "Conv1D"):
        raise InputError(
            f"a LoRA adapter holds changes of linear layers, and {name} is a part of a "
            f"{type(module).__name__}: export a checkpoint (--format hf)"
        )
    if isinstance(change, Dense):
        raise InputError(
            f"the change of {name} is dense: an adapter of full rank would be larger than the "
            "weight. Export a checkpoint (--format hf), or choose a rank and accept its error: "
            "truncated(delta, rank=...), or --rank at the command line"
        )
    if linear:
        return change.right, change.left
    return change.left.T, change.right.T


def _fill(target: Tensor, rows: Tensor) -> None:
    """Put factors into a LoRA weight, and zeros where the rank of this one ends."""
    with torch.no_grad():
        target.zero_()
        target[: len(rows)] = rows.to(target.device)
