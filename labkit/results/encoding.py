"""The lab's values as JSON and back: estimates, arrays, tensors, tables, dataclasses."""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch

from labkit.errors import InputError


def to_json(value: object) -> Any:
    """Any value of the lab as plain JSON types.

    Estimates and other dataclasses become objects, arrays and tensors nested lists, paths
    and dtypes strings, tables their columns and dtypes. Numbers that are not finite become
    the strings `NaN`, `Infinity`, `-Infinity`, which `float()` reads back: JSON has no such
    numbers, and null would hide which one it was.

    Raises:
        InputError: If the value, or one inside it, cannot be written as JSON.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return float(value) if math.isfinite(value) else _NOT_FINITE[str(float(value))]
        case torch.Tensor():
            return to_json(value.detach().cpu().tolist())
        case np.ndarray() | np.generic():
            return to_json(value.tolist())
        case pd.DataFrame():
            columns = {name: to_json(value[name].tolist()) for name in value.columns}
            return {"columns": columns, "dtypes": {n: str(value[n].dtype) for n in value}}
        case Path() | torch.dtype() | torch.device():
            return str(value)
        case Mapping():
            return {str(key): to_json(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(to_json(item) for item in value)
        case list() | tuple():
            return [to_json(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    raise InputError(f"a {type(value).__name__} cannot be written as JSON: {value!r:.80}")


def dumps(value: object, *, indent: int | None = 2) -> str:
    """`to_json` as text, readable by people; one line with `indent=None`."""
    return json.dumps(to_json(value), indent=indent, ensure_ascii=False, allow_nan=False)


def from_json(value: Any, hint: Any) -> Any:
    """Inverse of `to_json`, led by the type annotation of what was written.

    Args:
        value: What `to_json` gave.
        hint: The annotation: a plain type, a dataclass, `DataFrame`, an array of floats as
            jaxtyping writes it, or a tuple, list, dict or optional of those. Under any other
            annotation the value stays as it is.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return from_json(value, next(arg for arg in args if arg is not type(None)))
    if origin in (tuple, list):
        # tuple[X, ...] and list[X] have one item type; tuple[X, Y] has one per place.
        same = origin is list or args[1:] == (...,)
        hints = [args[0]] * len(value) if same else args
        return origin(from_json(item, h) for item, h in zip(value, hints, strict=True))
    if origin in (dict, Mapping):
        return {from_json(k, args[0]): from_json(item, args[1]) for k, item in value.items()}
    if hint in (int, float, Path):
        return hint(value)
    if getattr(hint, "array_type", None) is np.ndarray and "float64" in hint.dtypes:
        return np.asarray(value, dtype=float)
    if hint is pd.DataFrame:
        return pd.DataFrame(value["columns"]).astype(value["dtypes"])
    if isinstance(hint, type) and is_dataclass(hint):
        of_field = get_type_hints(hint)
        return hint(**{name: from_json(item, of_field[name]) for name, item in value.items()})
    return value


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
