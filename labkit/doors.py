"""The door of a room: a package hands on the names that others may use, and imports none early.

A package's `__init__.py` names them once, where editors and type checkers look:

    if TYPE_CHECKING:
        from labkit.models.model import LabModel

    __getattr__, __dir__, __all__ = door(__name__, __file__)

A name is imported when it is first asked for, so that `import labkit` and `labkit --help` stay
quick; completion and type checkers know all of them before.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def door(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package needs to hand on the names of its `if TYPE_CHECKING:` block.

    Args:
        package: The package's `__name__`.
        file: Its `__file__`.

    Returns:
        Its `__getattr__`, `__dir__` and `__all__`.
    """
    homes = homes_in(Path(file).read_text(encoding="utf-8"))

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes} - {"door", "TYPE_CHECKING"})

    return get, names, sorted(homes)


def homes_in(source: str) -> dict[str, str]:
    """The module of every name that is imported for type checkers only."""
    return {
        alias.name: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
