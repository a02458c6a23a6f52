"""The page of one method, put together from docstrings, command line, notebooks and tables."""

import csv
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from docstrings import with_code, with_links, with_references
from method_docs import Sections, entries, sections
from rooms import canonical

from editing import METHODS

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks" / "sources"


def page(title: str, method: Any, source: Path) -> Iterator[str]:
    """One method's page.

    Args:
        title: Its title.
        method: A row of the list of methods.
        source: The site's source folder.
    """
    value, module = opened(method.home)
    own, around = sections(value), sections(module)
    yield from (title, "=" * len(title), "")
    yield from rendered([own.summary], method.home)
    yield from places(method)
    yield from rendered(own.prose or [], method.home)
    whole = [around.summary, "", *around.prose]
    yield from under("What it computes", rendered(whole, method.home))
    for heading in ("Shows", "Does not show"):
        said = rendered(own.named.get(heading, []), method.home)
        yield from under(f"What it {heading[0].lower()}{heading[1:]}", said)
    yield from under("How to call it", calls(own, around, method))
    yield from under(
        "Fields" if inspect.isclass(value) else "Parameters", table(value, own, method)
    )
    for name, found in measured(source, names_of(value)):
        yield from under(f"Measured: {name}", found)
    if method.explained:
        further = sections(importlib.import_module(method.explained))
        body = list(rendered([further.summary, "", *further.prose], method.home))
        yield from under(f"More: {method.explained.rsplit('.', 1)[1].replace('_', ' ')}", body)
    yield from under("Differences from the paper", differences(own, around, method))
    yield from under("References", papers(own, around, method))


def under(heading: str, lines: Any) -> Iterator[str]:
    """Lines under a heading; nothing where there are none."""
    body = list(lines)
    if any(line.strip() for line in body):
        yield from (heading, "-" * len(heading), "", *body, "")


def opened(home: str) -> tuple[Any, Any]:
    """A method and its module."""
    place, name = home.rsplit(".", 1)
    module = importlib.import_module(place)
    return getattr(module, name), module


def rendered(lines: list[str], home: str) -> Iterator[str]:
    """Lines of a docstring as reStructuredText."""
    yield from (*with_links(with_code([*lines, ""]), home), "")


def room_of(home: str) -> str:
    """The room that documents a method."""
    place, name = home.rsplit(".", 1)
    return canonical()[place, name]


def names_of(value: Any) -> list[str]:
    """What the command line calls an editor; a method that is none goes by its own name."""
    made = {name: getattr(make, "func", make) for name, make in METHODS.items()}
    return [name for name, cls in made.items() if cls is value] or [value.__name__]


def places(method: Any) -> Iterator[str]:
    """Where else the site speaks of a method."""
    value, _ = opened(method.home)
    room = room_of(method.home)
    yield f":API: :py:obj:`{value.__name__} <{method.home}>`"
    yield f":Room: :doc:`{room} </reference/rooms/{room}>`"
    if value in {getattr(make, "func", make) for make in METHODS.values()}:
        said = ", ".join(f"``--method {name}``" for name in names_of(value))
        yield f":On the command line: {said}"
    shown = [f":doc:`{title} </gallery/{name}>`" for name, title in notebooks(value)]
    if shown:
        yield f":Notebooks: {'; '.join(shown)}"
    if method.claims:
        said = ", ".join(f":ref:`{claim} <{claim.lower()}>`" for claim in method.claims.split())
        yield f":Claims: {said}"
    yield ""


