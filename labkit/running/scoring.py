"""Log-probabilities of texts as continuations of prompts, and greedy generation.

    nll, argmax = score(model, [("The Eiffel Tower is in", "Paris"), ...])
    logprobs = next_logprobs(model, prompts)
    texts = generate(model, prompts, 16)

All scoring of the lab ends here. Texts are tokenised whole, and only then compared: what is
shared are tokens, so that scores are those of each prompt run by itself. Nothing is run twice:
neither what prompts begin with (`labkit.running.packing`), nor what several continuations of
one prompt begin with; and only what is read is unembedded.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.arguments import checked
from labkit.metrics import widened
from labkit.progress import Progress, listener
from labkit.running.beginnings import Ids
from labkit.running.logits import MEMORY, read_logits
from labkit.running.packing import packed
from labkit.tokens import target_ids

if TYPE_CHECKING:
    from labkit.models.model import LabModel

READ_AT_ONCE = 512
"""Positions whose logits are held at once: 100 MB for a vocabulary of 50k in float32."""

ROWS = 64
"""Prompts continued together."""


@checked
@torch.no_grad()
def score(
    model: "LabModel", pairs: Sequence[tuple[str, str]], *, memory: int = MEMORY
) -> tuple[Float[Tensor, " pair"], Bool[Tensor, " pair"]]:
    """Score targets as continuations of prompts.

    Args:
        model: The model.
        pairs: Prompts and targets.
        memory: Bound on the activations held at once, in bytes.

    Returns:
        The mean negative log-likelihood of each target's tokens in nats, as CounterFact's
        authors compare them, and whether every one of them is the argmax.

    Raises:
        EmptyPrompt, EmptyTarget: For a pair that cannot be scored.
    """
    targets = [tuple(target_ids(model.tokenizer, prompt, target)) for prompt, target in pairs]
    asked: dict[Ids, list[int]] = {}
    for number, (prompt, _) in enumerate(pairs):
        asked.setdefault(tuple(model.ids(prompt)), []).append(number)
    answers = [[targets[number] for number in numbers] for numbers in asked.values()]
    nll = torch.zeros(len(pairs))
    argmax = torch.zeros(len(pairs), dtype=torch.bool)
    found = score_ids(model, list(asked), answers, memory=memory)
    for numbers, own in zip(asked.values(), found, strict=True):
        lengths = torch.tensor([len(targets[number]) for number in numbers])
        nll[numbers] = (-own.log_prob / lengths).float()
        argmax[numbers] = own.argmax
    return nll, argmax


@dataclass(frozen=True)
class Scores:
    """Scores of some continuations of a prompt.

    Attributes:
        log_prob: Of each, the sum over its tokens, in nats; float64, on the CPU.
        argmax: Whether every token of it is the one most probable one.
    """

    log_prob: Float[Tensor, " continuation"]
    argmax: Bool[Tensor, " continuation"]


@checked
@torch.no_grad()
def score_ids(
    model: "LabModel",
    prompts: Sequence[Ids],
    continuations: Sequence[Sequence[Ids]],
    *,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> list[Scores]:
    """Score continuations of prompts, both as token ids.

    Args:
        model: The model.
        prompts: The prompts.
        continuations: Of each prompt, at least one, none of them empty.
        memory: Bound on activations, and on frozen keys and values, in bytes.
        progress: Called as prompts are scored.

    Returns:
        By prompt, the scores of its continuations in their order.

    Raises:
        EmptyPrompt: If a prompt has no token.
        InputError: If one is too long with its continuation.
    """
    trees: dict[tuple[Ids, ...], _Tree] = {}
    rows: list[Ids] = []
    owners: list[tuple[int, _Tree, Ids]] = []  # by row, whose it is, and which leaf of its tree
    positions: list[list[int]] = []
    found: list[Scores] = []
    for number, (prompt, own) in enumerate(zip(prompts, continuations, strict=True)):
        key = tuple(own)
        tree = trees[key] = trees.get(key) or _Tree.of(key)
        for leaf, nodes in tree.hosted.items():
            rows.append((*prompt, *leaf))
            owners.append((number, tree, leaf))
            positions.append([len(prompt) - 1 + len(node) for node in nodes])
        found.append(
            Scores(torch.zeros(len(own), dtype=torch.float64), torch.ones(len(own)).bool())
        )
    done, told = 0, listener(progress)
    for read, logits in read_next(model, rows, positions, memory=memory):
        below = logits - logits.amax(dim=-1, keepdim=True)  # exact where a probability is near 1
        total = below.logsumexp(dim=-1)
        wanted: list[tuple[int, int, int, int]] = []
        for place, (row, position) in enumerate(read):
            number, tree, leaf = owners[row]
            node = leaf[: position - len(prompts[number]) + 1]
            wanted += [(place, token, number, one) for one, token in tree.reads[node]]
        at, tokens = (torch.tensor(column, device=logits.device) for column in
                      list(zip(*wanted, strict=True))[:2])  # fmt: skip
        asked = below[at, tokens]
        values = (asked - total[at]).double().tolist()
        tops = asked == 0
        ties = (below[at[tops]] == 0).sum(dim=-1) > 1  # what is shared is nobody's
        tops[tops.clone()] = ~ties
        for (_, _, number, one), value, top in zip(wanted, values, tops.tolist(), strict=True):
            found[number].log_prob[one] += value
            found[number].argmax[one] &= top
        done += len(read)
        share = done / sum(map(len, positions))
        told(f"{int(share * len(prompts))} of {len(prompts)} prompts scored", share)
    return found


@dataclass(frozen=True)
class _Tree:
    """Some continuations as a tree of tokens: what is read after which beginning of them.

    Attributes:
        reads: By beginning, the continuations that go on from it and their next token.
        hosted: By beginning that is the beginning of no other, those that are read in its row.
    """

    reads: dict[Ids, list[tuple[int, int]]]
    hosted: dict[Ids, list[Ids]]

    @classmethod
    def of(cls, continuations: Sequence[Ids]) -> "_Tree":
        """The tree of some continuations."""
        reads: dict[Ids, list[tuple[int, int]]] = {}
        for number, ids in enumerate(continuations):
            for depth, token in enumerate(ids):
                reads.setdefault(ids[:depth], []).append((number, token))
        nodes = sorted(reads)
        after = [*nodes[1:], None]
        leaves = [
            node
            for node, following in zip(nodes, after, strict=True)
            if following is None or following[: len(node)] != node
        ]
        hosted: dict[Ids, list[Ids]] = {leaf: [] for leaf in leaves}
        for node in nodes:  # the first leaf that does not come before it begins with it
            hosted[leaves[bisect_left(leaves, node)]].append(node)
        return cls(reads, hosted)


@torch.no_grad()
def read_next(
    model: "LabModel",
    rows: Sequence[Ids],
    positions: Sequence[Sequence[int]],
    *,
    memory: int = MEMORY,
) -> Iterator[tuple[list[tuple[int, int]], Float[Tensor, "read vocab"]]]:
    """Next-token distributions after some positions of rows of tokens.

    Args:
        model: The model.
        rows: The rows.
        positions: Of each row, where it is read, in rising order, at least one.
        memory: Bound on activations, and on frozen keys and values, in bytes.

    Yields:
        Rows with a position each, in an order of the engine's own, and the logits of the next
        token, float32 at least, on the model's device.

    Raises:
        EmptyPrompt, InputError: As `packed`.
    """
    for batch in packed(model, rows, [own[0] for own in positions], memory=memory):
        resid = batch.run.forward()
        reads = [
            (place, number, position)
            for place, number in enumerate(batch.numbers)
            for position in positions[number]
        ]
        for start in range(0, len(reads), READ_AT_ONCE):
            some = reads[start : start + READ_AT_ONCE]
            places = [place for place, _, _ in some]
            states = resid[places, batch.columns(places, [position for _, _, position in some])]
            yield [(number, pos) for _, number, pos in some], logits_of(model, states)


def logits_of(
    model: "LabModel", states: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row vocab"]:
    """Logits of states that left the last block, float32 at least."""
    return widened(read_logits(model, states[:, None])[:, 0])


@checked
def next_logprobs(
    model: "LabModel", prompts: Sequence[str], *, memory: int = MEMORY
) -> Float[Tensor, "prompt vocab"]:
    """Log-probabilities of what follows each prompt, float32 at least, on the CPU."""
    numbers: dict[Ids, list[int]] = {}
    for number, prompt in enumerate(prompts):
        numbers.setdefault(tuple(model.ids(prompt)), []).append(number)
    rows = list(numbers)
    found: list[Tensor] = [torch.empty(0)] * len(prompts)
    for read, logits in read_next(model, rows, [[len(row) - 1] for row in rows], memory=memory):
        for (row, _), logprobs in zip(read, logits.log_softmax(dim=-1).cpu(), strict=True):
            for number in numbers[rows[row]]:
                found[number] = logprobs
    return torch.stack(found)


@checked
@torch.no_grad()
def generate(model: "LabModel", prompts: Sequence[str], n_tokens: int) -> list[str]:
    """Greedy continuations of some prompts, the prompts themselves left out."""
    unique = sorted(dict.fromkeys(prompts), key=lambda prompt: (len(model.ids(prompt)), prompt))
    texts: dict[str, str] = {}
    for start in range(0, len(unique), ROWS):
        some = unique[start : start + ROWS]
        batch = model.tokens(some)
        out = model.hf.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            max_new_tokens=n_tokens,
            do_sample=False,
            pad_token_id=model.pad_id,
        )
        said = model.tokenizer.batch_decode(out[:, batch.shape[1] :], skip_special_tokens=True)
        texts |= dict(zip(some, said, strict=True))
    return [texts[prompt] for prompt in prompts]
