"""Queries without demonstrations, run on from a replaced state at the last position.

A change at the last position of a prompt, after block l, leaves every other position as it was,
and blocks 0..l at that position too. So the queries' keys and values are frozen once, and every
change (a layer, a vector, a scale, a query) is one row of one token that starts at block l + 1.

Labels are scored by their first token throughout: a vector changes the next token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from labkit import stats
from labkit.errors import InputError, PoolTooSmall
from labkit.icl.asking.scoring import label_ids
from labkit.icl.tasks.items import Item, Task
from labkit.metrics import widened
from labkit.models.model import LabModel
from labkit.running.beginnings import Ids
from labkit.running.execute import Execution, freeze
from labkit.running.logits import MEMORY, rows_within
from labkit.running.scoring import READ_AT_ONCE, logits_of
from labkit.running.states import Spot, last_states

READINGS: dict[str, str] = {
    "accuracy": "accuracy among the labels",
    "said": "right label is the likeliest token",
    "log_prob": "log-probability of the right label",
    "mass": "probability of all labels together",
}
"""What is read of an answer: shares in 0..1, and a log-probability in nats."""


@dataclass(frozen=True)
class Labels:
    """The label space by first tokens, and how answers to queries are read.

    Attributes:
        first: First token of every label.
        gold: By query, the number of its label.
    """

    first: Int[Tensor, " label"]
    gold: Int[Tensor, " query"]

    @classmethod
    def of(cls, model: LabModel, task: Task, queries: Sequence[Item]) -> "Labels":
        """The labels of a task.

        Raises:
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token.
        """
        ids = label_ids(model, task.template, task.labels, tokens="first")
        gold = [task.labels.index(query.label) for query in queries]
        first = torch.tensor([own[0] for own in ids], device=model.device)
        return cls(first, torch.tensor(gold, device=model.device))

    def read(
        self, logits: Float[Tensor, "row vocab"], queries: Int[Tensor, " row"]
    ) -> Float[np.ndarray, "reading row"]:
        """The `READINGS` of rows that belong to some queries."""
        own, right = widened(logits).log_softmax(dim=-1), self.gold[queries]
        among = own[:, self.first]
        read = torch.stack(
            [
                (among.argmax(dim=-1) == right).to(own.dtype),
                (own.argmax(dim=-1) == self.first[right]).to(own.dtype),
                among.gather(1, right[:, None])[:, 0],
                among.exp().sum(dim=-1),
            ]
        )
        return read.double().cpu().numpy()

    def read_states(
        self,
        model: LabModel,
        states: Float[Tensor, "row d_model"],
        queries: Int[Tensor, " row"],
    ) -> Float[np.ndarray, "reading row"]:
        """The same of states that left the last block."""
        parts = [
            self.read(logits_of(model, some), rows)
            for some, rows in zip(
                states.split(READ_AT_ONCE), queries.split(READ_AT_ONCE), strict=True
            )
        ]
        return np.concatenate(parts, axis=1)


class LastPositions:
    """Some prompts, whose last position can be continued from any block.

    Args:
        model: The model.
        prompts: Their ids.
        memory: Bound on the activations held at once, in bytes.

    Attributes:
        run: The last position alone, after the frozen others.
        states: The stream leaving each block there.
    """

    def __init__(self, model: LabModel, prompts: Sequence[Ids], *, memory: int = MEMORY) -> None:
        self.model, self._memory = model, memory
        batch = model.pad(prompts)
        length = batch.shape[1] - 1
        prefix = freeze(model, batch, length=length) if length else None
        self._rows = rows_within(model, length + 1, memory)
        with torch.no_grad():
            self.run = Execution(model, batch, prefix)
            found, resid = [], self.run.embed
            for layer in range(model.n_layers):
                resid = self.run.forward(resid, start=layer, stop=layer + 1)
                found.append(resid[:, 0])
        self.states: Float[Tensor, "layer prompt d_model"] = torch.stack(found)

    @torch.no_grad()
    def continued(
        self,
        layer: int,
        states: Float[Tensor, "row d_model"],
        prompts: Int[Tensor, " row"],
    ) -> Float[Tensor, "row d_model"]:
        """The state leaving the last block, given a state after block `layer`."""
        return torch.cat(
            [
                self.run.forward(some[:, None], start=layer + 1, rows=rows)[:, 0]
                for some, rows in zip(
                    states.split(self._rows), prompts.split(self._rows), strict=True
                )
            ]
        )


def read_behind(
    model: LabModel, labels: Labels, sets: Sequence[Sequence[Ids]], *, memory: int = MEMORY
) -> Float[np.ndarray, "reading set query"]:
    """The `READINGS` of all queries after each set of demonstrations."""
    queries = torch.arange(len(labels.gold), device=model.device)
    last: Spot = ("resid_post", model.n_layers - 1)
    states = (last_states(model, prompts, [last], memory=memory)[last] for prompts in sets)
    return np.stack([labels.read_states(model, own, queries) for own in states], axis=1)


def parted(
    task: Task, development: int, queries: int, n_shots: int, *, seed: int
) -> tuple[list[Item], list[Item], list[Item]]:
    """Queries to choose on, queries to measure on, and the pool of demonstrations.

    Where the pool can spare fewer queries, both shares shrink alike.

    Raises:
        PoolTooSmall: If it cannot spare one of each.
    """
    asked, pool = task.queries_and_pool(development + queries, n_shots, seed=seed)
    if len(asked) < 2:
        raise PoolTooSmall(
            f"{n_shots} items of {task.name!r} for demonstrations leave {len(asked)} of "
            f"{len(task)} to ask about: one to choose a layer on and another to measure on are "
            "needed"
        )
    share = development / (development + queries)
    first = min(max(1, round(share * len(asked))), len(asked) - 1)
    return asked[:first], asked[first:], pool


def random_like(
    vectors: Float[Tensor, "*any d_model"], seed: int, *content: object
) -> Float[Tensor, "*any d_model"]:
    """Random directions, each with the norm of the vector that it stands for."""
    draw = stats.generator(seed, *content)
    noise = torch.randn(vectors.shape, generator=draw, dtype=torch.float64)
    noise = noise / noise.norm(dim=-1, keepdim=True)
    return (noise.to(vectors.device) * vectors.double().norm(dim=-1, keepdim=True)).to(vectors)


@torch.no_grad()
def words(
    model: LabModel, vectors: Float[Tensor, "vector d_model"], n: int = 5
) -> tuple[tuple[str, ...], ...]:
    """The tokens that each vector reads as through the final norm and unembedding, best first."""
    found = []
    for some in vectors.split(READ_AT_ONCE):
        logits = logits_of(model, some)
        found += logits.topk(min(n, logits.shape[-1])).indices.tolist()
    return tuple(tuple(model.tokenizer.decode([token]) for token in row) for row in found)


def chosen_layers(model: LabModel, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers asked for; all by default.

    Raises:
        LayerOutOfRange: If there is no such layer.
        InputError: If none is asked for, or one twice.
    """
    chosen = tuple(range(model.n_layers)) if layers is None else tuple(map(model.layer, layers))
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"layers, each once and at least one, not {list(chosen)}")
    return chosen


def swept(
    asked: LastPositions,
    labels: Labels,
    layer: int,
    changed: Float[Tensor, "vector scale draw query d_model"],
) -> Float[np.ndarray, "reading vector scale draw query"]:
    """The answers to queries whose state after a block was replaced."""
    *shape, n_queries, _ = changed.shape
    rows = rearrange(
        changed, "vector scale draw query d_model -> (vector scale draw query) d_model"
    )
    numbers = torch.arange(n_queries, device=rows.device).repeat(len(rows) // n_queries)
    found = labels.read_states(asked.model, asked.continued(layer, rows, numbers), numbers)
    return found.reshape(len(READINGS), *shape, n_queries)
