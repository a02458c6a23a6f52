"""Sentences with gold annotation: what a treebank says about every word, and where it stands.

`read_treebank` reads CoNLL-U, plain or gzipped. A sentence's text is its `# text` line, and
every word knows its characters there, so that any tokenizer can be aligned with it. Words of a
multiword token ("don't" as "do" and "n't") share out its characters where they spell it, and
have none where they do not (French "du" as "de" and "le"). Empty nodes, which stand for what
was not said, are passed over.

References:
    Nivre et al. (2020), Universal Dependencies v2: An Evergrowing Multilingual Treebank
    Collection. CoNLL-U: universaldependencies.org/format.html.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from conllu.exceptions import ParseException
from conllu.parser import (
    parse_dict_value,
    parse_id_value,
    parse_int_value,
    parse_line,
    parse_nullable_value,
)

from labkit.errors import InputError, MalformedRecord, MissingFile

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

_PARSERS = {
    "id": lambda line, place: parse_id_value(line[place]),
    "xpos": lambda line, place: parse_nullable_value(line[place]),
    "feats": lambda line, place: parse_dict_value(line[place]) or {},
    "head": lambda line, place: parse_int_value(line[place]),
}


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word and what is known about it.

    Attributes:
        form: As it stands in the text.
        lemma: Its dictionary form.
        upos: Universal part of speech.
        xpos: The treebank's own part of speech; None where it gives none.
        feats: Morphological features, such as `{"Number": "Plur"}`.
        head: Number of its head, counted from 1; 0 for the root.
        deprel: Its relation to the head.
        span: Its characters in the sentence's text, start and end; None if it has none.
        role: Its semantic role, where the source tells.
    """

    form: str
    lemma: str
    upos: str
    xpos: str | None
    feats: Mapping[str, str | None]
    head: int
    deprel: str
    span: tuple[int, int] | None
    role: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A text and its words.

    Attributes:
        id: Its name in its source.
        text: The text.
        words: The words, in order; a word's number is its place counted from 1.
        document: Its document, where the source tells.

    Raises:
        MalformedRecord: If the heads make no tree with one root.
    """

    id: str
    text: str
    words: tuple[Word, ...]
    document: str | None = None
    depths: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Number of arcs between each word and the root; 0 for the root."""

    def __post_init__(self) -> None:
        """Refuse heads that form no tree."""
        roots = [number for number, word in enumerate(self.words, 1) if word.head == 0]
        if len(roots) != 1:
            raise MalformedRecord(f"sentence {self.id}: {len(roots)} roots, there should be one")
        object.__setattr__(self, "depths", tuple(map(self._depth, range(1, len(self.words) + 1))))

    def _depth(self, number: int) -> int:
        """Arcs up to the root."""
        depth, at = 0, number
        while (head := self.words[at - 1].head) != 0:
            if not 1 <= head <= len(self.words):
                raise MalformedRecord(f"sentence {self.id}: word {at} has the head {head}")
            depth, at = depth + 1, head
            if depth > len(self.words):
                raise MalformedRecord(f"sentence {self.id}: the heads of word {number} go round")
        return depth


def read_treebank(path: str | os.PathLike[str]) -> list[Sentence]:
    """The sentences of a CoNLL-U file, plain or gzipped.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If it is not CoNLL-U; with the line and the reason.
    """
    path = Path(path)
    document: str | None = None
    sentences = []
    for block in _blocks(_lines(path)):
        begins = [line for _, line in block if re.match(r"#\s*newdoc\b", line)]
        if begins:
            named = begins[0].partition("=")[2].strip()
            document = named or f"document at line {block[0][0]}"
        sentences.append(replace(_sentence(path, block), document=document))
    if not sentences:
        raise MalformedRecord(f"{path}: the file holds no sentence")
    return sentences


def in_context(sentences: Sequence[Sentence], n_before: int) -> list[Sentence]:
    """Sentences in the order of their documents, each after those that stand before it there.

    A model reads a word better where it has read what came before. The words that are asked
    about stay the same.

    Args:
        sentences: The sentences, in the order in which they stand in their documents.
        n_before: How many sentences of the same document stand in front, at most.

    Raises:
        InputError: If the number is negative, or no sentence says which document it is of.
    """
    if n_before < 0:
        raise InputError(f"{n_before} sentences in front: choose 0 or more")
    if n_before and all(sentence.document is None for sentence in sentences):
        raise InputError("the treebank marks no documents (# newdoc): its sentences stand alone")
    found = []
    for place, sentence in enumerate(sentences):
        before = [
            other.text
            for other in sentences[max(0, place - n_before) : place]
            if other.document == sentence.document is not None
        ]
        front = "".join(f"{text} " for text in before)
        words = tuple(
            word
            if word.span is None
            else replace(word, span=(word.span[0] + len(front), word.span[1] + len(front)))
            for word in sentence.words
        )
        found.append(replace(sentence, text=front + sentence.text, words=words))
    return found


