"""The states that probes read: chosen words, every layer, in one pass.

    features = features_of(model, task)                    # [depth, example, d_model]
    X = features.at(8)                                     # what left block 7

The rows of the residual stream are counted in *depths*, blocks passed through: 0 is what the
embedding gives, d what leaves block d-1, before the final norm. The other sites have one row per
layer. A word of several tokens is read at its first, its last, or as their mean; at the last
piece by default, the only one that has seen the whole word.

Texts are run once each, in batches of nearly equal lengths, up to the last token that is read
of each and the last block that is asked for: neither what follows a token nor a later block
can change it. What would not fit into memory goes straight to a safetensors file and is mapped
from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit import cache as cached
from labkit.errors import EmptySplit, InputError
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.progress import Progress
from probes.states.alignment import Span, encoded
from probes.states.feature_files import filled_file, map_file, scratch
from probes.states.reading import Pieces, Reading
from probes.tasks.task import Task

__all__ = ["Features", "Pieces", "Where", "extract", "features_of", "n_rows", "readable"]

Where = Literal["resid", "attn_out", "ffn_out", "ffn_key", "head_out"]
"""What is read: the residual stream by depth, or by layer a site of `labkit.models.anatomy`."""

Precision = Literal["float32", "float16"]
"""How states are kept."""

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
    """

    where: Where
    depths: tuple[int, ...]
    values: Float[np.ndarray, "depth example width"]
    fingerprint: str
    source: str

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


def n_rows(model: LabModel, where: Where) -> int:
    """How many depths a site has: one more than blocks for the residual stream.

    Raises:
        InputError: If there is no such site to read.
    """
    if where not in get_args(Where):
        raise InputError(f"unknown site {where!r}; one of {', '.join(get_args(Where))}")
    return model.n_layers + (where == "resid")


def depths_of(model: LabModel, where: Where, depths: Sequence[int] | None) -> tuple[int, ...]:
    """The depths of a site that are asked for, in order and each once; all with None.

    Raises:
        InputError: If there is no such site or depth, or none is asked for.
    """
    n = n_rows(model, where)
    chosen = tuple(range(n)) if depths is None else tuple(sorted(set(depths)))
    if not chosen or not set(chosen) <= set(range(n)):
        raise InputError(f"depths {chosen} of {where} of {model.name}: choose from 0..{n - 1}")
    return chosen


def features_of(
    model: LabModel,
    task: Task,
    *,
    where: Where = "resid",
    depths: Sequence[int] | None = None,
    pieces: Pieces = "last",
    heads: Sequence[int] | None = None,
    dtype: Precision = "float32",
    cache: bool = True,
    progress: Progress | None = None,
) -> Features:
    """States of a task's examples, in their order; from the cache if they were read before.

    Args:
        model: The model.
        task: The task.
        where: What to read.
        depths: Which rows of it; all by default.
        pieces: Which of a word's tokens.
        heads: Which attention heads, for "head_out"; all by default.
        dtype: How to keep them.
        cache: Whether to keep them in the user's cache, and take them from there. Neither is
            done while states are patched (`LabModel.is_patched`).
        progress: Called as the pass goes on.

    Raises:
        NotAligned: If a word has no token of its own; see `readable`.
        InputError, EmptyPrompt: As `extract`.
    """
    spans = [word for example in task.examples for word in example.words]
    features = extract(
        model,
        task.texts,
        spans,
        where=where,
        depths=depths,
        pieces=pieces,
        heads=heads,
        dtype=dtype,
        folder=cached.cache_dir() / "features" if cache else None,
        progress=progress,
    )
    values = features.values
    if task.of_differences:
        values = values[:, ::2] - values[:, 1::2]
    return Features(
        features.where,
        features.depths,
        values,
        features.fingerprint,
        f"the {pieces} pieces of {len(task)} examples of {task.name} ({task.source})",
    )


