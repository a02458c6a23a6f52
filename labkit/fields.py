"""Data files as checked records: every complaint says which file, record and field.

`records_of` opens a JSONL file or a JSON array; `Record` hands out its fields with their
types checked. What does not fit raises `MalformedRecord`; what cannot be opened raises
`MissingFile`. The readers of `labkit.facts.records` and `labkit.facts.datasets` are made of these.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from labkit.errors import InputError, MalformedRecord, MissingFile

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """One record of a file, with the words to say where it is.

    Attributes:
        where: File and record, for messages: "cases.jsonl, line 3".
        fields: The record itself.
    """

    where: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, where: str, value: Any) -> "Record":
        """A JSON value as a record.

        Raises:
            MalformedRecord: If it is no object.
        """
        if not isinstance(value, dict):
            raise MalformedRecord(f"{where}: should be a JSON object, not {value!r:.60}")
        return cls(where, value)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.fields.get(name) is not None

    def get(self, name: str, kind: type[T]) -> T:
        """A field of a certain type.

        Raises:
            MalformedRecord: If it is missing or of another type.
        """
        if name not in self.fields:
            raise self.malformed(f"has no field {name!r}; it has {', '.join(self.fields)}")
        value = self.fields[name]
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise self.malformed(f"field {name!r} should be {_KINDS[kind]}, not {value!r:.60}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts."""
        values = self.get(name, list)
        for place, value in enumerate(values):
            if not isinstance(value, str):
                raise self.malformed(f"field {name!r}[{place}] should be a text, not {value!r:.60}")
        return tuple(values)

    def part(self, name: str) -> "Record":
        """A field that is a record of its own."""
        return Record(f"{self.where}, {name}", self.get(name, dict))

    def parts(self, name: str) -> list["Record"]:
        """A field that is a list of records."""
        values = self.get(name, list)
        for value in values:
            if not isinstance(value, dict):
                raise self.malformed(f"field {name!r} should hold objects, not {value!r:.60}")
        return [Record(f"{self.where}, {name}[{i}]", value) for i, value in enumerate(values)]

    def only(self, allowed: Iterable[str]) -> None:
        """Raise at a field that the format does not have: a slip would go unseen."""
        for name in self.fields:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(allowed)}"
                raise self.malformed(f"has an unknown field {name!r}; {hint}")

    def make(self, builder: Callable[["Record"], T]) -> T:
        """What a builder makes of the record; what it refuses is a malformed record."""
        try:
            return builder(self)
        except MalformedRecord:
            raise
        except InputError as error:
            raise self.malformed(str(error)) from error

    def malformed(self, what: str) -> MalformedRecord:
        """The error that says what is wrong with this record, and where it is."""
        return MalformedRecord(f"{self.where}: {what}")


_KINDS = {str: "a text", list: "a list", dict: "an object", int: "a whole number", bool: "a flag"}


def records_of(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a JSONL file, of a JSON array, or of objects written over several lines.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If it is not JSON, holds no record, or one that is no object.
    """
    text = text_of(path)
    if text.lstrip().startswith("["):
        rows = [(f"record {i}", row) for i, row in enumerate(parse(text, str(path)))]
    elif (whole := _objects(text)) is not None:
        rows = [(f"record {i}", row) for i, row in enumerate(whole)]
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [
            (f"line {n}", parse(line, f"{path}, line {n}")) for n, line in lines if line.strip()
        ]
    if not rows:
        raise MalformedRecord(f"{path}: the file holds no record")
    return [Record.of(f"{path}, {name}", row) for name, row in rows]


def _objects(text: str) -> list[Any] | None:
    """The values of a text that spreads them over several lines; None if it does not."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    try:
        json.loads(first)
        return None
    except (json.JSONDecodeError, RecursionError):
        pass
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        try:
            value, stop = decoder.raw_decode(rest)
        except (json.JSONDecodeError, RecursionError):
            return None
        found.append(value)
        rest = rest[stop:].lstrip()
    return found


def text_of(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8.

    Raises:
        MissingFile: If it does not exist or cannot be read.
        MalformedRecord: If it is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedRecord(f"{path}: not UTF-8 text at byte {error.start}") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise MissingFile(f"cannot read {path}: {why}") from error


def parse(text: str, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        MalformedRecord: If it is not JSON; with the place.
    """
    try:
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        raise MalformedRecord(f"{where}: half of a surrogate pair is not valid text") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MalformedRecord(f"{where}: not JSON: {error.msg} ({place})") from error
    except RecursionError as error:
        raise MalformedRecord(f"{where}: cannot be read as JSON: nested too deeply") from error
