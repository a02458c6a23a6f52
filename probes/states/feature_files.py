"""States on disk: one safetensors file each, filled in place and mapped into memory.

safetensors' own writer wants the whole tensor in memory. Its format is plain: the length of a
JSON header in 8 bytes, the header, the numbers. So the header is written first, room for the
numbers is reserved, and they are written through a memory map as they come. Last comes the
checksum, into the place that the header keeps for it, and the file gets its name.

The checksum is compared whenever a file is opened: a second per gigabyte, where reading the
states again takes minutes.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from labkit import cache
from labkit.errors import OutputError
from labkit.files import output_errors
from labkit.temporary import sweep, temporary_beside

CODES = {"float32": "F32", "float16": "F16"}
NAME = "features"
NO_CHECKSUM = "0" * 64
BLOCK = 1 << 24


@contextmanager
def new_file(path: Path, shape: Sequence[int], dtype: str) -> Iterator[np.memmap]:
    """An array to be filled; what was filled is the file when the block ends well.

    Args:
        path: The file; its folder is made. Its name is part of the checksum.
        shape: Shape of the array.
        dtype: "float32" or "float16".

    Raises:
        OutputError: If there is no room for it, or no right to write.
    """
    header = _header(shape, dtype, NO_CHECKSUM)
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    temporary = temporary_beside(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(header)
                _reserve(file, n_bytes)
            values = np.memmap(temporary, dtype, "r+", offset=len(header), shape=tuple(shape))
            yield values
            values.flush()
            with temporary.open("r+b") as file:
                file.write(_header(shape, dtype, _checksum(path, shape, dtype, values)))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def map_file(path: Path, shape: Sequence[int], dtype: str) -> np.memmap | None:
    """The array of a file, read-only and mapped; None if there is no sound file.

    Args:
        path: The file.
        shape: The shape that it should have.
        dtype: "float32" or "float16".
    """
    n_header = len(_header(shape, dtype, NO_CHECKSUM))
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        with path.open("rb") as file:
            header = file.read(n_header)
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        cache.done_without(path, error)
        return None
    if size != n_header + n_bytes:
        cache.report_damaged(path, f"{size} bytes, not {n_header + n_bytes}")
        return None
    values = np.memmap(path, dtype, "r", offset=n_header, shape=tuple(shape))
    if header != _header(shape, dtype, _checksum(path, shape, dtype, values)):
        cache.report_damaged(path, "its checksum differs")
        return None
    cache.touch(path)
    return values


def filled_file(
    path: Path, shape: Sequence[int], dtype: str, fill: Callable[[np.ndarray], None]
) -> np.memmap | None:
    """A new file's array, read-only; None, after a warning, where the cache cannot be written.

    Args:
        path: The file; one that lies there is replaced.
        shape: Shape of the array.
        dtype: "float32" or "float16".
        fill: Writes the numbers into an array that it is handed.

    Raises:
        OutputError: If a folder of the caller's, outside the user's cache, cannot be written.
    """
    own = path.parent == cache.cache_dir() / "features"
    try:
        with new_file(path, shape, dtype) as values:
            fill(values)
    except (OSError, OutputError) as error:
        if not own:
            raise
        cache.done_without(path, error)
        return None
    if own:  # a folder of the caller's is the caller's
        cache.forget_oldest(keep=path)
    n_header = len(_header(shape, dtype, NO_CHECKSUM))
    return np.memmap(path, dtype, "r", offset=n_header, shape=tuple(shape))


def scratch(shape: Sequence[int], dtype: str) -> np.memmap:
    """An array on disk that is removed with its last reader, however the process ends.

    It lies where the user's cache does, or where the system keeps temporary files.

    Raises:
        OutputError: If there is no room for it.
    """
    root = cache.cache_dir()
    place = root if root.is_dir() and os.access(root, os.W_OK) else Path(tempfile.gettempdir())
    with output_errors(place), tempfile.TemporaryFile(dir=place) as file:
        _reserve(file, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=tuple(shape))


def _header(shape: Sequence[int], dtype: str, checksum: str) -> bytes:
    """The first bytes of a safetensors file with one tensor, a multiple of eight."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    entry = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [0, n_bytes]}
    text = json.dumps({"__metadata__": {"sha256": checksum}, NAME: entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _checksum(path: Path, shape: Sequence[int], dtype: str, values: np.ndarray) -> str:
    """sha256 over a file's name, and its array."""
    whole = hashlib.sha256(f"{path.name}\0{tuple(shape)}\0{dtype}\0".encode())
    flat = values.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), BLOCK):
        whole.update(flat[start : start + BLOCK].data)
    return whole.hexdigest()


def _reserve(file: BinaryIO, n_bytes: int) -> None:
    """Reserve the space of a file: a full disk is an error now, not while the map is written."""
    file.flush()
    if hasattr(os, "posix_fallocate"):
        if n_bytes:
            os.posix_fallocate(file.fileno(), file.tell(), n_bytes)
        return
    block = bytes(BLOCK)
    for start in range(0, n_bytes, len(block)):
        file.write(block[: n_bytes - start])
    file.flush()
