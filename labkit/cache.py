"""One cache for all that is computed once and asked for again.

    place = cache.place(model, "moments", FORMAT, {"layer": 3, "corpus": corpus.digest})
    found = cache.read(place)
    if found is None:
        ...                                       # measure
        cache.write(place, {"second_moment": matrix}, {"n_keys": 4000})

A place is named by a hash over everything that its content depends on, the weights in effect
and the format among them. Where states are patched there is no place, and nothing is read or
written. Each file is a safetensors file that holds, besides the numbers, its own name and a
checksum over all of it: what was damaged, cut or put in another's place is reported by name,
and measured again. A cache that cannot be read or written is done without, after one warning.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

import platformdirs

from labkit.errors import InputError, OutputError
from labkit.files import atomic_write
from labkit.temporary import sweep

if TYPE_CHECKING:
    from torch import Tensor

    from labkit.models.model import LabModel

logger = logging.getLogger(__name__)

KEPT = 20 * 10**9
"""Bytes that the whole cache may take, fetched weights included. What was used longest ago is
forgotten until it fits; weights and treebanks, which were fetched, and presets, stay."""

MEASURED = ("moments", "triggers", "translators", "features")
"""Folders of the cache whose content is measured again when it is gone."""

FORMAT = 2
"""Format of the files themselves; up to 1 they had no checksum, and did not know of edits."""


class Damaged(Exception):
    """A file of the cache is not what was written there."""


@dataclass(frozen=True)
class Found:
    """What a place holds.

    Attributes:
        tensors: By name.
        header: What was written beside them, JSON values.
    """

    tensors: "Mapping[str, Tensor]"
    header: Mapping[str, Any]


def cache_dir() -> Path:
    """Folder of everything that can be fetched or computed again.

    `LABKIT_CACHE` if it is set, the platform's own place for caches otherwise.

    Raises:
        InputError: If `LABKIT_CACHE` names the home of a user who does not exist.
    """
    chosen = os.environ.get("LABKIT_CACHE")
    try:
        return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("labkit"))
    except RuntimeError as error:
        raise InputError(f"LABKIT_CACHE = {chosen}: there is no such user") from error


def places(
    model: "LabModel", kind: str, format: int, asked: Sequence[Mapping[str, Any]]
) -> list[Path | None]:
    """Where things measured on a model are cached; None for all where its states are patched.

    Args:
        model: The model. The weights in effect, the number format and the BOS setting are part
            of every name.
        kind: Folder of the cache, one of `MEASURED`.
        format: Format of the content.
        asked: For each thing, everything else that it depends on, JSON values.
    """
    if model.is_patched:
        return [None for _ in asked]
    shared = {
        "format": [FORMAT, format],
        "kind": kind,
        "model": model.in_effect,
        "dtype": str(model.dtype),
        "prepend_bos": model.prepend_bos,
    }
    return [cache_dir() / kind / f"{_digest({**parts, **shared})}.safetensors" for parts in asked]


def place(model: "LabModel", kind: str, format: int, parts: Mapping[str, Any]) -> Path | None:
    """Where one thing measured on a model is cached; see `places`."""
    return places(model, kind, format, [parts])[0]


def read(place: Path | None) -> Found | None:
    """What a place holds; None if there is nothing, or nothing sound."""
    if place is None:
        return None
    try:
        data = place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        done_without(place, error)
        return None
    try:
        found = _checked(place, data)
    except Damaged as error:
        report_damaged(place, error)
        return None
    touch(place)
    return found


def write(place: Path | None, tensors: "Mapping[str, Tensor]", header: Mapping[str, Any]) -> None:
    """Keep something, and forget what was used longest ago if it does not fit.

    A cache that cannot be written is reported once and done without.
    """
    from safetensors.torch import save

    if place is None:
        return
    text = json.dumps(header, sort_keys=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    kept = json.dumps({"header": text, "sha256": _checksum(place.stem, text, whole)})
    try:
        sweep(place.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, save(whole, metadata={"labkit": kept}))
    except (OSError, OutputError) as error:
        done_without(place, error)
    else:
        forget_oldest(keep=place)


def forget(place: Path | None) -> None:
    """Remove what a place holds, if anything."""
    if place is not None:
        with suppress(OSError):  # there is nothing, or the cache may only be read
            place.unlink()


def sweep_all() -> None:
    """Remove what killed processes left anywhere in the cache; see `labkit.temporary.sweep`."""
    root = cache_dir()
    with suppress(OSError):  # there is none, or it may not be read
        for folder in (root, *(path for path in root.iterdir() if path.is_dir())):
            sweep(folder)


def forget_oldest(*, keep: Path | None = None, kept: int = KEPT) -> None:
    """Delete what was used longest ago until the whole cache fits.

    Args:
        keep: A file that stays in any case: the one that was just written.
        kept: Bytes that may stay, files that are never forgotten included.
    """
    root, files, total = cache_dir(), [], 0
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):  # another process was faster
                found = path.stat()
                total += found.st_size
                measured = path.parent.parent == root and path.parent.name in MEASURED
                if measured and path.suffix == ".safetensors" and path != keep:
                    files.append((found.st_atime_ns, found.st_size, path))
    for _, size, path in sorted(files):
        if total <= kept:
            return
        with suppress(OSError):
            path.unlink()
            total -= size
            logger.info("%s made room in the cache", path)


def touch(place: Path) -> None:
    """Note that a file was used now; when it was written stays as it is."""
    with suppress(OSError):  # a cache that may only be read
        now = os.stat(place)
        os.utime(place, ns=(max(now.st_atime_ns + 1, time_ns()), now.st_mtime_ns))


def report_damaged(place: Path, why: object) -> None:
    """Say that a file is damaged; whoever asked measures again."""
    logger.warning("the cached file %s is damaged (%s): measuring again", place, why)


def done_without(place: Path, error: Exception) -> None:
    """Say, once, that a cache cannot be used, and why."""
    cause = error if isinstance(error, OSError) else error.__cause__
    why = getattr(cause, "strerror", None) or str(error)
    root = cache_dir() if place.is_relative_to(cache_dir()) else place.parent
    _say_once(root, why)


def _digest(parts: Mapping[str, Any]) -> str:
    """sha256 of JSON values, 64 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@once
def _say_once(folder: Path, why: str) -> None:
    """The same warning is given once."""
    logger.warning(
        "the cache %s cannot be used (%s): going on without it; LABKIT_CACHE names another",
        folder,
        why,
    )


def _checked(place: Path, data: bytes) -> Found:
    """The content of a file's bytes.

    Raises:
        Damaged: If they are not what was written at this place.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        length = int.from_bytes(data[:8], "little")
        kept = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["labkit"])
        tensors = load(data)
        sound = kept["sha256"] == _checksum(place.stem, kept["header"], tensors)
        header = json.loads(kept["header"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"no cached file: {error}") from error
    if not sound:
        raise Damaged("its checksum differs")
    return Found(tensors, header)


def _checksum(name: str, header: str, tensors: "Mapping[str, Tensor]") -> str:
    """sha256 over a file's own name, its header, and all tensors with name, dtype and shape."""
    import torch

    whole = hashlib.sha256(f"{name}\0{header}".encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        whole.update(f"\0{key} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            whole.update(tensor.flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()
