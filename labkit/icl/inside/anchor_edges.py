"""Edges of attention among demonstrations and query: listing them, and running without them.

Positions are those of a prompt's ids. Everything before the query is the *front*; it is the same
for all queries after the same demonstrations, and its keys and values are run once. Its first token
is kept apart from its parts: it serves as an attention sink.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.icl.tasks.prompts import Prompt, ShotSpans
from labkit.models.model import LabModel
from labkit.running.activations import capture, patched
from labkit.running.beginnings import Ids
from labkit.running.execute import Execution, freeze
from labkit.running.logits import read_logits
from labkit.running.packing import filled, unmasked
from labkit.running.prefixes import Prefix
from labkit.tokens import TokenSpan

PARTS = ("labels", "inputs", "format", "query", "first token")
"""Parts of a prompt; every position is of one. *Format* are the words of the template, separators
and an instruction."""

EDGES = (
    "query to labels",
    "query to inputs",
    "query to all before",
    "query to first token",
    "labels to own input",
    "labels to all before",
)
"""Sets of edges that can be blocked; the first token is blocked only where it is named."""


@dataclass(frozen=True)
class Cut:
    """Edges that are blocked together.

    Attributes:
        front: True where a position of the front may not look at another.
        query: True where no position of the query may look.
    """

    front: Bool[np.ndarray, "pos key"]
    query: Bool[np.ndarray, " key"]

    @property
    def n_edges(self) -> int:
        """Edges that are blocked in a head: those of the query counted once."""
        return int(self.front.sum() + self.query.sum())

    @classmethod
    def nothing(cls, n: int) -> "Cut":
        """No edge of a front of `n` positions."""
        return cls(np.zeros((n, n), dtype=bool), np.zeros(n, dtype=bool))


def parts_of(prompt: Prompt) -> Int[np.ndarray, " pos"]:
    """The part of every position, as its place in `PARTS`."""
    parts = np.full(len(prompt.ids), PARTS.index("format"))
    parts[prompt.query.start :] = PARTS.index("query")
    for name in ("inputs", "labels"):  # a token glued to both is the label's
        for own in _spans(prompt, name):
            parts[list(own)] = PARTS.index(name)
    parts[0] = PARTS.index("first token")
    return parts


def _spans(prompt: Prompt, name: str) -> list[TokenSpan]:
    """Inputs or labels of the demonstrations."""
    found = [shot.label if name == "labels" else shot.input for shot in prompt.shots]
    return [span for span in found if span is not None]


def cut_of(edges: str, prompt: Prompt, n: int) -> Cut:
    """The cut for a set of edges, in a front of `n` positions."""
    cut, parts = Cut.nothing(n), parts_of(prompt)[:n]
    if edges.startswith("query"):
        masks = {
            "query to labels": parts == PARTS.index("labels"),
            "query to inputs": parts == PARTS.index("inputs"),
            "query to all before": np.arange(n) > 0,
            "query to first token": np.arange(n) == 0,
        }
        cut.query[:] = masks[edges]
        return cut
    for shot in prompt.shots:
        label, own = _label_and_input(shot)
        seen = own if edges == "labels to own input" else range(label.start)
        for row in label:
            cut.front[row, [key for key in seen if 0 < key < label.start]] = True
    return cut


def random_cut(edges: str, prompt: Prompt, n: int, draw: np.random.Generator) -> Cut | None:
    """As many random edges as a cut has, or as there are; None where there are none.

    From the query: to other tokens that are no labels. From labels to their inputs: to such
    tokens before them. From labels to all: such tokens, as many as labels, that may look at
    nothing before them. The first token is left alone.
    """
    real, cut = cut_of(edges, prompt, n), Cut.nothing(n)
    plain = ~np.isin(
        parts_of(prompt)[:n], [PARTS.index(name) for name in ("labels", "first token")]
    )
    if edges.startswith("query"):
        pool = np.flatnonzero(plain & ~real.query)
        cut.query[draw.permutation(pool)[: real.query.sum()]] = True
    elif edges == "labels to own input":
        for shot in prompt.shots:
            label, _ = _label_and_input(shot)
            for row in label:
                pool = np.flatnonzero(plain & ~real.front[row])
                pool = pool[pool < label.start]
                cut.front[row, draw.permutation(pool)[: real.front[row].sum()]] = True
    else:
        pool, n_labels = np.flatnonzero(plain), real.front.any(axis=1).sum()
        for row in draw.permutation(pool[pool > 1])[:n_labels]:
            cut.front[row, 1:row] = True
    return cut if cut.n_edges else None


def _label_and_input(shot: ShotSpans) -> tuple[TokenSpan, TokenSpan]:
    """Where a demonstration's label and input are; both are shown here."""
    assert shot.label is not None and shot.input is not None
    return shot.label, shot.input


