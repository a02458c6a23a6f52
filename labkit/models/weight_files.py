"""The weight files of a model from elsewhere: their headers, before the weights are read.

Only headers are read here: names, shapes and number formats. safetensors itself checks that
a header fits its file to the byte.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedConfig

from labkit.errors import MalformedModel, one_line
from labkit.models.configuration import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
BUFFERS_AT_MOST = 1 << 34
"""Bytes of what a model computes at its start from its configuration alone, such as masks."""

_BLOCK = re.compile(r"^(.*?)\.?(\d+)\.")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, by its header.

    Attributes:
        shape: Its shape.
        dtype: Its number format, as safetensors calls it.
        file: Name of the file.
    """

    shape: tuple[int, ...]
    dtype: str
    file: str


def read_headers(folder: Path) -> dict[str, Stored]:
    """Every tensor that the weight files of a folder hold, by name.

    Raises:
        MalformedModel: If there are no weights, or a file or the index is not what it says.
    """
    if (folder / WEIGHTS).is_file():
        return _header(folder, WEIGHTS)
    if not (folder / INDEX).is_file():
        raise MalformedModel(_no_weights(folder))
    placed = read_index(folder)
    held: dict[str, Stored] = {}
    for file in sorted(set(placed.values())):
        if not (folder / file).is_file():
            raise MalformedModel(
                f"{folder}/{INDEX} names the file {one_line(repr(file), 80)}, which is not there"
            )
        held |= _header(folder, file)
    for name, file in placed.items():
        if name not in held or held[name].file != file:
            raise MalformedModel(
                f"{folder}/{INDEX} says that {one_line(name, 80)} is in {file}, which is not so"
            )
    return held


def read_index(folder: Path) -> dict[str, str]:
    """From the weights of a model that is kept in several files to the files' names.

    Raises:
        MalformedModel: If it is no such index, or leads out of the folder.
    """
    placed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise MalformedModel(f"{folder}/{INDEX} has no weight_map from weights to files")
    for file in placed.values():
        if not isinstance(file, str) or Path(file).name != file:
            raise MalformedModel(
                f"{folder}/{INDEX} names {one_line(repr(file), 80)}, which is no file beside it"
            )
    return placed


def _header(folder: Path, file: str) -> dict[str, Stored]:
    """The header of one file."""
    try:
        with safe_open(folder / file, framework="pt") as content:
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
            return {
                name: Stored(tuple(part.get_shape()), part.get_dtype(), file)
                for name, part in slices.items()
            }
    except Exception as error:
        raise MalformedModel(
            f"{folder}/{file} is damaged or no file of safetensors: {one_line(error)}"
        ) from error


def _no_weights(folder: Path) -> str:
    """What to do about a folder without a file of weights that can be read."""
    pickles = sorted(
        path.name
        for ending in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
        for path in folder.glob(ending)
    )
    if pickles:
        return (
            f"{folder} has its weights as a pickle only ({one_line(pickles[0], 60)}), which can "
            "run code when it is read and is not opened: ask for the model as safetensors, or save "
            "it again with transformers' save_pretrained if you trust whoever made it"
        )
    return f"{folder} has no weights ({WEIGHTS} or {INDEX}); was it saved completely?"


def require_blocks(folder: Path, config: PreTrainedConfig, held: Mapping[str, Stored]) -> None:
    """Compare the number of blocks that the files hold with that of the configuration.

    Done before anything is built: thousands of empty blocks take minutes.

    Raises:
        MalformedModel: If they differ.
    """
    text = config.get_text_config()
    wanted = text.num_hidden_layers
    groups: dict[str, set[int]] = {}
    for name in held:
        found = _BLOCK.match(name)
        if found:
            groups.setdefault(found[1], set()).add(int(found[2]))
    counts = Counter({prefix: len(blocks) for prefix, blocks in groups.items()})
    if counts and wanted not in counts.values():
        prefix, count = counts.most_common(1)[0]
        raise MalformedModel(
            f"{folder}: the configuration has {wanted} blocks, the weights have {count} "
            f"({one_line(prefix, 60)}.0 to {max(groups[prefix])})"
        )
    if not counts and wanted > len(held):
        raise MalformedModel(f"{folder}: {wanted} blocks cannot be made of {len(held)} weights")


def require_match(folder: Path, skeleton: nn.Module, held: Mapping[str, Stored]) -> None:
    """Compare what the files hold with a model built without numbers (on `meta`).

    Raises:
        MalformedModel: If a weight has another shape, or is no floating-point number, or the
            model as configured would be far larger than what the files hold.
    """
    wanted = dict(skeleton.named_parameters(remove_duplicate=False))
    prefix = getattr(skeleton, "base_model_prefix", "") + "."
    for name, stored in held.items():
        known = wanted.get(name, wanted.get(prefix + name))
        if known is None:
            continue
        if stored.dtype not in FLOATS:
            raise MalformedModel(
                f"{folder}/{stored.file}: {name} is stored as {stored.dtype}; the lab reads and "
                f"edits floating-point weights ({', '.join(FLOATS)})"
            )
        if tuple(known.shape) != stored.shape:
            raise MalformedModel(
                f"{folder}: {name} has the shape {list(stored.shape)} in {stored.file} and "
                f"{list(known.shape)} by the configuration"
            )
    here = sum(prod(stored.shape) for stored in held.values())
    there = sum(parameter.numel() for parameter in skeleton.parameters())
    if there > 2 * here + 2**20:
        raise MalformedModel(
            f"{folder}: the configuration describes {there:,} numbers, the files hold {here:,}"
        )
    buffers = sum(buffer.numel() * buffer.itemsize for buffer in skeleton.buffers())
    if buffers > BUFFERS_AT_MOST:
        raise MalformedModel(
            f"{folder}: by its configuration the model needs {buffers / 1e9:,.0f} GB for masks and "
            "positions alone; check max_position_embeddings"
        )
