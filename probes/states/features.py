"""The states that probes read: chosen words, every layer, in one pass.

    features = features_of(model, task)                    # [depth, example, d_model]
    X = features.at(8)                                     # what left block 7
    features = features_of(model, task, States(where="ffn_out", depths=(2, 3), pieces="mean"))

Texts are run once each, in batches of nearly equal lengths, up to the last token that is read
of each and the last block that is asked for: neither what follows a token nor a later block
can change it; several tasks over the same texts share one pass (`features_of_tasks`). What would
not fit into memory goes straight to a safetensors file and is mapped from there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from labkit import cache as cached
from labkit.arguments import checked
from labkit.errors import EmptySplit, InputError
from labkit.models.model import LabModel
from labkit.progress import Progress
from probes.states.alignment import Encoded, Span, encoded
from probes.states.feature_files import filled_file, map_file, scratch
from probes.states.reading import Reading
from probes.states.selection import USUAL, States, Where
from probes.tasks.task import Task

IN_MEMORY = 1 << 30
"""Bytes of features that are kept in memory at most; more are mapped from a file."""

FORMAT = 3


@dataclass(frozen=True, eq=False)
class Features:
    """States of some words of some texts.

    Attributes:
        where: What was read.
        depths: Depths (of "resid") or layers (of the other sites), in rising order.
        values: The states, float32 or float16; a memory map where they are large.
        fingerprint: Fingerprint of the weights in effect when they were read.
        source: What they are of, in words.
        task: The task whose examples they are; None for words without labels.
    """

    where: Where
    depths: tuple[int, ...]
    values: Float[np.ndarray, "depth example width"]
    fingerprint: str
    source: str
    task: Task | None = None

    def __len__(self) -> int:
        """Number of examples."""
        return self.values.shape[1]

    def at(self, depth: int) -> Float[np.ndarray, "example width"]:
        """The states of one depth (or layer), float32.

        Raises:
            InputError: If it was not read.
        """
        if depth not in self.depths:
            raise InputError(f"depth {depth} was not read; {self.depths} were")
        return np.asarray(self.values[self.depths.index(depth)], dtype=np.float32)


@checked
def features_of(
    model: LabModel,
    task: Task,
    how: States = USUAL,
    *,
    known: Sequence[Encoded] | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Features:
    """States of a task's examples, in their order; from the cache if they were read before.

    Args:
        model: The model.
        task: The task.
        how: Which states: by default the residual stream at all depths, at a word's last token.
        known: The task's texts as `encoded` gives them, where they were tokenised before.
        cache: Whether to keep them in the user's cache, and take them from there. Neither is
            done while states are patched (`LabModel.is_patched`).
        progress: Called as the pass goes on.

    Raises:
        NotAligned: If a word has no token of its own; see `readable`.
        InputError, EmptyPrompt: As `extract`.
    """
    return next(features_of_tasks(model, [task], how, known=known, cache=cache, progress=progress))


@checked
def features_of_tasks(
    model: LabModel,
    tasks: Sequence[Task],
    how: States = USUAL,
    *,
    known: Sequence[Encoded] | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Iterator[Features]:
    """States of the examples of tasks that ask about the same texts, read in one pass.

    Args:
        model: The model.
        tasks: The tasks, at least one.
        how: Which states.
        known: Their texts as `encoded` gives them, where they were tokenised before.
        cache: Whether to keep the states of all tasks, together, in the user's cache.
        progress: Called as the pass goes on.

    Yields:
        What `features_of` gives, task by task, so that one task's states are held at a time.

    Raises:
        InputError: If the tasks are of different texts; or as `extract`.
        NotAligned, EmptyPrompt: As `extract`.
    """
    texts = tasks[0].texts
    for task in tasks:
        if task.texts != texts:
            raise InputError(f"{tasks[0].name!r} and {task.name!r} are of different texts")
    asked = [[word for example in task.examples for word in example.words] for task in tasks]
    places: dict[Span, int] = {}
    for words in asked:
        for word in words:
            places.setdefault(word, len(places))
    read = extract(
        model,
        texts if known is None else known,
        list(places),
        how,
        folder=cached.cache_dir() / "features" if cache else None,
        progress=progress,
    )
    for task, words in zip(tasks, asked, strict=True):
        values = _some(read.values, [places[word] for word in words])
        if task.of_differences:
            values = values[:, ::2] - values[:, 1::2]
        source = f"the {how.pieces} pieces of {len(task)} examples of {task.name} ({task.source})"
        yield Features(read.where, read.depths, values, read.fingerprint, source, task)


@checked
@torch.no_grad()
def extract(
    model: LabModel,
    texts: Sequence[str] | Sequence[Encoded],
    spans: Sequence[Span],
    how: States = USUAL,
    *,
    folder: str | Path | None = None,
    in_memory: int = IN_MEMORY,
    progress: Progress | None = None,
) -> Features:
    """States of words in texts, of all depths in one pass.

    Args:
        model: The model.
        texts: The texts; one that stands there twice is run once. What `encoded` gave for them
            will do as well, and is not tokenised again.
        spans: The words: number of the text, first character, character after the last.
        how: Which states: by default the residual stream at all depths, at a word's last token.
        folder: Keep the states in a file here, named by all that they depend on, and take
            them from it if it is there. By default they are not kept.
        in_memory: Bytes from which on states that are not kept lie in a temporary file.
        progress: Called as the pass goes on.

    Raises:
        EmptySplit: If there is no span.
        NotAligned: If a word has no token of its own.
        EmptyPrompt: If a text is empty.
        InputError: For a depth, head or span that does not exist, a text that is too long, or
            states that are not finite in `how.dtype`.
    """
    depths, sites, columns = how.depths_of(model), how.sites_of(model), how.columns_of(model)
    if not len(spans):
        raise EmptySplit("there is no word to read")
    reading = Reading.of(model, texts, spans, how.pieces)
    shape = (len(depths), len(spans), how.width_of(model))
    large = int(np.prod(shape)) * np.dtype(how.dtype).itemsize > in_memory
    parts = {
        "where": how.where,
        "depths": depths,
        "pieces": how.pieces,
        "heads": None if how.heads is None else list(how.heads),
        "kept": how.dtype,
        "words": reading.digest,
    }
    place = None if folder is None else cached.place(model, "features", FORMAT, parts)
    path = None if folder is None or place is None else Path(folder) / place.name
    values: np.ndarray | None = None if path is None else map_file(path, shape, how.dtype)
    if values is None and path is not None:
        read = partial(reading.run, model, sites, columns, progress)
        values = filled_file(path, shape, how.dtype, read)
    if values is None:
        fresh = scratch(shape, how.dtype) if large else np.empty(shape, how.dtype)
        reading.run(model, sites, columns, progress, fresh)
        values = fresh
    return Features(
        how.where,
        depths,
        values if large else np.array(values),
        model.in_effect,
        f"the {how.pieces} pieces of {len(spans)} words",
    )


@checked
def readable(model: LabModel, task: Task, known: Sequence[Encoded] | None = None) -> Task:
    """A task without the words that a model's tokenizer gives no token of their own.

    Which words these are depends on the tokenizer; a text's other words stay. How many were
    left out is the difference in length. The task itself is returned where there is none.

    Args:
        model: Whose tokenizer to use.
        task: The task.
        known: Its texts as `encoded` gives them, where they were tokenised before.

    Raises:
        EmptySplit, OneClass, ClassTooSmall: If too little is left.
    """
    known = encoded(model, task.texts) if known is None else known
    has_token = [
        all(known[text].has_token(start, stop) for text, start, stop in example.words)
        for example in task.examples
    ]
    if all(has_token):
        return task
    kept = np.flatnonzero(has_token).tolist()
    held_out = None
    if task.held_out is not None:
        places = {number: place for place, number in enumerate(kept)}
        held_out = tuple(places[number] for number in task.held_out if number in places)
    return Task(
        name=task.name,
        family=task.family,
        texts=task.texts,
        examples=tuple(task.examples[number] for number in kept),
        source=f"{task.source}; {len(task) - len(kept)} words without a token left out",
        numeric=task.numeric,
        held_out=held_out,
    )


def _some(
    values: Float[np.ndarray, "depth word width"], rows: Sequence[int]
) -> Float[np.ndarray, "depth example width"]:
    """The states of some words; those that would not fit into memory in a temporary file."""
    if list(rows) == list(range(values.shape[1])):
        return values
    shape = (values.shape[0], len(rows), values.shape[2])
    large = int(np.prod(shape)) * values.dtype.itemsize > IN_MEMORY
    some = scratch(shape, str(values.dtype)) if large else np.empty(shape, values.dtype)
    for depth, states in enumerate(values):
        some[depth] = states[rows]
    return some
