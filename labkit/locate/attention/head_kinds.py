"""Previous-token, duplicate-token and induction scores of every head.

On a sequence of random tokens that is given twice, `s_1 .. s_n s_1 .. s_n`, the score of a
head is the mean attention weight that its queries put on

- *previous token*: the token before;
- *duplicate token*: the earlier copy of the same token (queries of the second half);
- *induction*: the token after that copy, which is what comes next.

Random tokens have no meaning, so that nothing but the repetition can be used. The edges are
transformer_lens' detection patterns, and so is the sum over them (`detect_head`).

Two baselines: *chance* is the score of a head with uniform attention, and the *control* the score
on the same edges where the second half is other tokens instead. A head that merely attends n tokens
back scores there as well.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache, head_detector

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.activations import run_with_cache
from labkit.stats.intervals import over_units
from labkit.tokens import TokenBatch

PATTERNS = {
    "previous token": head_detector.get_previous_token_head_detection_pattern,
    "duplicate token": head_detector.get_duplicate_token_head_detection_pattern,
    "induction": head_detector.get_induction_head_detection_pattern,
}
"""transformer_lens' detection patterns, from `[1, pos]` ids to edges `[query, key]`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadScores(Measured):
    """Mean attention weight of every head on the edges that define a kind of head.

    Attributes:
        kinds: Kinds of heads.
        scores: On repeated random tokens, 0..1.
        control: On the same edges, with nothing repeated.
        chance: Score of a head with uniform attention, by kind.
        length: Number of tokens that are repeated.
        seed: Seed of the tokens.
    """

    kinds: tuple[str, ...]
    scores: Float[np.ndarray, "kind sequence layer head"]
    control: Float[np.ndarray, "kind sequence layer head"]
    chance: tuple[float, ...]
    length: int
    seed: int

    @property
    def title(self) -> str:
        """The best head of each kind."""
        best = []
        for kind in self.kinds:
            layer, head = self.top(kind, 1)[0]
            mean = self.scores[self.kinds.index(kind), :, layer, head].mean()
            best.append(f"{kind} L{layer}H{head} {mean:.2f}")
        return f"Heads of {self.model} on repeated random tokens: " + ", ".join(best)

    def top(self, kind: str, n: int = 5) -> list[tuple[int, int]]:
        """The heads with the highest scores of a kind, as (layer, head).

        Raises:
            InputError: If there is no such kind.
        """
        if kind not in self.kinds:
            raise InputError(f"no kind of head {kind!r}: one of {', '.join(self.kinds)}")
        mean = self.scores[self.kinds.index(kind)].mean(axis=0)
        best = mean.ravel().argsort(kind="stable")[::-1][:n]
        return [(int(cell) // mean.shape[1], int(cell) % mean.shape[1]) for cell in best]

    def to_frame(self) -> pd.DataFrame:
        """One row per kind and head: kind, layer, head, mean, low, high, control, chance.

        Intervals are 95 %, over sequences.
        """
        layers, heads = (axis.ravel() for axis in np.indices(self.scores.shape[2:]))
        parts = []
        for row, kind in enumerate(self.kinds):
            found = over_units(self.scores[row], within=(0.0, 1.0))
            mean, low, high, _ = (values.ravel() for values in found)
            columns = {"kind": kind, "layer": layers, "head": heads}
            columns |= {"mean": mean, "low": low, "high": high}
            columns |= {"control": self.control[row].mean(axis=0).ravel()}
            parts.append(pd.DataFrame(columns | {"chance": self.chance[row]}))
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Any:
        """A grid of heads for each kind."""
        from labkit.plots import head_grids

        wide = self.to_frame().pivot(index=["layer", "head"], columns="kind")
        frame = pd.DataFrame({kind: wide["mean", kind] for kind in self.kinds})
        for kind in self.kinds:
            frame[f"{kind}_low"], frame[f"{kind}_high"] = wide["low", kind], wide["high", kind]
        return head_grids(
            frame.reset_index(), {kind: kind for kind in self.kinds}, title=self.title, shared=True
        )


@checked
@torch.no_grad()
def head_scores(
    model: LabModel, *, length: int = 50, n_sequences: int = 8, seed: int = 0
) -> HeadScores:
    """Previous-token, duplicate-token and induction scores of every head.

        head_scores(model).figure()

    Args:
        model: The model.
        length: Number of random tokens, all different, that are given twice.
        n_sequences: Number of sequences; the unit of the intervals.
        seed: Seed of the tokens.

    Raises:
        InputError: If the sequences are too short to repeat anything, too long for the
            model, or longer than the vocabulary; or if there are none.

    Shows:
        Which heads look at the token before, at an earlier copy, or at what followed that copy,
        on tokens that have no meaning.

    Does not show:
        That a head copies what it looks at, or that it does the same on text.

    References:
        Olsson et al. 2022, In-context Learning and Induction Heads, "Per-head scores".

    Differs from the paper: the mean is over the queries that have such a key (transformer_lens
    divides by all queries, which bounds its score by the share of those that have one).
    """
    special = set(model.tokenizer.all_special_ids)
    vocabulary = [t for t in range(min(len(model.tokenizer), model.d_vocab)) if t not in special]
    n_ctx = model.n_ctx or 2 * length + 2
    if n_sequences < 1 or not 2 <= length <= len(vocabulary) // 2 or 2 * length + 1 >= n_ctx:
        most = min(len(vocabulary) // 2, (n_ctx - 2) // 2)
        raise InputError(
            f"{n_sequences} sequences of {length} tokens, twice: {model.name} takes one sequence "
            f"or more of 2..{most} tokens"
        )
    bos = [model.tokenizer.bos_token_id] if model.prepend_bos else []
    repeated, fresh = [], []
    for sequence in range(n_sequences):
        draw = stats.generator(seed, "repeated tokens", length, sequence)
        order = torch.randperm(len(vocabulary), generator=draw)[: 2 * length].tolist()
        first, other = ([vocabulary[i] for i in half] for half in (order[:length], order[length:]))
        repeated.append([*bos, *first, *first])
        fresh.append([*bos, *first, *other])
    batch = model.pad(repeated)
    edges = {kind: pattern(batch.ids[:1].cpu()) for kind, pattern in PATTERNS.items()}
    measured = [_scores(model, run, edges) for run in (batch, model.pad(fresh))]
    alike = torch.ones(batch.shape[1], batch.shape[1]).tril()
    alike /= alike.sum(dim=1, keepdim=True)
    return HeadScores(
        kinds=tuple(PATTERNS),
        scores=measured[0],
        control=measured[1],
        chance=tuple(float((alike * e).sum() / _queries(e)) for e in edges.values()),
        length=length,
        **measured_on(model),
        seed=seed,
    )


@dataclass(frozen=True)
class _Given:
    """The part of a model that `detect_head` needs when it is given activations: shape and ids."""

    cfg: Any
    ids: Tensor

    def to_tokens(self, _text: str) -> Tensor:
        """The ids, whatever the text: random ids have none that leads back to them."""
        return self.ids


def _scores(
    model: LabModel, batch: TokenBatch, edges: dict[str, Tensor]
) -> Float[np.ndarray, "kind sequence layer head"]:
    """Mean weight on each set of edges, for every sequence and head."""
    _, cache = run_with_cache(model, batch)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.n_layers)]
    found = []
    for kind_edges in edges.values():
        # detect_head's share of all attention, times queries, is a sum over queries.
        scale = kind_edges.shape[0] / _queries(kind_edges)
        for row in range(batch.shape[0]):
            one = ActivationCache({name: cache[name][row].float() for name in names}, model.bridge)
            given: Any = _Given(model.bridge.cfg, batch.ids[row : row + 1])
            on_device = kind_edges.to(model.device)
            found.append(head_detector.detect_head(given, "", on_device, cache=one) * scale)
    shape = (len(edges), batch.shape[0], model.n_layers, model.n_heads)
    return torch.stack(found).float().cpu().numpy().reshape(shape)


def _queries(edges: Float[Tensor, "query key"]) -> int:
    """Number of queries that have an edge."""
    return int(edges.any(dim=1).sum())
