"""Log-probability of every label behind every prompt, with shared beginnings run once.

    log P(label | prompt) = sum_j log p(label_j | prompt, label_<j)

summed over all tokens of the label, or over its first alone (`tokens`). Three things are never
run twice: the tokens that all queries behind the same demonstrations begin with (their keys
and values are frozen); demonstrations that are the beginning of others (k = 2 of k = 4); and
the tokens that several labels begin with. Prompts of many sets of demonstrations go through
together, up to a bound on memory. Texts are tokenised whole, and only then compared: what is
shared are tokens, so the scores are those of each prompt run from scratch.

What this does not show: that the model would *say* the label. The label space is given; see
the mass that the labels have together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import AmbiguousLabels, ContextTooShort, EmptyPrompt, InputError
from labkit.icl.asking.shared import (
    Ids,
    Row,
    batches_of,
    chunks_of,
    freeze_together,
    hosts_of,
    length_of,
    shared_ids,
    side_by_side,
)
from labkit.icl.tasks.items import Task, Template
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.execute import MEMORY, Execution, Prefix, read_logits
from labkit.tokens import TokenBatch, target_ids

Tokens = Literal["all", "first"]
"""How much of a label is scored."""

READ_AT_ONCE = 512
"""Positions whose logits are held at once: 100 MB for a vocabulary of 50k in float32."""


def require_tokens(tokens: str) -> None:
    """Raise unless it says how much of a label is scored.

    Raises:
        InputError: If it is neither "all" nor "first".
    """
    if tokens not in get_args(Tokens):
        raise InputError(f"labels are scored by 'all' their tokens or the 'first', not {tokens!r}")


def label_ids(
    model: LabModel, template: Template, labels: Sequence[str], *, tokens: Tokens = "all"
) -> list[Ids]:
    """The ids of each label behind a query, as far as they are scored.

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
    """Raise unless the model reads every prompt with every label behind it.

    Raises:
        ContextTooShort: If one is longer than the context.
    """
    longest = max(map(len, prompts)) + max(map(len, labels)) - 1
    if model.n_ctx is not None and longest > model.n_ctx:
        raise ContextTooShort(
            f"the longest prompt takes {longest} tokens with its label, {model.name} reads "
            f"{model.n_ctx}: show fewer demonstrations, or shorter ones"
        )


