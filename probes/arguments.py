"""Numbers of a configuration that are refused before any work."""

import math
from operator import index

from labkit.errors import InputError


def require_number(name: str, value: object, *, least: int | None, none: str = "") -> None:
    """Refuse what is no whole number, or too small a one.

    Args:
        name: What it is called.
        value: What was given.
        least: The smallest number that will do; any with None.
        none: What None stands for, where it may be given.

    Raises:
        InputError: If so.
    """
    if value is None and none:
        return
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError as error:
        instead = f", or None for {none}" if none else ""
        raise InputError(f"{name} = {value!r}: choose a whole number{instead}") from error
    if least is not None and number < least:
        raise InputError(f"{name} = {number}: at least {least} is needed")


def require_finite(name: str, value: object, *, above: float | None = None) -> None:
    """Refuse what is no finite number, or one that is not above a bound.

    Args:
        name: What it is called.
        value: What was given.
        above: The bound; none with None.

    Raises:
        InputError: If so.
    """
    known = isinstance(value, int | float) and math.isfinite(value)
    if not known or (above is not None and not value > above):  # type: ignore[operator]
        wanted = "a finite number" if above is None else f"a number above {above:g}"
        raise InputError(f"{name} = {value!r}: choose {wanted}")
