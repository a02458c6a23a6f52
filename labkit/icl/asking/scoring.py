"""Log-probability of every label after every prompt, with shared beginnings run once.

    log P(label | prompt) = sum_j log p(label_j | prompt, label_<j)

summed over all tokens of the label, or over its first alone (`tokens`). What prompts have in
common at their beginning (the same demonstrations, or a part of them) is run once, and so is
what several labels begin with (`labkit.running.scoring`): the scores are those of each prompt
run from scratch.

What this does not show: that the model would *say* the label. The label space is given; see
the mass that the labels have together.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import AmbiguousLabels, ContextTooShort, EmptyPrompt, InputError
from labkit.icl.tasks.items import Task, Template
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.running.beginnings import Ids
from labkit.running.logits import MEMORY
from labkit.running.scoring import score_ids
from labkit.tokens import target_ids

Tokens = Literal["all", "first"]
"""How much of a label is scored."""


def require_tokens(tokens: str) -> None:
    """Raise unless it says how much of a label is scored.

    Raises:
        InputError: If it is neither "all" nor "first".
    """
    if tokens not in get_args(Tokens):
        raise InputError(f"labels are scored by 'all' their tokens or the 'first', not {tokens!r}")


@checked
def label_ids(
    model: LabModel, template: Template, labels: Sequence[str], *, tokens: Tokens = "all"
) -> list[Ids]:
    """The ids of each label after a query, as far as they are scored.

    Args:
        model: Whose tokenizer.
        template: The white space before a label belongs to it.
        labels: The label space.
        tokens: All tokens of a label, or its first.

    Raises:
        EmptyTarget: If a label tokenises to nothing.
        AmbiguousLabels: If the tokens scored of one label are those of another, or the
            beginning of them.
        InputError: If the tokenizer merges a label into the query, or `tokens` is neither.
    """
    require_tokens(tokens)
    asked = template.query.replace("{input}", "it")
    found = [tuple(target_ids(model.tokenizer, asked, template.gap + label)) for label in labels]
    scored = [ids[:1] if tokens == "first" else ids for ids in found]
    for one, other in _clashes(scored):
        raise AmbiguousLabels(
            f"the labels {labels[one]!r} and {labels[other]!r} begin with the same token: score "
            "all their tokens, or leave one out (labkit.icl.told_apart)"
            if tokens == "first"
            else f"the label {labels[one]!r} is, in tokens, the beginning of {labels[other]!r}: "
            "leave one out (labkit.icl.told_apart)"
        )
    return scored


@checked
def told_apart(model: LabModel, task: Task, *, tokens: Tokens = "first") -> Task:
    """A task without the items whose label cannot be told from an earlier one by its tokens.

    Args:
        model: Whose tokenizer.
        task: The task.
        tokens: By all tokens of a label, or by the first alone.

    Raises:
        EmptyTarget: If a label tokenises to nothing.
    """
    asked = task.template.query.replace("{input}", "it")
    kept: dict[str, Ids] = {}
    for label in task.labels:
        ids = tuple(target_ids(model.tokenizer, asked, task.template.gap + label))
        ids = ids[:1] if tokens == "first" else ids
        if not _clashes([*kept.values(), ids]):
            kept[label] = ids
    return task.keeping(list(kept))


@checked
def prompt_ids(model: LabModel, texts: Sequence[str]) -> list[Ids]:
    """Ids of many prompts, the BOS in front where the model's setting says so.

    Raises:
        EmptyPrompt: If there is no text, or one is empty.
    """
    if not texts or not all(text.strip() for text in texts):
        raise EmptyPrompt("there is nothing to score: no prompt, or one without text")
    front = (model.tokenizer.bos_token_id,) if model.prepend_bos else ()
    rows = model.tokenizer(list(texts), add_special_tokens=False).input_ids
    return [(*front, *ids) for ids in rows]


def require_context(model: LabModel, prompts: Sequence[Ids], labels: Sequence[Ids]) -> None:
    """Raise unless the model reads every prompt with every label after it.

    Raises:
        ContextTooShort: If one is longer than the context.
    """
    longest = max(map(len, prompts)) + max(map(len, labels)) - 1
    if model.n_ctx is not None and longest > model.n_ctx:
        raise ContextTooShort(
            f"the longest prompt takes {longest} tokens with its label, {model.name} reads "
            f"{model.n_ctx}: show fewer demonstrations, or shorter ones"
        )


@checked
@torch.no_grad()
def score_labels(
    model: LabModel,
    groups: Sequence[Sequence[Ids]],
    labels: Sequence[Ids],
    *,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> list[Float[Tensor, "prompt label"]]:
    """Log-probability, in nats, of each label after each prompt.

    Args:
        model: The model.
        groups: Prompts as ids, for instance those of one set of demonstrations together.
        labels: The label space, from `label_ids`.
        memory: Bound on activations, and on frozen keys and values, in bytes.
        progress: Called as prompts are scored.

    Returns:
        One table per group, in float64 on the CPU.

    Raises:
        EmptyPrompt: If a group has no prompt.
        ContextTooShort: If a prompt with its label is longer than the context.
    """
    if not groups or not all(groups):
        raise EmptyPrompt("there is nothing to score: a set of demonstrations without a query")
    for prompts in groups:
        require_context(model, prompts, labels)
    flat = [prompt for prompts in groups for prompt in prompts]
    scores = score_ids(model, flat, [labels] * len(flat), memory=memory, progress=progress)
    table = torch.stack([own.log_prob for own in scores])
    return list(table.split([len(prompts) for prompts in groups]))


def _clashes(labels: Sequence[Ids]) -> list[tuple[int, int]]:
    """Pairs of labels, the first of which is the other or its beginning; neighbours in order."""
    order = sorted(range(len(labels)), key=lambda number: labels[number])
    return [
        (one, other)
        for one, other in pairwise(order)
        if labels[other][: len(labels[one])] == labels[one]
    ]
