"""Tasks from published files: each reader takes a path, and checks the whole file first.

    read_pairs(path)       lists of {"input", "output"}: the function-vector tasks
    read_relation_tasks    relations of the LRE collection
    read_csv(path)         `text,category` rows, as in BANKING77
    read_intents(path)     splits of [text, intent], as in CLINC150
    read_analogies(path)   sections of word pairs, as in Google's analogies
    read_lines(path)       one file per label, one text per line, zipped or in a folder

    read_tasks(path)       whichever of these fits the file's name and content

None of the files ships with the package.

References:
    Todd et al. (2024), Function Vectors in Large Language Models. Hernandez et al. (2024),
    Linearity of Relation Decoding in Transformer LMs. Casanueva et al. (2020), Efficient Intent
    Detection. Larson et al. (2019), An Evaluation Dataset for Intent Classification. Mikolov et
    al. (2013), Efficient Estimation of Word Representations. Pang and Lee (2004), A Sentimental
    Education; (2005), Seeing Stars (subjectivity, sentence polarity).
"""

import csv
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from labkit.errors import InputError, MalformedRecord, MissingFile
from labkit.facts.datasets import read_relations
from labkit.fields import Record, parse, records_of, text_of
from labkit.icl.tasks.items import Item, Task, Template, pairs_task

TEXTS = Template(demonstration="Text: {input}\nIntent: {label}")
SENTENCES = Template(demonstration="Sentence: {input}\nKind: {label}")

LABELS = {"neg": "negative", "pos": "positive", "plot": "objective", "quote": "subjective"}
"""What stands between dots, dashes or underscores in a file's name, and the label it stands for."""

PathLike = str | os.PathLike[str]


def read_pairs(path: PathLike) -> list[Task]:
    """Function-vector tasks: a JSON list of `input` and `output`, or a folder of such files.

    Of an input that is there several times the first counts. A task is named after its file.

    Raises:
        MissingFile: If the path cannot be read.
        MalformedRecord: If a record does not fit, or a folder holds no JSON file.
    """
    path = Path(path)
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise MalformedRecord(f"{path}: the folder holds no JSON file")
    return [
        _task(
            file.stem,
            (
                (record.get("input", str).strip(), record.get("output", str).strip())
                for record in records_of(file)
            ),
            source=f"file {file.name}",
        )
        for file in files
    ]


def read_relation_tasks(path: PathLike) -> list[Task]:
    """Tasks from relations in LRE's format: a file, or a folder of them.

    Relations with a single object for all subjects are left out.

    Raises:
        MissingFile: If the path cannot be read.
        MalformedRecord: If a file does not fit, or a folder holds no JSON file.
    """
    return [
        pairs_task(relation.id, facts, source=f"LRE: {relation.description}")
        for relation, facts in read_relations(path)
        if len({fact.object for fact in facts}) > 1
    ]


def read_csv(path: PathLike, *, text: str = "text", label: str = "category") -> Task:
    """A table of texts and their labels, with a header; `_` in a label is read as a space.

    Args:
        path: The file.
        text: Name of the column of inputs.
        label: Name of the column of labels.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a column is missing, or a row has an empty field.
    """
    rows = list(csv.DictReader(io.StringIO(text_of(path)), strict=True))
    for place, row in enumerate(rows, start=1):
        for name in (text, label):
            if not (row.get(name) or "").strip():
                raise MalformedRecord(f"{path}, row {place}: no {name!r} in {list(row)}")
    pairs = ((row[text].strip(), _words(row[label])) for row in rows)
    return _task(Path(path).stem, pairs, source=f"file {Path(path).name}", template=TEXTS)


def read_intents(path: PathLike, *, split: str = "train") -> Task:
    """One split of a JSON object of splits, each a list of `[text, intent]`.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If it has no such split, or an entry is no pair of texts.
    """
    entries = Record.of(str(path), parse(text_of(path), str(path))).get(split, list)
    for place, entry in enumerate(entries):
        if not (
            isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry)
        ):
            raise MalformedRecord(f"{path}, {split}[{place}]: should be [text, intent]")
    pairs = ((text.strip(), _words(intent)) for text, intent in entries)
    return _task(split, pairs, source=f"file {Path(path).name}, {split}", template=TEXTS)


