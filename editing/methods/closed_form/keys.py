"""`k*`: the key under which a subject's facts are stored.

The key of one prompt is the input of an FFN's output projection at the subject's last
token. It depends on the text before the subject, so `k*` averages over contexts
(Meng et al. 2022, section 3.1, equation 3). It is computed here, once, and the same `k*` is
used wherever an edit needs one: mixing two of them makes sequential edits drift (Gupta et
al. 2024, Rebuilding ROME).

Other states at that token are read and averaged in the same way. Only the text up to it is run, and
only the blocks up to the highest layer that is asked for.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from editing.edits.requests import Group, Request, requests_of
from labkit import stats
from labkit.errors import ContextTooShort, InputError
from labkit.facts.fact import Deletion, fill
from labkit.models.model import LabModel
from labkit.running.logits import MEMORY
from labkit.running.states import Spot, last_states
from labkit.text.corpus import Corpus
from labkit.tokens import target_ids
from labkit.tokens.words import spaceless

logger = logging.getLogger(__name__)

MAX_WORDS = 10


CONTEXTS = 1000
"""Contexts at most; the papers take 6 to 21."""


def contexts(corpus: Corpus, n: int, *, seed: int) -> tuple[str, ...]:
    """What may precede a prompt: nothing, or one of `n - 1` short sentences.

    The sentences come from the model's own corpus, so no text is generated for an edit. Where
    it has too few, there are fewer contexts, and a warning is logged.

    Raises:
        InputError: If `n` is below 1, or above what a key could gain from.
    """
    if not 1 <= n <= CONTEXTS:
        raise InputError(f"{n:,} contexts: a key is averaged over 1 to {CONTEXTS:,}")
    sentences = corpus.sentences(max_words=MAX_WORDS)
    if len(sentences) < n - 1:
        logger.warning(
            "the corpus (%s) has %d sentences of 3 to %d words for %d contexts: keys are averaged "
            "over fewer prompts; another corpus may have more",
            corpus.source,
            len(sentences),
            MAX_WORDS,
            n - 1,
        )
    order = torch.randperm(len(sentences), generator=stats.generator(seed, "contexts", n))
    return ("", *(sentences[i] for i in order[: n - 1].tolist()))


def fitting(
    model: LabModel, requests: Sequence[Request], contexts: Sequence[str]
) -> tuple[str, ...]:
    """The contexts after which all requests and targets still fit into the model's window.

    Raises:
        ContextTooShort: If a request is too long by itself.
    """
    if model.n_ctx is None:
        return tuple(contexts)
    kept = []
    for context in contexts:
        sizes = {request.prompt: _size(model, request, context) for request in requests}
        longest = max(sizes, key=sizes.__getitem__)
        if sizes[longest] <= model.n_ctx:
            kept.append(context)
        elif not context:
            raise ContextTooShort(
                f"the prompt {longest!r} takes {sizes[longest]} tokens with its target, "
                f"{model.name} reads {model.n_ctx}: shorten it"
            )
    if len(kept) < len(contexts):
        logger.warning(
            "%d of %d contexts are left out: with them in front a prompt would be longer than the "
            "%d tokens that %s reads",
            len(contexts) - len(kept),
            len(contexts),
            model.n_ctx,
            model.name,
        )
    return tuple(kept)


def _size(model: LabModel, request: Request, context: str) -> int:
    """Tokens of a request with a context in front and all but the last of its target's."""
    target = request.target_true if isinstance(request, Deletion) else request.target_new
    placed = place(model, context, request.template, request.subject)
    return len(placed.ids) + len(target_ids(model.tokenizer, request.prompt, target)) - 1


@dataclass(frozen=True)
class Placed:
    """A prompt in some context, as ids, with the column of the subject's last token."""

    ids: list[int]
    subject_last: int


def place(model: LabModel, context: str, template: str, subject: str) -> Placed:
    """A filled template after a context, with the subject's position known by offset."""
    before = in_front(context)
    prompt = before + fill(template, subject)
    span = model.span(prompt, subject, at=len(before) + template.index("{}"))
    return Placed(model.ids(prompt), span.last)


def in_front(context: str) -> str:
    """A context as it is put before a prompt: followed by a space, where its script has spaces."""
    if not context or context[-1] in "。！？．" or spaceless(context[-1]):
        return context
    return f"{context} "


def subject_states(
    model: LabModel,
    requests: Sequence[Request],
    spots: Sequence[Spot],
    contexts: Sequence[str],
    *,
    push: tuple[int, Float[Tensor, "request d_model"]] | None = None,
    memory: int = MEMORY,
) -> dict[Spot, Float[Tensor, "request context width"]]:
    """States at the subject's last token, for every request and context.

    Args:
        model: The model as it is now.
        requests: The requests.
        spots: Which states.
        contexts: The contexts put before a prompt.
        push: A layer and what is added to its FFN's answer there, by request.
        memory: Bound on the activations of one run, in bytes.

    Raises:
        SubjectNotFound: If a subject's tokens cannot be told apart in its prompt.
    """
    placed = [place(model, c, r.template, r.subject) for r in requests for c in contexts]
    rows = [one.ids[: one.subject_last + 1] for one in placed]
    if push is not None:
        push = (push[0], push[1].repeat_interleave(len(contexts), dim=0))
    found = last_states(model, rows, spots, push=push, memory=memory)
    return {spot: states.unflatten(0, (-1, len(contexts))) for spot, states in found.items()}


def subject_keys(
    model: LabModel, requests: Sequence[Request], layer: int, contexts: Sequence[str]
) -> Float[Tensor, "request context d_mlp"]:
    """The key at the subject's last token, for every request and context.

    Raises:
        SubjectNotFound: If a subject's tokens cannot be told apart in its prompt.
    """
    spot: Spot = ("ffn_key", model.layer(layer))
    return subject_states(model, requests, [spot], contexts)[spot]


def group_keys(
    model: LabModel,
    groups: Sequence[Group],
    layer: int,
    contexts: Sequence[str],
    bare_weight: float,
) -> Float[Tensor, "group d_mlp"]:
    """`k*` of every group, float64: the mean of its requests' own.

    Args:
        model: The model as it is now.
        groups: The groups.
        layer: The layer.
        contexts: The contexts put before a prompt; the first one is empty.
        bare_weight: See `key_star`.
    """
    return averaged(subject_keys(model, requests_of(groups), layer, contexts), groups, bare_weight)


def averaged(
    states: Float[Tensor, "request context width"], groups: Sequence[Group], bare_weight: float
) -> Float[Tensor, "group width"]:
    """One state per group, float64: over contexts as `key_star` weighs them, then over requests."""
    sizes = [len(group.requests) for group in groups]
    each = key_star(states.double(), bare_weight).split(sizes)
    return torch.stack([members.mean(dim=0) for members in each])


def key_star(
    keys: Float[Tensor, "*request context width"], bare_weight: float
) -> Float[Tensor, "*request width"]:
    """`k*`: the bare prompt's key and the mean over contexts, weighed against each other.

    Args:
        keys: The first context is the empty one.
        bare_weight: Share of the bare prompt's own key, 0..1. At 0 this is the paper's
            mean; a mean alone can miss the prompt that is asked without a context.
    """
    return bare_weight * keys[..., 0, :] + (1 - bare_weight) * keys.mean(dim=-2)
