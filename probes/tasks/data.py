"""Tasks from data of your own, or from published collections, by the content of a file.

| data | tasks |
|---|---|
| a treebank: CoNLL-U, plain or gzipped, or a name such as "UD_English-EWT" | `linguistic_tasks` |
| minimal pairs: BLiMP's JSONL, a file or a folder | `grammaticality`, `better_of_pair` |
| relations in LRE's format: JSON, a file or a folder | one per relation, named by it |
| places: the CSV table of Gurnee and Tegmark | `latitude`, `longitude` |
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from labkit.errors import EmptySplit, InputError, MissingFile, OneClass
from labkit.facts.datasets import read_relations
from labkit.text.acceptability import read_blimp
from probes.sentences.fetched import fetch_treebank, is_name
from probes.sentences.treebank import Sentence, in_context, read_treebank
from probes.tasks.factual import of_relation
from probes.tasks.linguistic import linguistic_tasks
from probes.tasks.minimal_pairs import better_of_pair, grammaticality
from probes.tasks.places import read_places
from probes.tasks.task import Task


def tasks_of(
    data: str | os.PathLike[str],
    test: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    context: int = 0,
) -> dict[str, Task]:
    """The tasks of some data, by name.

    Args:
        data: A file, a folder, or the name of a treebank.
        test: A treebank to score on. A treebank by name brings its own.
        names: Which tasks; all by default.
        context: Sentences of the same document in front of each, for treebanks.

    Raises:
        MissingFile, MalformedRecord: If the data cannot be read; with line and reason.
        InputError: If it does not ask a task that is named, or `test` or `context` is given
            with other data than a treebank.
        FetchError: If a treebank by name is not here and cannot be fetched.
        EmptySplit, OneClass: If a task that is named has nothing to tell apart.
    """
    path, test = treebank_paths(data, test)
    if not path.exists():
        raise MissingFile(f"there is no file {path}")
    kind = _kind(path)
    if kind == ".conllu":
        sentences, source = sentences_of(path, context)
        held_out = None if test is None else sentences_of(test, context)[0]
        return linguistic_tasks(sentences, held_out, names=names, source=source)
    if test is not None or context:
        raise InputError(f"test and context are for treebanks, not for {path.name}")
    makers = READERS[kind](path)
    chosen = makers if names is None else names
    unknown = [name for name in chosen if name not in makers]
    if unknown:
        raise InputError(f"no task {unknown[0]!r} of {path.name}; there are {', '.join(makers)}")
    found: dict[str, Task] = {}
    for name in chosen:
        try:
            found[name] = makers[name]()
        except (EmptySplit, OneClass):
            if names is not None or len(makers) == 1:
                raise
    if not found:
        raise EmptySplit(f"no relation of {path.name} has two objects with enough subjects")
    return found


def treebank_paths(
    data: str | os.PathLike[str], test: str | os.PathLike[str] | None = None
) -> tuple[Path, Path | None]:
    """The files of a treebank: those that are named, or of a name its own, fetched if need be.

    Raises:
        FetchError, MissingFile: As `probes.sentences.fetched.treebank`.
    """
    if is_name(data) and not Path(data).exists():
        name = os.fspath(data)
        return fetch_treebank(name, "train"), fetch_treebank(
            name, "test"
        ) if test is None else Path(test)
    return Path(data), None if test is None else Path(test)


def sentences_of(path: str | os.PathLike[str], context: int = 0) -> tuple[list[Sentence], str]:
    """The sentences of a treebank after some of their documents', and their source in words."""
    name = Path(path).name
    source = name if not context else f"{name}, {context} sentences in front of each"
    return in_context(read_treebank(path), context), source


def _kind(path: Path) -> str:
    """What a file or folder holds, as a suffix; everything unknown is a treebank."""
    if path.is_dir():
        suffixes = {file.suffix for file in path.rglob("*") if not file.name.startswith(".")}
        for kind in (".jsonl", ".json"):
            if kind in suffixes:
                return kind
        raise InputError(f"the folder {path} holds neither JSONL nor JSON files")
    return path.suffix if path.suffix in READERS else ".conllu"


def _pairs(path: Path) -> dict[str, Callable[[], Task]]:
    """The tasks of minimal pairs."""
    pairs = read_blimp(path)
    return {
        "grammaticality": lambda: grammaticality(pairs, source=path.name),
        "better_of_pair": lambda: better_of_pair(pairs, source=path.name),
    }


def _places(path: Path) -> dict[str, Callable[[], Task]]:
    """The tasks of a table of places."""
    return {
        "latitude": lambda: read_places(path, coordinate="latitude"),
        "longitude": lambda: read_places(path, coordinate="longitude"),
    }


def _relations(path: Path) -> dict[str, Callable[[], Task]]:
    """A task for each relation."""
    return {relation.id: partial(of_relation, facts) for relation, facts in read_relations(path)}


READERS: dict[str, Callable[[Path], dict[str, Callable[[], Task]]]] = {
    ".jsonl": _pairs,
    ".json": _relations,
    ".csv": _places,
}
"""What makes the tasks of data that is no treebank, by its suffix."""