def read_analogies(path: PathLike) -> list[Task]:
    """Tasks from sections (`: name`) of lines of four words, a pair and another pair.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a line has no section above it, or not four words.
    """
    sections: dict[str, list[tuple[str, str]]] = {}
    name = None
    for place, line in enumerate(text_of(path).splitlines(), start=1):
        words = line.split()
        if words[:1] == [":"]:
            name = " ".join(words[1:])
            sections[name] = []
        elif words:
            if name is None or len(words) != 4:
                raise MalformedRecord(
                    f"{path}, line {place}: should be four words below ': section'"
                )
            sections[name] += [(words[0], words[1]), (words[2], words[3])]
    if not sections:
        raise MalformedRecord(f"{path}: the file holds no section")
    return [
        _task(name, pairs, source=f"file {Path(path).name}") for name, pairs in sections.items()
    ]


def read_lines(path: PathLike, *, labels: Mapping[str, str] | None = None) -> Task:
    """Texts, one per line, in one file for each label: a zip file or a folder of them.

    As the sentence polarity (`rt-polarity.neg`, `rt-polarity.pos`) and subjectivity
    (`plot...`, `quote...`) sets of Pang and Lee come. Files of other names are left alone.

    Args:
        path: The zip file, or the folder.
        labels: By a part of a file's name, its label; `LABELS` by default.

    Raises:
        MissingFile: If the path cannot be read.
        MalformedRecord: If it is no zip file, a member cannot be unpacked or is not UTF-8, or
            the names stand for fewer than two labels.
    """
    path, labels = Path(path), LABELS if labels is None else labels
    pairs: list[tuple[str, str]] = []
    for name, content in _members(path, lambda name: _label(name, labels) is not None):
        try:
            lines = content.decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise MalformedRecord(
                f"{path}, {name}: not UTF-8 text at byte {error.start}"
            ) from error
        label = str(_label(name, labels))
        pairs += [(line.strip(), label) for line in lines if line.strip()]
    if len({label for _, label in pairs}) < 2:
        raise MalformedRecord(
            f"{path}: no two files whose names say what their lines are, such as "
            f"{', '.join(labels)}"
        )
    return _task(path.stem, pairs, source=f"file {path.name}", template=SENTENCES)


def read_tasks(path: PathLike) -> list[Task]:
    """The tasks of a file, whichever of this module's formats it is in.

    By the name CSV, zipped lines or analogies (`.txt`); else JSON: intents, a relation of the LRE
    collection, or lists of pairs.

    Raises:
        MissingFile: If the path cannot be read.
        MalformedRecord: If it does not fit what its name and first character promise.
    """
    path = Path(path)
    readers: dict[str, Callable[[PathLike], Task]] = {".csv": read_csv, ".zip": read_lines}
    if path.suffix in readers:
        return [readers[path.suffix](path)]
    if path.suffix == ".txt":
        return read_analogies(path)
    if path.is_file() and (text := text_of(path)).lstrip().startswith("{"):
        if re.search(r"\"train\"\s*:\s*\[", text):
            return [read_intents(path)]
        if re.search(r"\"samples\"\s*:\s*\[", text):
            return read_relation_tasks(path)
    return read_pairs(path)


def _members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a folder or a zip file that are asked for, by name."""
    try:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.is_file() and wanted(file.name):
                    yield file.name, file.read_bytes()
            return
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.startswith("__MACOSX/") and wanted(Path(name).name):
                    yield Path(name).name, archive.read(name)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise MalformedRecord(f"{path}: not a zip file that can be unpacked: {error}") from error
    except OSError as error:
        raise MissingFile(f"cannot read {path}: {error.strerror or error}") from error


def _label(name: str, labels: Mapping[str, str]) -> str | None:
    """The label that a file's name stands for; none if it says nothing."""
    parts = re.split(r"[._-]", name)
    return next((label for part, label in labels.items() if part in parts), None)


def _task(
    name: str, pairs: Iterable[tuple[str, str]], *, source: str, template: Template | None = None
) -> Task:
    """A task of pairs, the first of each input; what it refuses is a malformed file."""
    labels: dict[str, str] = {}
    for text, label in pairs:
        labels.setdefault(text, label)
    try:
        items = tuple(Item(input=text, label=label) for text, label in labels.items())
        return Task(name=name, items=items, source=source, template=template or Template())
    except MalformedRecord:
        raise
    except InputError as error:
        raise MalformedRecord(f"{name} ({source}): {error}") from error


def _words(name: str) -> str:
    """A label in words: `card_arrival` as "card arrival"."""
    return name.replace("_", " ").strip()
