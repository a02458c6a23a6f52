"""What is too much for this machine, told before it is asked for."""

import contextlib
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from labkit.errors import InputError, TooLarge

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory() -> int:
    """Bytes of memory that a process may have here: the machine's, or its container's."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP:
        with contextlib.suppress(OSError, ValueError):  # not in a container, or no bound
            found.append(int(path.read_text()))
    return min(found)


def require_memory(n_bytes: float, what: str) -> None:
    """Refuse what could not be held.

    Args:
        n_bytes: An estimate of what it takes, from below.
        what: What takes it, and which number makes it so large.

    Raises:
        TooLarge: If the machine has less.
    """
    there = machine_memory()
    if n_bytes > there:
        raise TooLarge(
            f"{what} would take {size(n_bytes)} of memory, and there are {size(there)}: "
            "ask for less"
        )


STEPS = 100_000
"""Steps of an optimisation at most: nobody waits for more."""


def require_finite(config: Any) -> None:
    """Refuse a configuration with a number that is infinite, or none.

    Args:
        config: A dataclass; those in its fields look after themselves.

    Raises:
        InputError: If a field holds one; it names the field.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{type(config).__name__}: {field.name} is {value}, not a number")


def size(n_bytes: float) -> str:
    """Bytes for a reader: `3.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.0f} TB"