Line = tuple[int, str]


def _lines(path: Path) -> list[Line]:
    """The numbered lines of a file, plain or gzipped."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedRecord(f"{path}: not UTF-8 text at byte {error.start}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MalformedRecord(f"{path}: not a whole gzip file: {error}") from error
    except OSError as error:
        raise MissingFile(f"cannot read {path}: {error.strerror or error}") from error
    return list(enumerate((line.rstrip("\r") for line in text.split("\n")), start=1))


def _blocks(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Sentences: runs of lines between empty ones."""
    block: list[Line] = []
    for number, line in [*lines, (0, "")]:
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []


def _sentence(path: Path, block: Sequence[Line]) -> Sentence:
    """One sentence, with the words' characters."""
    first = block[0][0]
    named: dict[str, str] = {}
    rows: list[tuple[int, dict]] = []
    for number, line in block:
        if line.startswith("#"):
            name, equals, value = line[1:].partition("=")
            named |= {name.strip(): value.strip()} if equals else {}
        else:
            rows.append((number, _row(path, number, line)))
    words, surface = _words(path, rows)
    if not words:
        raise MalformedRecord(f"{path}, line {first}: a sentence without words")
    text = named.get("text") or _spelled(surface)
    spans = _spans(path, text, surface)
    try:
        return Sentence(
            id=named.get("sent_id", f"line {first}"),
            text=text,
            words=tuple(replace(word, span=spans.get(n)) for n, word in enumerate(words, 1)),
        )
    except MalformedRecord as error:
        raise MalformedRecord(f"{path}, line {first}: {error}") from error


def _row(path: Path, number: int, line: str) -> dict:
    """The columns of one line."""
    columns = line.split("\t")
    if len(columns) != len(COLUMNS):
        raise MalformedRecord(
            f"{path}, line {number}: {len(columns)} columns between tabs, not {len(COLUMNS)}"
        )
    if not all(columns):
        empty = COLUMNS[columns.index("")]
        raise MalformedRecord(f"{path}, line {number}: the column {empty!r} is empty, not _")
    try:
        return dict(parse_line(line, COLUMNS, dict(_PARSERS)))
    except (ParseException, IndexError) as error:
        raise MalformedRecord(f"{path}, line {number}: {error}") from error


Surface = tuple[int, str, list[int], list[str], bool]
"""A token as it is written: line, form, its words' numbers and forms, whether space follows."""


def _words(path: Path, rows: Sequence[tuple[int, dict]]) -> tuple[list[Word], list[Surface]]:
    """The words, and the tokens that they are written as."""
    words: list[Word] = []
    surface: list[Surface] = []
    inside = 0  # the last word of the multiword token that is open
    for line, row in rows:
        name, spaced = row["id"], "SpaceAfter=No" not in row["misc"].split("|")
        if isinstance(name, tuple):
            if name[1] == "-":
                if name[0] != len(words) + 1:
                    raise MalformedRecord(f"{path}, line {line}: a token that begins at {name[0]}")
                inside = name[2]
                surface.append((line, row["form"], [], [], spaced))
            continue  # an empty node was not said
        if name != len(words) + 1:
            raise MalformedRecord(
                f"{path}, line {line}: word {name} where {len(words) + 1} should stand"
            )
        if row["head"] is None:
            raise MalformedRecord(f"{path}, line {line}: the word {row['form']!r} has no head")
        if name > inside:
            surface.append((line, row["form"], [], [], spaced))
        surface[-1][2].append(name)
        surface[-1][3].append(row["form"])
        words.append(
            Word(**{key: row[key] for key in ("form", "lemma", "upos", "xpos", "feats")},
                 head=row["head"], deprel=row["deprel"], span=None)
        )  # fmt: skip
    if inside > len(words):
        raise MalformedRecord(f"{path}, line {surface[-1][0]}: a token up to word {inside}")
    return words, surface


def _spelled(surface: Sequence[Surface]) -> str:
    """The text, put together from the tokens where no line tells it."""
    return "".join(form + " " * spaced for _, form, _, _, spaced in surface).strip()


def _spans(path: Path, text: str, surface: Sequence[Surface]) -> dict[int, tuple[int, int]]:
    """Characters of the words, by number."""
    spans: dict[int, tuple[int, int]] = {}
    at = 0
    for line, form, numbers, forms, _ in surface:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith(form, at):
            raise MalformedRecord(
                f"{path}, line {line}: {form!r} is not what the text goes on with at character "
                f"{at}: {text[at : at + 20]!r}"
            )
        if "".join(forms) == form:
            start = at
            for number, part in zip(numbers, forms, strict=True):
                spans[number] = (start, start + len(part))
                start += len(part)
        at += len(form)
    return spans
