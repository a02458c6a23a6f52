"""One page per room: what its door hands on, with signatures and docstrings.

A name that several doors hand on is documented once, in the room nearest to its home; the others
link there. What a public class inherits from a class that no door hands on is documented beside
it. Pages are written before every build, and are not kept.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from sphinx.application import Sphinx
from written import write

from labkit.doors import homes_in

PACKAGES = ("labkit", "editing", "probes")
COMMANDS = "labkit.cli"
"""Called by a shell, not by Python; its commands have a page of their own."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


@cache
def rooms() -> dict[str, dict[str, str]]:
    """Of every package with a door, or that says what is public, the home of each such name."""
    found: dict[str, dict[str, str]] = {}
    for name in PACKAGES:
        package = importlib.import_module(name)
        inner = pkgutil.walk_packages(package.__path__, f"{name}.")
        for one in (name, *(module.name for module in inner if module.ispkg)):
            module = importlib.import_module(one)
            source = Path(module.__file__ or "").read_text(encoding="utf-8")
            names = [] if one == COMMANDS else getattr(module, "__all__", [])
            homes = homes_in(source) or {each: getattr(module, each).__module__ for each in names}
            if homes:
                found[one] = homes
    return found


@cache
def canonical() -> dict[tuple[str, str], str]:
    """The room that documents a name: (home, name) to the room nearest to the home."""
    nearest: dict[tuple[str, str], str] = {}
    for room, homes in rooms().items():
        for name, home in homes.items():
            before = nearest.get((home, name), "")
            if not before or shared(room, home) > shared(before, home):
                nearest[home, name] = room
    return nearest


def shared(room: str, home: str) -> int:
    """How many steps a room and a home have in common, a room that is not above it less."""
    steps = zip(room.split("."), home.split("."), strict=False)
    common = next((n for n, (a, b) in enumerate(steps) if a != b), min(room.count("."), 9) + 1)
    return common * 10 - (room.count(".") + 1 - common)


def public(room: str) -> list[tuple[str, str]]:
    """Home and name of what a room documents itself."""
    return [(home, name) for name, home in rooms()[room].items() if canonical()[home, name] == room]


@cache
def beside() -> dict[str, list[tuple[str, str]]]:
    """By room, classes that no door hands on and that what is handed on speaks of.

    They are what public classes inherit from, and what annotations of public functions, fields
    and methods name.
    """
    known = dict(canonical())
    found: dict[str, list[tuple[str, str]]] = {room: [] for room in rooms()}
    waiting = list(known)
    while waiting:
        home, name = waiting.pop(0)
        for cls in spoken_of(getattr(importlib.import_module(home), name)):
            place = (cls.__module__, cls.__name__)
            if place not in known and not cls.__name__.startswith("_"):
                known[place] = max(rooms(), key=lambda room: shared(room, place[0]))
                found[known[place]].append(place)
                waiting.append(place)
    return found


def spoken_of(value: Any) -> Iterator[type]:
    """The project's classes in the bases and annotations of a class or function."""
    members = [value]
    if inspect.isclass(value):
        yield from (base for base in value.__mro__[1:] if ours(base))
        members += [member for name, member in vars(value).items() if not name.startswith("_")]
    for member in members:
        for inner in ("fget", "func", "__func__"):  # of properties and class methods
            member = getattr(member, inner, member)
        if not (inspect.isclass(member) or inspect.isroutine(member)):
            continue
        for hint in get_type_hints(member, localns=for_checkers(member.__module__)).values():
            yield from classes_in(hint)


@cache
def for_checkers(module: str) -> dict[str, Any]:
    """What a module imports for type checkers only."""
    source = Path(importlib.import_module(module).__file__ or "").read_text(encoding="utf-8")
    return {
        name: getattr(importlib.import_module(home), name)
        for name, home in homes_in(source).items()
    }


def classes_in(hint: Any) -> Iterator[type]:
    """The project's classes that an annotation names, at any depth."""
    if inspect.isclass(hint) and not get_args(hint):
        if ours(hint):
            yield hint
        return
    for inner in get_args(hint):
        yield from classes_in(inner)


def ours(value: type) -> bool:
    """Whether a class is written in this project."""
    return value.__module__.split(".")[0] in PACKAGES


