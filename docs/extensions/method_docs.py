"""A docstring taken apart: summary, prose, example, and its named sections."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from docstrings import is_python

KNOWN = (
    "Attributes", "Inherited fields", "Args", "Returns", "Yields", "Raises",
    "Shows", "Does not show", "References",
)  # fmt: skip


@dataclass(frozen=True)
class Sections:
    """The parts of a docstring.

    Attributes:
        summary: Its first paragraph, in one line.
        prose: The lines between summary and sections, without the example.
        example: The first block that is Python, without its indentation.
        named: By heading, the lines of a section, without their indentation.
        differs: What differs from the paper.
    """

    summary: str
    prose: list[str]
    example: list[str]
    named: dict[str, list[str]]
    differs: list[str]


def sections(value: Any) -> Sections:
    """The parts of an object's docstring."""
    lines = inspect.cleandoc(value.__doc__ or "").splitlines()
    end = next((n for n, line in enumerate(lines) if not line.strip()), len(lines))
    summary, lines = " ".join(lines[:end]), lines[end:]
    named: dict[str, list[str]] = {}
    prose: list[str] = []
    differs: list[str] = []
    into = prose
    for line in lines:
        heading = re.fullmatch(r"(\w[\w ]*):", line)
        if heading and heading[1] in KNOWN:
            into = named.setdefault(heading[1], [])
        elif re.match(r"Differs from the papers?", line):
            into = differs
            into.append(line.partition(":")[2].strip())
        else:
            if line[:1].strip() and into is not prose and into is not differs:
                into = prose  # a section ends where its indentation does
            into.append(line)
    code, rest = example(prose)
    return Sections(
        summary=summary,
        prose=stripped([line for line in rest if not line.startswith("Besides the fields of")]),
        example=code,
        named={name: stripped(dedented(found)) for name, found in named.items()},
        differs=stripped(dedented(differs)),
    )


def dedented(lines: list[str]) -> list[str]:
    """Lines without the indentation of a section, which its first line may lack."""
    return [line.removeprefix("    ") for line in lines]


def stripped(lines: list[str]) -> list[str]:
    """Lines without empty ones at either end."""
    text = "\n".join(lines).strip("\n")
    return text.split("\n") if text.strip() else []


def example(lines: list[str]) -> tuple[list[str], list[str]]:
    """The first block that is Python, and the lines without it."""
    for start, line in enumerate(lines):
        if not line.startswith("    ") or lines[start - 1].strip():
            continue
        inside = takewhile(lambda one: one.startswith("    ") or not one.strip(), lines[start:])
        length = len(list(inside))
        ends = [n for n in range(1, length + 1) if n == length or not lines[start + n].strip()]
        for n in reversed(ends):  # the longest piece that is Python; other blocks may follow it
            code = stripped(dedented(lines[start : start + n]))
            if is_python("\n".join(code)) and re.search(r"\w\(", " ".join(code)):
                return code, lines[:start] + lines[start + n :]
    return [], lines


def entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each entry of a section of fields."""
    name, said = "", []
    for line in lines:
        start = re.match(r"(\w+): ", line)
        if start:
            if name:
                yield name, " ".join(said)
            name, said = start[1], [line[start.end() :].strip()]
        elif line.strip():
            said.append(line.strip())
    if name:
        yield name, " ".join(said)
