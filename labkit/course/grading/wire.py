"""Plain values between the grader and a student's process: JSON, tensors as bytes, no pickles.

What comes back is the student's to choose. It is decoded into numbers, text, containers and
tensors of known number formats, or refused; nothing in it can be run.
"""

import base64
import json
import math
import socket
import struct
import time
from typing import Any

import torch
from torch import Tensor

LARGEST = 64 * 2**20
"""Bytes of a message at most."""

_DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


class Malformed(Exception):
    """Bytes that are no message, or a value of a kind that is not sent."""


def encode(value: Any) -> Any:
    """A value as JSON.

    Raises:
        Malformed: If it is of a kind that is not sent.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        if str(plain.dtype) not in _DTYPES:
            raise Malformed(f"a tensor of {plain.dtype}")
        data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        text = base64.b64encode(data).decode()
        return {"kind": "tensor", "dtype": str(plain.dtype), "shape": [*plain.shape], "data": text}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {"kind": kind, "items": [encode(item) for item in value]}
    if type(value).__name__ == "LabModel":
        return {"kind": "model"}
    raise Malformed(f"a {type(value).__name__}")


def decode(plain: Any, model: Any = None) -> Any:
    """The value that JSON stands for.

    Raises:
        Malformed: If it stands for none.
    """
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    kind = plain.get("kind") if isinstance(plain, dict) else None
    try:
        if kind == "tensor":
            dtype, shape = _DTYPES[plain["dtype"]], [int(n) for n in plain["shape"]]
            data = base64.b64decode(plain["data"], validate=True)
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
                raise Malformed("a tensor whose shape and bytes do not agree")
            flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0)
            return flat.to(dtype).reshape(shape)
        if kind in ("list", "tuple"):
            items = [decode(item, model) for item in plain["items"]]
            return tuple(items) if kind == "tuple" else items
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, RecursionError) as error:
        raise Malformed(f"an unreadable {kind}") from error
    if kind == "model" and model is not None:
        return model
    raise Malformed("a value of an unknown kind")


def send(connection: socket.socket, message: Any) -> None:
    """Send a message, its length in front."""
    data = json.dumps(message).encode()
    connection.sendall(struct.pack("!Q", len(data)) + data)


def receive(connection: socket.socket, until: float | None = None) -> Any:
    """Wait for a message.

    Args:
        connection: Where from.
        until: When to give up, by `time.monotonic`.

    Raises:
        EOFError: If the other side is gone.
        TimeoutError: If nothing whole has come in time.
        Malformed: If it is too large, or no JSON.
    """
    (size,) = struct.unpack("!Q", _exactly(connection, 8, until))
    if size > LARGEST:
        raise Malformed(f"an answer of {size:.2g} bytes")
    try:
        return json.loads(_exactly(connection, size, until))
    except (ValueError, RecursionError) as error:
        raise Malformed("an answer that is no JSON") from error


def _exactly(connection: socket.socket, size: int, until: float | None) -> bytes:
    """So many bytes."""
    data = bytearray()
    while len(data) < size:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(min(size - len(data), 2**20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
