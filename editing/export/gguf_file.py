"""An edit inside a GGUF file: the base file with the edited tensors replaced.

Metadata, tokenizer and all other tensors are copied byte for byte, quantised as they are.
The edited tensors are written unquantised, since rounding to a few bits would take the edit
away. Nothing of the file's format is decided here by architecture: a tensor is found by
gguf's own table of names, and how the file stores it (as it is, transposed, or with the rows
of attention heads interleaved) is read off its values, which have to be the model's.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from einops import rearrange

from editing.edits.delta import WeightDelta
from editing.export.checkpoint import edited_weight, finish
from editing.export.options import USUAL, ExportOptions, require_heeded
from editing.export.record import new_record, require_change, stored_dtype
from editing.export.reopening import GGUF_FILE
from labkit.arguments import checked
from labkit.errors import FingerprintMismatch, InputError, MissingFile
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.result import atomic_folder

Store = Callable[[np.ndarray], np.ndarray]
TYPES = {
    "float32": gguf.GGMLQuantizationType.F32,
    "float16": gguf.GGMLQuantizationType.F16,
    "bfloat16": gguf.GGMLQuantizationType.BF16,
}
FARTHEST = 0.5
"""A tensor is the model's if it differs by less than this share of its norm. Quantising to
two bits costs about 0.3; an unrelated or wrongly ordered matrix differs by 1.4."""


@checked
def export_gguf(
    model: LabModel,
    delta: WeightDelta,
    out: str | Path,
    how: ExportOptions = USUAL,
    *,
    base: str | Path,
    audit: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a folder with `model.gguf`, a model card and `labkit.json`.

    Args:
        model: The model that the delta was made for; it is not changed.
        delta: The change.
        out: A folder that does not exist or is empty.
        how: Number format of the edited tensors, float32 by default, and whether to open the file
            again, as `ExportOptions` lists them. The edit in memory is the yardstick of that
            check, and the base file may differ from it by quantising.
        base: The GGUF file of the same model, quantised or not. An edited tensor is the
            model's own plus the change: where the file was quantised from other weights than
            the model has in memory, that tensor becomes more precise than the rest.
        audit: Metrics to state in the card.
        progress: Called with what is being done.

    Raises:
        InputError: If the dtype or the file is none that can be written, the file has no tensor
            for a changed weight, or originals are to be left out: there are none.
        MissingFile: If there is no such file.
        FingerprintMismatch: If the delta belongs to another model, or the file does.
        OutputError: If the folder holds something, or cannot be written; nothing is left.
    """
    require_heeded(how, "a GGUF file", ("dtype", "check"))
    dtype = how.dtype or "float32"
    if dtype not in TYPES:
        raise InputError(f"edited tensors of dtype {dtype!r}: one of {', '.join(TYPES)}")
    require_change(model, delta)
    reader = read_gguf(base)
    listener(progress)("finding the edited tensors in the file", None)
    replaced: dict[str, Any] = {}
    notes = []
    weights = dict(model.hf.named_parameters())
    for name, change in delta.changes.items():
        place = find(reader, model, name)
        stored = stored_dtype("gguf", change, getattr(torch, dtype))
        edited = edited_weight(weights[name], change, stored)
        replaced[place.tensor] = place.store(edited.float().cpu().numpy())
        notes.append(f"`{name}` is `{place.tensor}`, was {place.kind}, {place.off:.2g}")
    with atomic_folder(out) as folder:
        listener(progress)("writing the file", None)
        write_gguf(reader, replaced, TYPES[dtype], folder / GGUF_FILE)
        record = new_record(model, delta, "gguf", getattr(torch, dtype))
        record["file"] = (
            f"All else is `{Path(base).name}`, byte for byte. Edited tensors, by name in the "
            "model and in the file, how they were stored, and how far that was from the model "
            f"in memory (share of the norm): {'; '.join(notes)}."
        )
        finish(model, delta, folder, record, audit=audit, check=how.check, progress=progress)
    return Path(out)


@dataclass(frozen=True)
class Place:
    """Where a weight of the model is in a file, and how it is stored there.

    Attributes:
        tensor: Name of the tensor in the file.
        kind: Its number format, as GGUF calls it.
        store: From the model's orientation to the file's.
        off: Distance between the two, over the norm of the model's weight.
    """

    tensor: str
    kind: str
    store: Store
    off: float


class _Reader(gguf.GGUFReader):
    """A reader that believes no length which reaches past the end of the file.

    The library's own gives what is left, and counts empty elements to whatever number a
    damaged file states.
    """

    def _get(  # type: ignore[override]
        self, offset: int, dtype: Any, count: Any = 1, **more: Any
    ) -> Any:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"it states a length of {end} bytes and has {len(self.data)}")
        return super()._get(offset, dtype, count, **more)


