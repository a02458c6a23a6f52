"""`k*`: the key under which a subject's facts are stored.

The key of one prompt is the input of an FFN's output projection at the subject's last
token. It depends on what stands in front of the subject, so `k*` averages over contexts
(Meng et al. 2022, section 3.1, equation 3). It is computed here, once, and the same `k*` is
used wherever an edit needs one: mixing two of them lets sequential edits drift (Gupta et
al. 2024, Rebuilding ROME).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from editing.requests import Group, Request
from labkit import stats
from labkit.activations import capture
from labkit.corpus import Corpus
from labkit.errors import InputError
from labkit.execute import MEMORY, Execution, rows_within
from labkit.facts import fill
from labkit.models import LabModel

MAX_WORDS = 10


@dataclass(frozen=True)
class Placed:
    """A prompt in some context, as ids, with the column of the subject's last token."""

    ids: list[int]
    subject_last: int


def contexts(corpus: Corpus, n: int, *, seed: int) -> tuple[str, ...]:
    """What may stand in front of a prompt: nothing, and `n - 1` short sentences.

    The sentences come from the model's own corpus, so no text is generated for an edit.

    Raises:
        InputError: If `n` is below 1, or the corpus has too few short sentences.
    """
    if n < 1:
        raise InputError("a key needs at least one context")
    sentences = corpus.sentences(max_words=MAX_WORDS)
    if len(sentences) < n - 1:
        raise InputError(
            f"the corpus ({corpus.source}) has {len(sentences)} sentences of 3 to {MAX_WORDS} "
            f"words, {n - 1} contexts are asked for"
        )
    order = torch.randperm(len(sentences), generator=stats.generator(seed, "contexts", n))
    return ("", *(sentences[i] for i in order[: n - 1].tolist()))


def place(model: LabModel, context: str, template: str, subject: str) -> Placed:
    """A filled template behind a context, with the subject's place known by offset."""
    before = f"{context} " if context else ""
    prompt = before + fill(template, subject)
    span = model.span(prompt, subject, at=len(before) + template.index("{}"))
    return Placed(model.ids(prompt), span.last)


@torch.no_grad()
def subject_keys(
    model: LabModel,
    requests: Sequence[Request],
    layer: int,
    contexts: Sequence[str],
    *,
    memory: int = MEMORY,
) -> Float[Tensor, "request context d_mlp"]:
    """The key at the subject's last token, for every request and context.

    Only the text up to the subject is run, and only the blocks up to the layer.

    Raises:
        SubjectNotFound: If a subject's tokens cannot be told apart in its prompt.
    """
    rows = []
    for request in requests:
        for context in contexts:
            placed = place(model, context, request.template, request.subject)
            rows.append(placed.ids[: placed.subject_last + 1])
    # Templates that begin with the subject ask for the same key: each row is run once.
    unique = sorted({tuple(row) for row in rows}, key=len)
    at_once = rows_within(model, len(unique[-1]), memory)
    keys: dict[tuple[int, ...], Tensor] = {}
    for first in range(0, len(unique), at_once):
        chunk = unique[first : first + at_once]
        with capture(model, ["ffn_key"], [layer]) as seen:
            Execution(model, model.pad(chunk)).forward(stop=model.layer(layer) + 1)
        keys |= zip(chunk, seen["ffn_key", layer][:, -1], strict=True)
    found = torch.stack([keys[tuple(row)] for row in rows])
    return found.unflatten(0, (len(requests), len(contexts)))


def group_keys(
    model: LabModel,
    groups: Sequence[Group],
    layer: int,
    contexts: Sequence[str],
    bare_weight: float,
) -> Float[Tensor, "group d_mlp"]:
    """`k*` of every group, float64: the mean of its requests' own.

    Args:
        model: The model, in whatever state it is now.
        groups: The groups.
        layer: The layer.
        contexts: What stands in front of a prompt; the first one is empty.
        bare_weight: See `key_star`.
    """
    requests = [request for group in groups for request in group.requests]
    keys = key_star(subject_keys(model, requests, layer, contexts), bare_weight).double()
    sizes = [len(group.requests) for group in groups]
    return torch.stack([members.mean(dim=0) for members in keys.split(sizes)])


def key_star(
    keys: Float[Tensor, "*request context d_mlp"], bare_weight: float
) -> Float[Tensor, "*request d_mlp"]:
    """`k*`: the bare prompt's key and the mean over contexts, weighed against each other.

    Args:
        keys: The first context is the empty one.
        bare_weight: Share of the bare prompt's own key, 0..1. At 0 this is the paper's
            mean; a mean alone can miss the prompt that is asked without a context.
    """
    return bare_weight * keys[..., 0, :] + (1 - bare_weight) * keys.mean(dim=-2)