@cache
def documented() -> dict[str, str]:
    """Everything with an entry: its full name, and the page."""
    found: dict[str, str] = {}
    for room in rooms():
        for home, name in (*public(room), *beside()[room]):
            found.setdefault(f"{home}.{name}", room)
    return found


@cache
def by_last_name() -> dict[str, list[str]]:
    """Full names by their last part."""
    found: dict[str, list[str]] = {}
    for full in documented():
        found.setdefault(full.rsplit(".", 1)[1], []).append(full)
    return found


def found_in(word: str, asking: str) -> str | None:
    """What a word of a docstring names: a public object, one of its methods, or a room."""
    if word in documented():
        return word
    if word in rooms():
        return word
    head, _, member = word.rpartition(".")
    if not head:
        candidates = by_last_name().get(word, [])
        return candidates[0] if len(candidates) == 1 and candidates[0] != asking else None
    owner = found_in(head, asking)
    if owner is None or owner in rooms():
        inside = rooms().get(head, {})
        return f"{inside[member]}.{member}" if member in inside else None
    value: Any = getattr(importlib.import_module(owner.rsplit(".", 1)[0]), owner.rsplit(".", 1)[1])
    shown = inspect.isclass(value) and inspect.isroutine(vars(value).get(member))
    return f"{owner}.{member}" if shown else None


def pages(app: Sphinx) -> None:
    """One file per room, and a list of them."""
    folder = Path(app.srcdir) / "reference" / "rooms"
    keep = {write(folder / f"{room}.rst", "\n".join(page(room))) for room in rooms()}
    keep.add(write(folder / "index.rst", "\n".join(index())))
    for stale in set(folder.glob("*.rst")) - keep:
        stale.unlink()


def index() -> Iterator[str]:
    """The list of rooms, each with the first line of its docstring."""
    yield from ("Rooms", "=====", "")
    yield from ("A room is a package with a door: what stands in it is imported from it, as in")
    yield from ("``from labkit.locate import CausalTrace``.", "", ".. toctree::", "   :hidden:", "")
    yield from (f"   {room} <{room}>" for room in rooms())
    yield ""
    for room in rooms():
        said = (importlib.import_module(room).__doc__ or "").strip().split("\n\n")[0]
        yield from (f":doc:`{room} <{room}>`", f"   {' '.join(said.split())}", "")


def page(room: str) -> Iterator[str]:
    """One room's page."""
    module = importlib.import_module(room)
    yield from (room, "=" * len(room), "", f".. automodule:: {room}", "   :no-members:", "")
    own_names = public(room)
    elsewhere = [
        (home, name) for name, home in rooms()[room].items() if (home, name) not in own_names
    ]
    own = sorted(own_names, key=lambda place: kind(*place))
    heading = ""
    for home, name in own:
        if kind(home, name)[0] != heading:
            heading = kind(home, name)[0]
            yield from (heading, "-" * len(heading), "")
        yield from entry(home, name, module)
    if beside()[room]:
        yield from ("Beside them", "-----------", "")
        for home, name in beside()[room]:
            yield from entry(home, name, module)
    if elsewhere:
        yield from ("Handed on", "---------", "")
        for home, name in elsewhere:
            yield f"- :py:obj:`{name} <{home}.{name}>`"
        yield ""


def kind(home: str, name: str) -> tuple[str, str]:
    """The heading that a name stands under."""
    value = getattr(importlib.import_module(home), name)
    if inspect.isclass(value):
        return ("Errors" if issubclass(value, BaseException) else "Classes"), name
    return (
        "Functions"
        if callable(value) and hasattr(value, "__doc__") and inspect.isroutine(value)
        else "Values"
    ), name


def entry(home: str, name: str, module: ModuleType) -> Iterator[str]:
    """The directive that documents a name."""
    value = getattr(importlib.import_module(home), name)
    if inspect.isclass(value):
        yield from (f".. autoclass:: {home}.{name}", "   :members:", "   :show-inheritance:", "")
    elif inspect.isroutine(value):
        yield from (f".. autofunction:: {home}.{name}", "")
    else:
        yield from (f".. autodata:: {home}.{name}", "   :no-value:", "")
