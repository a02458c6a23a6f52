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
from itertools import pairwise, takewhile
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.corpus import Progress
from labkit.errors import AmbiguousLabels, ContextTooShort, EmptyPrompt, InputError
from labkit.execute import MEMORY, Execution, Prefix, freeze, read_logits, rows_within
from labkit.icl.tasks import Task, Template
from labkit.models import LabModel
from labkit.tokens import TokenBatch, pad_id, target_ids

Tokens = Literal["all", "first"]
"""How much of a label is scored."""

Ids = tuple[int, ...]

READ_AT_ONCE = 512
"""Positions whose logits are held at once: 100 MB for a vocabulary of 50k in float32."""

ALONE = 4
"""Rows from which on a set of demonstrations is run by itself, its keys copied for none."""


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
    if tokens not in ("all", "first"):
        raise InputError(f"labels are scored by 'all' their tokens or the 'first', not {tokens!r}")
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
    shared = [_shared(prompts) for prompts in groups]
    done, total = 0, sum(map(len, groups))
    for hosts in _batches(model, _hosts(shared), memory):
        prefixes = _freeze(model, list(hosts))
        members = [number for host in hosts for number in hosts[host]]
        frozen = {
            number: prefix.head(len(shared[number])) if shared[number] else None
            for host, prefix in zip(hosts, prefixes, strict=True)
            for number in hosts[host]
        }
        rows = [
            _Row(number, place, prompt[len(shared[number]) :], leaf)
            for number in members
            for place, prompt in enumerate(groups[number])
            for leaf in tree.leaves
        ]
        for chunk in _chunks(model, rows, frozen, memory):
            _read(model, chunk, frozen, tree, tables)
        done += sum(len(groups[number]) for number in members)
        if progress is not None:
            progress(f"{done} of {total} prompts scored", done / total)
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


@dataclass(frozen=True)
class _Row:
    """What is run of one prompt behind its frozen beginning: the rest, and a label's tokens."""

    group: int
    place: int
    rest: Ids
    leaf: Ids

    @property
    def ids(self) -> Ids:
        return (*self.rest, *self.leaf)


def _clashes(labels: Sequence[Ids]) -> list[tuple[int, int]]:
    """Pairs of labels, the first of which is the other or its beginning; neighbours in order."""
    order = sorted(range(len(labels)), key=lambda number: labels[number])
    return [
        (one, other)
        for one, other in pairwise(order)
        if labels[other][: len(labels[one])] == labels[one]
    ]


def _shared(prompts: Sequence[Ids]) -> Ids:
    """What all prompts begin with, short of the last token of each."""
    first, last = min(prompts), max(prompts)  # what these two share, all do
    common = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(token for token, _ in common)[: min(map(len, prompts)) - 1]


def _hosts(shared: Sequence[Ids]) -> dict[Ids, list[int]]:
    """The beginnings that must be run, each with the groups that it, or a part of it, serves."""
    hosts: dict[Ids, list[int]] = {}
    waiting: list[int] = []
    order = sorted(range(len(shared)), key=lambda number: shared[number])
    for place, number in enumerate(order):
        waiting.append(number)
        following = shared[order[place + 1]] if place + 1 < len(order) else None
        if following is None or following[: len(shared[number])] != shared[number]:
            hosts[shared[number]] = waiting
            waiting = []
    return hosts


def _batches(model: LabModel, hosts: dict[Ids, list[int]], memory: int):
    """Hosts of similar length together, as many as memory allows."""
    order = sorted(hosts, key=len)
    a_position = 2 * model.n_layers * model.n_heads * model.d_head * model.dtype.itemsize
    while order:
        longest = max(1, len(order[-1]))
        fit = min(rows_within(model, longest, memory), max(1, memory // (longest * a_position)))
        some, order = order[-fit:], order[:-fit]
        yield {host: hosts[host] for host in some}


def _freeze(model: LabModel, beginnings: Sequence[Ids]) -> list[Prefix | None]:
    """Keys and values of some beginnings, run together; None for an empty one."""
    full = [ids for ids in beginnings if ids]
    if not full:
        return [None] * len(beginnings)
    batch = model.pad(full)
    together = freeze(model, batch, length=batch.shape[1])
    rows = iter(range(len(full)))
    return [_row(together, next(rows), len(ids)) if ids else None for ids in beginnings]


def _row(prefix: Prefix, row: int, length: int) -> Prefix:
    """One row of a frozen batch, without its padding."""
    first = prefix.length - length
    return Prefix(
        tuple(states[row : row + 1, :, first:] for states in prefix.keys),
        tuple(states[row : row + 1, :, first:] for states in prefix.values),
        prefix.mask[row : row + 1, first:],
    )


def _chunks(model: LabModel, rows: Sequence[_Row], frozen: dict[int, Prefix | None], memory: int):
    """Rows that are run together: those of one group, or a few each of several."""
    by_group: dict[int, list[_Row]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    pooled = [row for some in by_group.values() if len(some) < ALONE for row in some]
    a_position = 2 * model.n_layers * model.n_heads * model.d_head * model.dtype.itemsize
    for some in (*(some for some in by_group.values() if len(some) >= ALONE), pooled):
        order = sorted(some, key=lambda row: (len(row.ids), _length(frozen[row.group])))
        while order:
            behind = max(_length(frozen[row.group]) for row in order)
            fit = rows_within(model, behind + len(order[-1].ids), memory)
            if some is pooled:  # here every row gets a copy of its keys and values
                fit = min(fit, max(1, memory // max(1, behind * a_position)))
            yield order[-fit:]
            order = order[:-fit]


def _length(prefix: Prefix | None) -> int:
    """Positions of a prefix that may be none."""
    return 0 if prefix is None else prefix.length


def _side_by_side(prefixes: Sequence[Prefix | None]) -> Prefix | None:
    """Prefixes of single rows as one, padded on the left; one for all where they are the same."""
    longest = max(map(_length, prefixes))
    if longest == 0:
        return None
    some = next(prefix for prefix in prefixes if prefix is not None)
    if all(prefix is some for prefix in prefixes):
        return some

    def stacked(states: Sequence[Tensor | None], like: Tensor) -> Tensor:
        out = like.new_zeros((len(states), like.shape[1], longest, like.shape[3]))
        for row, own in enumerate(states):
            if own is not None:
                out[row, :, longest - own.shape[2] :] = own[0]
        return out

    layers = range(len(some.keys))
    mask = torch.zeros(len(prefixes), longest, dtype=torch.bool, device=some.mask.device)
    for row, prefix in enumerate(prefixes):
        mask[row, longest - _length(prefix) :] = True
    return Prefix(
        tuple(
            stacked([p and p.keys[layer] for p in prefixes], some.keys[layer]) for layer in layers
        ),
        tuple(
            stacked([p and p.values[layer] for p in prefixes], some.values[layer])
            for layer in layers
        ),
        mask,
    )


def _read(
    model: LabModel,
    rows: Sequence[_Row],
    frozen: dict[int, Prefix | None],
    tree: _LabelTree,
    tables: list[Tensor],
) -> None:
    """Run some rows, and add what they say to the tables."""
    prefix = _side_by_side([frozen[row.group] for row in rows])
    first, width = _length(prefix), max(len(row.ids) for row in rows)
    # Filled up on the right, with tokens that nothing reads: they cannot change the rest.
    ids = torch.full((len(rows), first + width), pad_id(model.tokenizer), dtype=torch.long)
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
