"""Docstrings as the site shows them: plain text with code in backticks becomes reStructuredText.

Docstrings are written to be read in a terminal. An indented block after an empty line is code,
a word in single backticks is code too; where it names something public, it becomes a link.
"""

import re
import textwrap
from itertools import takewhile
from typing import Any

from rooms import found_in
from sphinx.application import Sphinx

MARKS = re.compile(r"\||(?<=[\s\d(])\*(?=[\s\d)])|\*(?=\w+\b[^*]*$)|(?<=\w)_(?=[\s,.;:)]|$)")
"""Signs that mean something to reStructuredText and nothing in a docstring."""
BACKTICKS = re.compile(r"(?<![`:\w])`([^`\n]+)`(?!`)")


def setup(app: Sphinx) -> dict[str, Any]:
    """Rewrite docstrings before their sections are read."""
    app.connect("autodoc-process-docstring", rewritten, priority=100)
    app.connect("autodoc-process-docstring", shapes, priority=900)  # after the sections
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def rewritten(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The lines of a docstring, rewritten in place."""
    lines[:] = with_links(with_code(with_references(lines)), name)


def shapes(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Shapes in the types of fields, whose stars are not emphasis."""
    lines[:] = [
        line.replace("*", r"\*") if line.lstrip().startswith(":vartype") else line for line in lines
    ]


def with_references(lines: list[str]) -> list[str]:
    """The papers of a `References:` section, each an item of a list."""
    done: list[str] = []
    section = base = None
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if section is not None and line.strip() and depth <= section:
            section = base = None
        if section is not None and line.strip():
            base = depth if base is None else base
            starts = depth == base and done[-1].rstrip().endswith((".", ":"))
            line = " " * base + ("- " if starts else "  ") + line.strip()
        if line.strip() == "References:":
            section = depth
        done.append(line)
    return done


def with_code(lines: list[str]) -> list[str]:
    """Blocks that are indented after an empty line, marked as code."""
    done: list[str] = []
    inside: int | None = None  # the indentation of the text around a block of code
    around = 0
    for number, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if not line.strip():
            done.append(line)
            continue
        if inside is not None and depth <= inside:
            inside = None
        starts = number > 0 and not lines[number - 1].strip() and depth > around
        if inside is None and starts and number > 1:
            inside = around
            language = "python" if is_python(block(lines[number:], around)) else "text"
            done += [" " * around + f".. code-block:: {language}", ""]
        done.append(line)
        if inside is None:
            around = depth
    return done


def block(lines: list[str], around: int) -> str:
    """The lines of a block of code, up to what is indented as the text around it."""
    inside = [line for line in takewhile(lambda one: not one.strip() or deeper(one, around), lines)]
    return textwrap.dedent("\n".join(inside))


def deeper(line: str, around: int) -> bool:
    """Whether a line is indented further than the text around it."""
    return len(line) - len(line.lstrip()) > around


def is_python(code: str) -> bool:
    """Whether a block is a piece of Python."""
    try:
        compile(code, "docstring", "exec")
    except SyntaxError:
        return False
    return True


def with_links(lines: list[str], name: str) -> list[str]:
    """Words in backticks: links where they name something public, else code."""
    code: int | None = None
    done = []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if code is not None and line.strip() and depth <= code:
            code = None
        if code is None:
            parts = BACKTICKS.split(line)
            parts[::2] = [MARKS.sub(r"\\\g<0>", part) for part in parts[::2]]
            parts[1::2] = [linked(part, name) for part in parts[1::2]]
            line = "".join(parts).removesuffix("\\ ")
        if line.strip().startswith(".. code-block::"):
            code = depth
        done.append(line)
    return done


def linked(word: str, name: str) -> str:
    """One word in backticks."""
    target = found_in(word.removesuffix("()"), name)
    return f"``{word}``\\ " if target is None else f":py:obj:`{word} <{target}>`\\ "
