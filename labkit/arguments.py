"""Arguments in another order, or of another kind, as one line in place of a traceback.

    @checked
    def known_cases(model: LabModel, n: int, *, seed: int = 0) -> list[Case]: ...

    known_cases(20, model)
    # WrongArgument: known_cases(model, n, ...): model is a model,
    # opened by labkit.load('pocket'), not the int 20

What a function promises in its annotations is compared with what it was given before it begins:
plain classes, text, numbers, and sequences and mappings of those. What an annotation cannot tell
(arrays and their shapes, functions, ranges) is left to the function.
"""

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

from labkit.errors import WrongArgument, one_line

P = ParamSpec("P")
R = TypeVar("R")

MAKERS = {
    "LabModel": "a model, opened by labkit.load('pocket')",
    "Fact": "a Fact, Fact.from_prompt(prompt, subject, object)",
    "Rewrite": "a Rewrite, Rewrite.from_prompt(prompt, subject, new, old)",
    "Case": "a Case, labkit.case_of(model, rewrite)",
    "WeightDelta": "a WeightDelta, ROME()(model, rewrite)",
    "Triggers": "Triggers, find_triggers(model)",
    "Contributions": "Contributions, contributions(model, prompt)",
    "Corpus": "a Corpus, Corpus(documents, source)",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "NoneType": "None",
    "Path": "a path",
}
"""What a kind is called, and how one is made."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that refuses arguments of another kind than it says, before it begins.

    Args:
        function: A function or method with annotated parameters.

    Returns:
        The function, which then also raises `WrongArgument`.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> R:
        try:
            bound = signature.bind(*given, **named)
        except TypeError as reason:
            raise WrongArgument(f"{_called(function, given)}: {reason}") from None
        kinds = _kinds(call)
        for name, value in _each(bound):
            if name in kinds and not _fits(value, kinds[name]):
                raise WrongArgument(
                    f"{_called(function, given)}: {name} is {_said(kinds[name])}, "
                    f"not {_shown(value)}{_hint(value, kinds[name])}"
                )
        return function(*given, **named)

    return call


def require_kind(name: str, value: object, kind: type) -> None:
    """Refuse one argument of another kind, in a function that says more of the others itself.

    Raises:
        WrongArgument: With what the argument is.
    """
    if not _fits(value, kind):
        raise WrongArgument(f"{name} is {_said(kind)}, not {_shown(value)}{_hint(value, kind)}")


def _each(bound: inspect.BoundArguments) -> Iterator[tuple[str, object]]:
    """Names and values of a call's arguments, those that may be repeated one by one."""
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((name, one) for one in value)
        else:
            yield name, value


@cache
def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """The kind of each parameter; of one that a call may repeat (`*deltas`), of each of them.

    A name for type checkers only stays as it is written.
    """
    inner = inspect.unwrap(function)
    found: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, str):
            try:
                kind = eval(kind, inner.__globals__)
            except NameError:
                kind = kind if kind.isidentifier() else Any
        if parameter.kind is not parameter.VAR_KEYWORD and kind is not parameter.empty:
            found[parameter.name] = kind
    return found


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a kind; True where that cannot be told."""
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(kind, str):  # a name for type checkers only; what else it is cannot be told
        return kind != "LabModel" or hasattr(value, "tokenizer")
    if kind is None or kind is Any:
        return kind is Any or value is None
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin in (Sequence, Iterable, list, tuple):
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            return False
        each = parts[0] if origin is not tuple or parts[1:] == (...,) else Any
        looked_at = value if isinstance(value, Sequence) else ()  # an iterator is read once
        if isinstance(each, type):  # one of each class tells of all: rows of ids are long
            looked_at = tuple({type(item): item for item in looked_at}.values())
        return all(_fits(item, each) for item in looked_at)
    if origin is Mapping or origin is dict:
        return isinstance(value, Mapping)
    if not isinstance(kind, type) or origin is not None or kind.__module__.startswith("jaxtyping"):
        return True
    return _is_a(value, kind)


def _is_a(value: object, kind: type) -> bool:
    """Whether a value is of a plain class, or stands in for one."""
    if kind.__name__ == "LabModel":
        return hasattr(value, "tokenizer")
    if kind is int:
        return hasattr(value, "__index__")
    if kind is float:
        return hasattr(value, "__float__")
    if getattr(kind, "_is_protocol", False):
        return not getattr(kind, "_is_runtime_protocol", False) or isinstance(value, kind)
    return isinstance(value, kind)


def _called(function: Callable[..., Any], given: tuple[object, ...]) -> str:
    """How the function is called: its name with its parameters, in order."""
    signature = inspect.signature(function)
    name = function.__name__
    if next(iter(signature.parameters), "") == "self" and given:
        owner = type(given[0]).__name__  # the class that was called, not the one that it inherits
        name = f"{owner}()" if name == "__call__" else f"{owner}.{name}"
    listed = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        needed = parameter.default is parameter.empty
        if not needed and parameter.kind is parameter.KEYWORD_ONLY:
            listed.append("...")
            break
        listed.append(str(parameter.replace(annotation=parameter.empty)))
    return f"{name}({', '.join(listed)})"


def _said(kind: Any) -> str:
    """What a kind is called."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        names = [_said(part) for part in parts if part is not types.NoneType]
        return " or ".join(dict.fromkeys([*names, *(["None"] if types.NoneType in parts else [])]))
    if origin in (Sequence, Iterable, list, tuple):
        return f"a list, each {_said(parts[0])}" if parts and parts[0] is not Any else "a list"
    if origin in (Mapping, dict):
        return "a dictionary"
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    if name.endswith("Options"):
        return f"{name}(option=value, ...)"
    return MAKERS.get(name, f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}")


def _hint(value: object, kind: Any) -> str:
    """What to write, where it is seen."""
    items = value if isinstance(value, list | tuple) else [value]
    held = {type(item).__name__ for item in items}
    if held == {"Case"} and "Rewrite" in str(kind):
        return ": a case's rewrite is case.rewrite"
    if isinstance(value, list) and value and all(_fits(item, kind) for item in value):
        return ": one call for each"
    if not isinstance(value, list | tuple) and _fits([value], kind):
        return ": a single one in brackets, [...]"
    return ""


def _shown(value: object) -> str:
    """What was given, in a few words."""
    name = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}, without brackets"
    if isinstance(value, str):
        return f"the text {one_line(value, 60)!r}"
    if isinstance(value, int | float):
        return f"the {name} {value}"
    if isinstance(value, list | tuple):
        held = sorted({type(item).__name__ for item in value})
        return f"a {name} of {len(value)}" + (f" ({', '.join(held[:3])})" if held else "")
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"
