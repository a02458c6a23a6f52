"""Number formats and devices, by the names that users give them."""

import torch

from labkit.errors import InputError

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Precisions by the name that a user types."""


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """A number format, by name or as it is.

    Raises:
        InputError: If there is no such format.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {str(dtype)!r}; one of {', '.join(DTYPES)}")
    return DTYPES[str(dtype)]


def usable_device(device: str) -> str:
    """The device itself, after checking that tensors can be held there.

    Args:
        device: A torch device (`cpu`, `cuda:1`, `mps`), or `auto`, which is left to the loader.

    Raises:
        InputError: If torch knows no such device, or this machine has none, or it holds no
            numbers (`meta`).
    """
    if device == "auto":
        return device
    try:
        held = float(torch.ones(1, device=device).sum())
    except Exception as error:  # each backend that is not there raises something else
        raise InputError(
            f"device {device!r} cannot be used here; there is {', '.join(_devices())}, or auto"
        ) from error
    if held != 1.0:
        raise InputError(f"device {device!r} cannot be used for computing: one is {held} there")
    return device


def _devices() -> list[str]:
    """The kinds of devices that this machine has."""
    found = ["cpu"]
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        found += [] if accelerator is None else [accelerator.type]
    return found