def notebooks(value: Any) -> Iterator[tuple[str, str]]:
    """Name and title of the notebooks that call a method, an editor by any of its names."""
    for path in sorted(NOTEBOOKS.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# # (.+)$", text, flags=re.M)
        code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        by_name = "METHODS[" in code and any(f'"{name}"' in code for name in names_of(value))
        if title and (by_name or re.search(rf"\b{value.__name__}\(", code)):
            yield path.stem, title[1]


def calls(own: Sections, around: Sections, method: Any) -> Iterator[str]:
    """The docstring's own example, and a command."""
    code = own.example or around.example
    if code:
        yield from (".. code-block:: python", "", *(f"   {line}" for line in code), "")
    if method.command:
        yield from (".. code-block:: sh", "", f"   {method.command}", "")
        yield "All options: :doc:`/reference/commands`."


def table(value: Any, own: Sections, method: Any) -> Iterator[str]:
    """Fields or parameters: their defaults, and what the docstring says of them."""
    said = [
        entry
        for name in ("Attributes", "Inherited fields", "Args")
        for entry in entries(own.named.get(name, []))
    ]
    if not said:
        return
    default = defaults(value)
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 18 18 64", "")
    yield from ("   * - Name", "     - Default", "     - Meaning, and the paper's value")
    for name, text in said:
        shown = f"``{default[name]}``" if name in default else ""
        yield from (f"   * - ``{name}``", f"     - {shown}")
        yield f"     - {''.join(with_links([text], method.home))}"


def defaults(value: Any) -> dict[str, str]:
    """By name, the default of a field or parameter, as it would be typed."""
    if is_dataclass(value):
        made = {
            field.name: field.default
            if field.default_factory is MISSING
            else field.default_factory()
            for field in fields(value)
        }
    else:
        function = value.__init__ if inspect.isclass(value) else inspect.unwrap(value)
        made = {
            name: MISSING if parameter.default is parameter.empty else parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
        }
    return {name: short(one) for name, one in made.items() if one is not MISSING}


def short(value: Any) -> str:
    """A default in few words: of another configuration, its class alone; a bound as a power."""
    if isinstance(value, int) and value >= 2**20 and value & (value - 1) == 0:
        return f"2**{value.bit_length() - 1}"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}()"
    return repr(value)


def measured(source: Path, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """By table of the measured page, the rows about a method."""
    for path in sorted((source / "measured").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        at = header.index("method") if "method" in header else None
        found = [row for row in rows if at is not None and set(row[at].split()) & set(names)]
        if found:
            yield path.stem.replace("_", " "), list(csv_table(header, found))


def csv_table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Rows as a table, columns without an entry left out."""
    used = [n for n in range(len(header)) if any(row[n] for row in rows)]
    yield from (".. list-table::", "   :header-rows: 1", "   :class: measured", "")
    for row in (header, *rows):
        for place, n in enumerate(used):
            shown = f"``{row[n]}``" if header[n] == "command" and row is not header else row[n]
            yield f"   {'* -' if place == 0 else '  -'} {shown}".rstrip()
    yield from ("", "How to read it, and all rows: :doc:`/measured`.")


def differences(own: Sections, around: Sections, method: Any) -> Iterator[str]:
    """What differs from the paper, in the words of the method, or of what it points to.

    That is its module, what explains it, or the class that it inherits from.
    """
    value, _ = opened(method.home)
    further = [importlib.import_module(method.explained)] if method.explained else []
    further += [base for base in getattr(value, "__mro__", ())[1:] if base is not object]
    parts = (own, around, *(sections(one) for one in further))
    told = (part.differs for part in parts if part.differs)
    said = "\n".join(next((lines for lines in told if not lines[0].startswith("see ")), []))
    yield from rendered((said[:1].upper() + said[1:]).split("\n"), method.home)


def papers(own: Sections, around: Sections, method: Any) -> Iterator[str]:
    """The references of a method, of its module, or of its room."""
    lines = references(method, own, around)
    if lines:
        listed = with_references(["References:", *(f"    {line}" for line in lines)])[1:]
        yield from with_links([line.removeprefix("    ") for line in listed], method.home)


def references(method: Any, own: Sections, around: Sections) -> list[str]:
    """The lines of the nearest section of references."""
    further = [name for name in (method.explained, room_of(method.home)) if name]
    parts = (own, around, *(sections(importlib.import_module(name)) for name in further))
    named = (part.named.get("References", []) for part in parts)
    return next((lines for lines in named if lines), [])


def first_paper(method: Any) -> str:
    """Authors and year of the first reference."""
    value, module = opened(method.home)
    text = " ".join(references(method, sections(value), sections(module)))
    found = re.match(r"(.+?) ?\(?(\d{4})\)?", " ".join(text.split()))
    return f"{found[1]} {found[2]}" if found else ""


def index_row(title: str, name: str, method: Any) -> Iterator[str]:
    """One method in the table of all."""
    value, _ = opened(method.home)
    room = room_of(method.home)
    shows = " ".join(sections(value).named.get("Shows", []))
    yield f"   * - :doc:`{title} <{name}>`"
    yield f"     - {''.join(with_links([shows], method.home))}"
    yield f"     - {first_paper(method)}"
    yield f"     - :doc:`{room} </reference/rooms/{room}>`"