@torch.no_grad()
def extract(
    model: LabModel,
    texts: Sequence[str],
    spans: Sequence[Span],
    *,
    where: Where = "resid",
    depths: Sequence[int] | None = None,
    pieces: Pieces = "last",
    heads: Sequence[int] | None = None,
    dtype: Precision = "float32",
    folder: str | Path | None = None,
    in_memory: int = IN_MEMORY,
    progress: Progress | None = None,
) -> Features:
    """States of words in texts, of all depths in one pass.

    Args:
        model: The model.
        texts: The texts; one that stands there twice is run once.
        spans: The words: number of the text, first character, character after the last.
        where: What to read.
        depths: Which rows of it, in any order; all by default.
        pieces: Which of a word's tokens.
        heads: Which attention heads, for "head_out", side by side; all by default.
        dtype: How to keep them; "float16" halves the file and overflows above 65504.
        folder: Keep the states in a file here, named by all that they depend on, and take
            them from it if it is there. By default they are not kept.
        in_memory: Bytes from which on states that are not kept lie in a temporary file.
        progress: Called as the pass goes on.

    Raises:
        EmptySplit: If there is no span.
        NotAligned: If a word has no token of its own.
        EmptyPrompt: If a text is empty.
        InputError: For a site, depth, head or span that does not exist, a text that is too
            long, or states that are not finite in `dtype`.
    """
    depths = depths_of(model, where, depths)
    columns = _columns(model, where, heads)
    if pieces not in get_args(Pieces) or dtype not in get_args(Precision):
        choices = ", ".join((*get_args(Pieces), *get_args(Precision)))
        raise InputError(f"pieces {pieces!r} kept in {dtype!r}: choose from {choices}")
    if not len(spans):
        raise EmptySplit("there is no word to read")
    reading = Reading.of(model, texts, spans, pieces)
    sites = [_site(where, depth) for depth in depths]
    shape = (len(depths), len(spans), _width(model, where, columns))
    large = int(np.prod(shape)) * np.dtype(dtype).itemsize > in_memory
    parts = {
        "where": where,
        "depths": depths,
        "pieces": pieces,
        "heads": None if heads is None else list(heads),
        "kept": dtype,
        "words": reading.digest,
    }
    place = None if folder is None else cached.place(model, "features", FORMAT, parts)
    path = None if folder is None or place is None else Path(folder) / place.name
    values: np.ndarray | None = None if path is None else map_file(path, shape, dtype)
    if values is None and path is not None:
        read = partial(reading.run, model, sites, columns, progress)
        values = filled_file(path, shape, dtype, read)
    if values is None:
        fresh = scratch(shape, dtype) if large else np.empty(shape, dtype)
        reading.run(model, sites, columns, progress, fresh)
        values = fresh
    return Features(
        where,
        depths,
        values if large else np.array(values),
        model.in_effect,
        f"the {pieces} pieces of {len(spans)} words",
    )


def readable(model: LabModel, task: Task) -> Task:
    """A task without the words that a model's tokenizer gives no token of their own.

    Which words these are depends on the tokenizer; a text's other words stay. How many were
    left out is the difference in length. The task itself is returned where there is none.

    Raises:
        EmptySplit, OneClass, ClassTooSmall: If too little is left.
    """
    known = encoded(model, task.texts)
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


def _site(where: Where, depth: int) -> tuple[Site, int]:
    """Where a depth or layer is read."""
    if where != "resid":
        return where, depth
    return ("resid_pre", 0) if depth == 0 else ("resid_post", depth - 1)


def _columns(model: LabModel, where: Where, heads: Sequence[int] | None) -> Tensor | None:
    """Columns of `head_out` that belong to some heads; None where all are read."""
    if heads is None:
        return None
    if where != "head_out" or not heads or not set(heads) <= set(range(model.n_heads)):
        raise InputError(
            f"heads {list(heads)} of {where}: choose some of 0..{model.n_heads - 1} of head_out"
        )
    return torch.cat([torch.arange(h * model.d_head, (h + 1) * model.d_head) for h in heads])


def _width(model: LabModel, where: Where, columns: Tensor | None) -> int:
    """Numbers that one state has."""
    if where == "head_out":
        return model.n_heads * model.d_head if columns is None else len(columns)
    return model.d_mlp if where == "ffn_key" else model.d_model
