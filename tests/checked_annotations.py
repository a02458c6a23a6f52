"""Annotations of the library, checked whenever one of its functions is called.

`jaxtyping` looks at arrays together (a `batch` of one argument is the `batch` of another), which
costs some ten microseconds a call. A function without arrays gets the same check from `beartype`
alone, which costs one; `jaxtyping_disable` turns off both.
"""

import re
from collections.abc import Callable
from functools import partial, wraps
from types import FunctionType
from typing import Any, get_type_hints

import jaxtyping

ARRAYS = re.compile("Float|Int|Bool|Shaped|Num|Array")
shaped = jaxtyping.jaxtyped


def jaxtyped(what: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """What the import hook decorates with: `jaxtyping.jaxtyped` where arrays are annotated."""
    if what is None:
        return partial(jaxtyped, typechecker=typechecker)
    if isinstance(what, type) and hasattr(what, "__dataclass_fields__"):
        what.__init__ = jaxtyped(what.__init__, typechecker=typechecker)
        return what
    if not isinstance(what, FunctionType) or ARRAYS.search(str(what.__annotations__)):
        return shaped(what, typechecker=typechecker)
    said = what.__annotations__
    what.__annotations__ = {name: known(kind, what.__globals__) for name, kind in said.items()}
    checked = typechecker(what)
    what.__annotations__ = said

    @wraps(what)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (what if jaxtyping.config.jaxtyping_disable else checked)(*args, **kwargs)

    return call


def known(kind: Any, names: dict[str, Any]) -> Any:
    """An annotation without quotation marks; Any where its name is for type checkers only."""

    def one() -> None: ...

    one.__annotations__ = {"kind": kind}
    try:
        return get_type_hints(one, names, include_extras=True)["kind"]
    except NameError:
        return Any


def check() -> None:
    """Check what is imported from here on."""
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(
        ["labkit", "probes", "editing"],
        # An expression: an int is taken where a float is asked for, as people write `noise=3`.
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )
