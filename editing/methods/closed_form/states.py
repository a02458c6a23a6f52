"""States at the last token of a text or of a subject, at any site, in every context.

Keys, and what a spread compares, are such states. Only the text up to that token is run, and
only the blocks up to the highest layer that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from editing.edits.requests import Request
from labkit.facts.fact import fill
from labkit.models.model import LabModel
from labkit.running.logits import MEMORY
from labkit.running.states import Spot, last_states
from labkit.tokens.words import spaceless


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