def read_gguf(path: str | Path) -> gguf.GGUFReader:
    """Open a GGUF file.

    Raises:
        MissingFile: If it is not there.
        InputError: If it is no GGUF file.
    """
    if not Path(path).is_file():
        raise MissingFile(f"there is no GGUF file {path}")
    try:
        return _Reader(path)
    except (ValueError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as a GGUF file: {error}") from error


def find(reader: gguf.GGUFReader, model: LabModel, name: str) -> Place:
    """The tensor of a file that holds a weight of the model, and how it holds it.

    Raises:
        InputError: If the file has no such tensor.
        FingerprintMismatch: If its values are not the model's, whichever way they are read.
    """
    weight = model.hf.get_parameter(name).detach().float().cpu().numpy()
    tensor = _named(reader, model, name)
    found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    off: float = math.inf
    best: Store = _plain
    scale = max(float(np.linalg.norm(weight)), 1e-30)
    for store in _ways(model, weight):
        stored = store(weight)
        if stored.shape == found.shape:
            here = float(np.linalg.norm(stored - found)) / scale
            off, best = (here, store) if here < off else (off, best)
    if off > FARTHEST:
        raise FingerprintMismatch(
            f"the tensor {tensor.name} of the GGUF file does not hold {name} of {model.name}: "
            f"they differ by {off:.2g} of its norm. Is it the file of another model?"
        )
    return Place(tensor.name, tensor.tensor_type.name, best, off)


def _named(reader: gguf.GGUFReader, model: LabModel, name: str) -> gguf.ReaderTensor:
    """A tensor by the model's name of the weight, through gguf's own table."""
    field = reader.get_field("general.architecture")
    architectures = {label: key for key, label in gguf.MODEL_ARCH_NAMES.items()}
    architecture = architectures.get(str(field.contents()) if field else "")
    if architecture is None:
        raise InputError("the GGUF file names no architecture that the gguf package knows")
    names = gguf.get_tensor_name_map(architecture, model.n_layers)
    wanted = names.get_name(name, try_suffixes=(".weight", ".bias"))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if wanted not in tensors:
        raise InputError(
            f"the GGUF file has no tensor for {name}"
            + (f" (it would be {wanted})" if wanted else ", nor a name for it")
        )
    output = tensors.get("output.weight")
    tied = model.unembed.weight is model.hf.get_input_embeddings().weight
    if wanted == "token_embd.weight" and tied and output is not None:
        raise InputError(
            "the GGUF file stores the unembedding apart from the embedding to which the model "
            "ties it: an edit of both cannot be written into one tensor"
        )
    return tensors[wanted]


def _ways(model: LabModel, weight: np.ndarray) -> Iterator[Store]:
    """The ways in which converters are known to store a weight, the plain one first."""
    yield _plain
    if weight.ndim != 2:
        return
    yield lambda w: w.T
    heads = {model.n_heads, getattr(model.hf.config, "num_key_value_heads", model.n_heads)}
    for n_heads in sorted(heads):
        if len(weight) % (2 * n_heads) == 0:
            # llama.cpp rotates neighbouring entries of a head, transformers the two halves.
            yield lambda w, n=n_heads: rearrange(  # type: ignore[misc]
                w, "(head half pair) columns -> (head pair half) columns", head=n, half=2
            )


def _plain(weight: np.ndarray) -> np.ndarray:
    """A weight as transformers orients it."""
    return weight


def write_gguf(
    reader: gguf.GGUFReader,
    replaced: Mapping[str, np.ndarray],
    kind: gguf.GGMLQuantizationType,
    path: Path,
) -> None:
    """A copy of a file with some tensors in another number format.

    Everything before the table of tensors is copied as bytes; the table gets the new formats
    and offsets; every other tensor is copied as bytes.

    Args:
        reader: The file.
        replaced: By name, the new values as the file orients them.
        kind: Number format of new matrices; new vectors are float32.
        path: The file to write.
    """
    start = reader.tensors[0].field.offset
    content: dict[str, np.ndarray] = {}
    table, offset = [], 0
    for tensor in reader.tensors:
        *head, raw_kind, raw_offset = tensor.field.parts
        data = tensor.data
        if tensor.name in replaced:
            new_kind = kind if replaced[tensor.name].ndim > 1 else TYPES["float32"]
            data = gguf.quants.quantize(replaced[tensor.name], new_kind)
            raw_kind = np.array([new_kind], dtype=raw_kind.dtype)
        content[tensor.name] = data
        table += [part.tobytes() for part in (*head, raw_kind)]
        table.append(np.array([offset], dtype=raw_offset.dtype).tobytes())
        offset += _padded(data.nbytes, reader.alignment)
    header = reader.data[:start].tobytes() + b"".join(table)
    with path.open("wb") as file:
        file.write(header.ljust(_padded(len(header), reader.alignment), b"\0"))
        for data in content.values():
            file.write(np.ascontiguousarray(data).data)
            file.write(bytes(_padded(data.nbytes, reader.alignment) - data.nbytes))


def _padded(size: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // int(alignment)) * int(alignment)
