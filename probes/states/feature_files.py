"""States on disk: one safetensors file each, filled in place and mapped into memory.

safetensors' own writer wants the whole tensor in memory. Its format is plain: the length of a
JSON header in 8 bytes, the header, the numbers. So the header is written first, room for the
numbers is reserved, and they are written through a memory map as they come. The file appears
under its name when it is complete.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np

from labkit.files import output_errors

logger = logging.getLogger(__name__)

CODES = {"float32": "F32", "float16": "F16"}
NAME = "features"

KEPT = 20 * 10**9
"""Bytes of states that the user's cache holds at most, besides the file in use."""


@contextmanager
def new_file(path: Path, shape: Sequence[int], dtype: str) -> Iterator[np.memmap]:
    """An array to be filled; what was filled is the file when the block ends well.

    Args:
        path: The file; its folder is made.
        shape: Shape of the array.
        dtype: "float32" or "float16".

    Raises:
        OutputError: If there is no room for it, or no right to write.
    """
    header = _header(shape, dtype)
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(header)
                _reserve(file, n_bytes)
            values = np.memmap(temporary, dtype, "r+", offset=len(header), shape=tuple(shape))
            yield values
            values.flush()
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
    header = _header(shape, dtype)
    try:
        with path.open("rb") as file:
            sound = file.read(len(header)) == header
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if sound and path.stat().st_size == len(header) + n_bytes:
            with suppress(OSError):  # a cache that may only be read
                os.utime(path)
            return np.memmap(path, dtype, "r", offset=len(header), shape=tuple(shape))
    except FileNotFoundError:
        return None
    logger.warning("the cached states %s are damaged, reading them again", path)
    return None


def forget_oldest(folder: Path, *, kept: int = KEPT) -> None:
    """Delete the files of a folder that were not used for longest, until the others fit.

    The one used last stays, whatever its size. A file that is mapped lives on where it is.

    Args:
        folder: The folder; only its safetensors files are looked at.
        kept: Bytes that may stay.
    """
    files = []
    for path in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # another process was faster
            found = path.stat()
            files.append((found.st_mtime_ns, found.st_size, path))
    room = kept
    for place, (_, size, path) in enumerate(sorted(files, reverse=True)):
        room -= size
        if place and room < 0:
            with suppress(OSError):
                path.unlink()
                logger.info("the cached states %s made room for newer ones", path)


def _header(shape: Sequence[int], dtype: str) -> bytes:
    """The first bytes of a safetensors file with one tensor, a multiple of eight."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    entry = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [0, n_bytes]}
    text = json.dumps({NAME: entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _reserve(file: BinaryIO, n_bytes: int) -> None:
    """Make a file longer, for good: a full disk is to say so now, not through the map."""
    if hasattr(os, "posix_fallocate"):
        file.flush()
        os.posix_fallocate(file.fileno(), file.tell(), n_bytes)
        return
    block = bytes(1 << 24)
    for start in range(0, n_bytes, len(block)):
        file.write(block[: n_bytes - start])
