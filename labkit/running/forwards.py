"""The forward of a module: what it takes, and another in its place for a while."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def replaced(pairs: Iterator[tuple[nn.Module, Callable]]) -> Iterator[None]:
    """Swap the forward of some modules; the old ones come back in any case."""
    undo: list[tuple[nn.Module, Callable | None]] = []
    try:
        for module, forward in pairs:
            undo.append((module, vars(module).get("forward")))
            module.forward = forward
        yield
    finally:
        for module, own in undo:
            if own is None:
                del module.forward
            else:  # another library's wrapper, such as accelerate's
                module.forward = own


def accepts(module: nn.Module, argument: str) -> bool:
    """Whether a module's forward takes an argument of this name."""
    return argument in inspect.signature(type(module).forward).parameters
