"""Docstrings of methods that list every field, inherited ones too: what `ROME?` shows."""

import re


def with_inherited_fields(cls: type) -> str | None:
    """A class's docstring, the fields of its bases put after its own.

    Args:
        cls: A class whose docstring, like its bases', may have a section `Attributes:`.
    """
    own = cls.__doc__
    if own is None:
        return None
    named = set(re.findall(r"^        (\w+): ", own, re.MULTILINE))
    entries = []
    for base in cls.__mro__[1:]:
        for name, entry in _fields(base.__dict__.get("__doc__") or ""):
            if name not in named:
                named.add(name)
                entries.append(entry)
    if not entries:
        return own
    block = "    Inherited fields:\n" + "\n".join(entries) + "\n\n"
    place = re.search(r"^    (Shows|Does not show|References|Differs)", own, re.MULTILINE)
    at = place.start() if place else len(own.rstrip())
    return own[:at] + ("" if place else "\n\n") + block + own[at:]


def _fields(doc: str) -> list[tuple[str, str]]:
    """Names and entries of a docstring's own section of attributes."""
    section = re.search(r"^    Attributes:\n((?:        .*\n|\n(?=        ))+)", doc, re.MULTILINE)
    if section is None:
        return []
    parts = re.split(r"^(?=        \w+: )", section.group(1), flags=re.MULTILINE)
    return [(part.strip().split(":")[0], part.rstrip()) for part in parts if part.strip()]