@torch.no_grad()
def score_labels(
    model: LabModel,
    groups: Sequence[Sequence[Ids]],
    labels: Sequence[Ids],
    *,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> list[Float[Tensor, "prompt label"]]:
    """Log-probability, in nats, of each label behind each prompt.

    Args:
        model: The model.
        groups: Prompts as ids, those of one set of demonstrations together: what all prompts of
            a group begin with is run once.
        labels: The label space, from `label_ids`.
        memory: Bound on activations, and on frozen keys and values, in bytes.
        progress: Called as prompts are scored.

    Returns:
        One table a group, in float64 on the CPU.

    Raises:
        EmptyPrompt: If a group has no prompt.
        ContextTooShort: If a prompt with its label is longer than the context.
    """
    if not groups or not all(groups):
        raise EmptyPrompt("there is nothing to score: a set of demonstrations without a query")
    for prompts in groups:
        require_context(model, prompts, labels)
    tree = _LabelTree.of(labels)
    tables = [torch.zeros(len(prompts), len(labels), dtype=torch.float64) for prompts in groups]
    shared = [shared_ids(prompts) for prompts in groups]
    done, total = 0, sum(map(len, groups))
    for hosts in batches_of(model, hosts_of(shared), memory):
        prefixes = freeze_together(model, list(hosts))
        members = [number for host in hosts for number in hosts[host]]
        frozen = {
            number: None if prefix is None else prefix.head(len(shared[number]))
            for host, prefix in zip(hosts, prefixes, strict=True)
            for number in hosts[host]
        }
        rows = [
            Row(number, place, prompt[len(shared[number]) :], leaf)
            for number in members
            for place, prompt in enumerate(groups[number])
            for leaf in tree.leaves
        ]
        for chunk in chunks_of(model, rows, frozen, memory):
            _read(model, chunk, frozen, tree, tables)
        done += sum(len(groups[number]) for number in members)
        listener(progress)(f"{done} of {total} prompts scored", done / total)
    return tables


@dataclass(frozen=True)
class _LabelTree:
    """The label space as a tree of tokens: what is read after which beginning of a label.

    Attributes:
        reads: By beginning, the labels that go on from it and their next token.
        leaves: The beginnings that are the beginning of no other: one row each.
        hosted: By leaf, the beginnings that are read in its row.
    """

    reads: dict[Ids, list[tuple[int, int]]]
    leaves: tuple[Ids, ...]
    hosted: dict[Ids, list[Ids]]

    @classmethod
    def of(cls, labels: Sequence[Ids]) -> "_LabelTree":
        """The tree of some labels."""
        reads: dict[Ids, list[tuple[int, int]]] = {}
        for number, ids in enumerate(labels):
            for depth, token in enumerate(ids):
                reads.setdefault(ids[:depth], []).append((number, token))
        inner = {node[:depth] for node in reads for depth in range(len(node))}
        leaves = tuple(node for node in reads if node not in inner)
        hosted: dict[Ids, list[Ids]] = {leaf: [] for leaf in leaves}
        for node in reads:
            hosted[next(leaf for leaf in leaves if leaf[: len(node)] == node)].append(node)
        return cls(reads, leaves, hosted)


def _clashes(labels: Sequence[Ids]) -> list[tuple[int, int]]:
    """Pairs of labels, the first of which is the other or its beginning; neighbours in order."""
    order = sorted(range(len(labels)), key=lambda number: labels[number])
    return [
        (one, other)
        for one, other in pairwise(order)
        if labels[other][: len(labels[one])] == labels[one]
    ]


def _read(
    model: LabModel,
    rows: Sequence[Row],
    frozen: dict[int, Prefix | None],
    tree: _LabelTree,
    tables: list[Tensor],
) -> None:
    """Run some rows, and add what they say to the tables."""
    prefix = side_by_side([frozen[row.group] for row in rows])
    first, width = length_of(prefix), max(len(row.ids) for row in rows)
    # Filled up on the right, with tokens that nothing reads: they cannot change the rest.
    ids = torch.full((len(rows), first + width), model.pad_id, dtype=torch.long)
    mask = torch.ones(len(rows), first + width, dtype=torch.bool)
    reads: list[tuple[int, int, Ids]] = []
    for number, row in enumerate(rows):
        ids[number, first : first + len(row.ids)] = torch.tensor(row.ids)
        reads += [(number, len(row.rest) - 1 + len(node), node) for node in tree.hosted[row.leaf]]
    if prefix is not None:
        mask[:, :first] = prefix.mask.cpu()
    batch = TokenBatch(ids, mask).to(model.device)
    resid = Execution(model, batch, prefix).forward()
    for start in range(0, len(reads), READ_AT_ONCE):
        some = reads[start : start + READ_AT_ONCE]
        at = torch.tensor([(number, pos) for number, pos, _ in some], device=resid.device).T
        logits = read_logits(model, resid[at[0], at[1]][:, None])[:, 0]
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        wanted = [
            (read, token, rows[number].group, rows[number].place, label)
            for read, (number, _, node) in enumerate(some)
            for label, token in tree.reads[node]
        ]
        where = torch.tensor([entry[:2] for entry in wanted], device=logits.device).T
        values = logits[where[0], where[1]] - logits.logsumexp(dim=-1)[where[0]]
        for value, (_, _, group, place, label) in zip(
            values.double().tolist(), wanted, strict=True
        ):
            tables[group][place, label] += value