class BlockedRuns:
    """Queries after one front, asked with edges blocked in some layers.

    Args:
        model: The model.
        prompts: The queries after the same demonstrations.
        answers: Tokens whose log-probability is read after each.
    """

    def __init__(self, model: LabModel, prompts: Sequence[Prompt], answers: Sequence[int]) -> None:
        self.model, self.answers = model, list(answers)
        self.n = front_length(prompts)
        self.front = model.pad([prompts[0].ids[: self.n]])
        self.batch = unmasked(filled(model, [prompt.ids for prompt in prompts]))
        ends = [len(prompt.ids) - 1 - self.n for prompt in prompts]
        self.last = torch.tensor(ends, device=model.device)
        self.front_run = Execution(model, self.front)
        with capture(model, ["resid_pre"]) as seen:
            _, self.prefix = self.front_run.freeze()
        self.front_streams = [seen["resid_pre", layer] for layer in range(model.n_layers)]
        self.run = Execution(model, self.batch, self.prefix)
        with capture(model, ["resid_pre"]) as seen:
            self.leaving = self.run.forward()
        self.streams = [seen["resid_pre", layer] for layer in range(model.n_layers)]

    def clean(self) -> Float[Tensor, "query answer"]:
        """Log-probabilities with nothing blocked, in nats."""
        return self._read(self.leaving)

    def blocked(self, cut: Cut, start: int, stop: int) -> Float[Tensor, "query answer"]:
        """Log-probabilities with the cut's edges blocked in layers `start..stop-1`, in nats."""
        run = self.run
        if cut.front.any():
            run = Execution(self.model, self.batch, self._front_without(cut, start, stop))
        keys = torch.zeros(self.batch.shape[1], dtype=torch.bool)
        keys[: self.n] = torch.from_numpy(cut.query)
        attend = ~keys.to(self.model.device)[None, None, None]
        resid = run.forward(self.streams[start], start=start, stop=stop, attend=attend)
        return self._read(run.forward(resid, start=stop))

    def _front_without(self, cut: Cut, start: int, stop: int) -> Prefix:
        """Keys and values of the front with its edges blocked.

        It is run once with the edges blocked; then its keys and values are those of a run in
        which every block is entered by what entered it there.
        """
        attend = ~torch.from_numpy(cut.front).to(self.model.device)[None, None]
        layers = range(start + 1, self.model.n_layers)
        with capture(self.model, ["resid_pre"], layers) as seen:
            resid = self.front_streams[start]
            resid = self.front_run.forward(resid, start=start, stop=stop, attend=attend)
            self.front_run.forward(resid, start=stop)

        def entered(_own: Tensor, stream: Tensor) -> Tensor:
            return stream

        changes: dict = {key: partial(entered, stream=stream) for key, stream in seen.items()}
        with patched(self.model, changes):
            return freeze(self.model, self.front, length=self.n)

    def _read(self, resid: Float[Tensor, "query pos d_model"]) -> Float[Tensor, "query answer"]:
        """Log-probabilities of the answers after each query."""
        ends = resid[torch.arange(len(resid), device=resid.device), self.last][:, None]
        logits = read_logits(self.model, ends)[:, 0]
        return logits.double().log_softmax(dim=-1)[:, self.answers].cpu()


def front_length(prompts: Sequence[Prompt]) -> int:
    """How many tokens stand before the query, the same in all of the prompts."""
    n = min(prompt.query.start for prompt in prompts)
    first = prompts[0].ids
    while any(prompt.ids[:n] != first[:n] for prompt in prompts):  # a query glued to the front
        n -= 1
    return n


def attention_and_saliency(
    model: LabModel, ids: Ids, answer: int
) -> tuple[Float[Tensor, "layer head pos key"], Float[Tensor, "layer pos key"]]:
    """Attention weights of one prompt, and |sum over heads of A * dL/dA|, with L = -log P(answer).

    Args:
        model: The model.
        ids: The prompt.
        answer: The token that should follow.

    References:
        Wang et al. (2023), Label Words are Anchors, equation 1.
    """
    weights: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable:
        def kept(pattern: Tensor, hook: object) -> Tensor:
            weights[layer] = pattern
            return pattern

        return kept

    hooks: list = [("hook_embed", lambda embed, hook: embed.detach().requires_grad_())]
    hooks += [(f"blocks.{layer}.attn.hook_pattern", keep(layer)) for layer in range(model.n_layers)]
    with torch.enable_grad():
        batch = torch.tensor([ids], device=model.device)
        logits = model.bridge.run_with_hooks(batch, fwd_hooks=hooks)[0, -1]
        loss = -logits.log_softmax(dim=-1)[answer]
        patterns = [weights[layer] for layer in range(model.n_layers)]
        grads = torch.autograd.grad(loss, patterns)
    attention = torch.stack([pattern.detach()[0] for pattern in patterns]).double()
    gradient = torch.stack([grad[0] for grad in grads]).double()
    return attention.cpu(), (attention * gradient).sum(dim=1).abs().cpu()
