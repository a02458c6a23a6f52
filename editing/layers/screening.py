"""Which layers are worth editing, estimated from keys without making an edit.

With `w = C^-1 k* / (k*^T C^-1 k*)`, a rank-one edit answers a key `k` by the share `k . w` of
its change: 1 at `k*` itself. At the subject in a paraphrase that share should be near 1 (*hit*); in
a prompt about another subject it should be near 0 at every position (*leak*, the largest absolute
share of the prompt). Their difference is the *margin*.

What this does not show: whether the model still reads from there what the edit writes. Late layers
have margins too, but edits there fail; only an edit shows this (`editing.layers.sweep`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from editing.methods.closed_form.keys import key_star, place
from editing.methods.closed_form.prepared import moments
from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError, SubjectNotFound
from labkit.facts.fact import Case
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.running.activations import capture
from labkit.running.execute import Execution
from labkit.text.corpus import Corpus

MATRICES = 1 << 30
"""Bound, in bytes, on the second moments that are held at once."""

ROWS = 16
"""Prompts run together."""

PARTS = ("hit", "leak", "margin")


@dataclass(frozen=True, kw_only=True)
class ScreeningOptions:
    """How layers are screened: what `k*` and `C` are made of.

    Attributes:
        bare_weight: Share of the bare prompt's key in `k*`, 0..1; by default 0.5.
        facts_share: Share of `C` from prompts that ask for facts, 0..1; by default 0.5.
        corpus: The text behind `C`; by default the model's own.

    Raises:
        InputError: If a share is none.
    """

    bare_weight: float = 0.5
    facts_share: float = 0.5
    corpus: Corpus | None = None

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        for name in ("bare_weight", "facts_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}: choose a share, 0 to 1")


USUAL = ScreeningOptions()
"""Half of each, as the closed-form methods have it, and the model's own text."""


@dataclass(frozen=True)
class _Prompts:
    """The prompts of one case, as ids: in contexts up to the subject, the others up to it."""

    subject: list[list[int]]
    paraphrases: list[list[int]]
    neighbours: list[list[int]]


@checked
def screen(
    model: LabModel,
    cases: Sequence[Case],
    layers: Sequence[int],
    contexts: Sequence[str],
    how: ScreeningOptions = USUAL,
    *,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Hit, leak and margin of every layer, means over cases with their intervals.

    Args:
        model: The model; it is not edited.
        cases: The cases.
        layers: Which layers.
        contexts: The contexts put before a prompt; the first one is empty.
        how: What `k*` and `C` are made of.
        progress: Called as measuring goes on.

    Returns:
        One row per layer and part: layer, metric ("hit", "leak", "margin"), mean, low, high, n
        (cases). A part that no case has prompts for is left out.
    """
    layers = sorted({model.layer(layer) for layer in layers})
    prompts = [_prompts(model, case, contexts) for case in cases]
    at_once = max(1, MATRICES // (3 * 8 * model.d_mlp**2))
    rows = []
    for first in range(0, len(layers), at_once):
        some = layers[first : first + at_once]
        told = part_of(progress, first / len(layers), len(some) / len(layers), "screening: ")
        found = _shares(model, prompts, some, how, told)
        for place_of, layer in enumerate(some):
            for part in PARTS:
                values = found[part][:, place_of]
                values = values[np.isfinite(values)]
                if len(values):
                    estimate = stats.average(values).to_dict()
                    rows.append({"layer": layer, "metric": part, **estimate})
    return pd.DataFrame(rows)


def _shares(
    model: LabModel,
    prompts: Sequence[_Prompts],
    layers: Sequence[int],
    how: ScreeningOptions,
    told: Progress,
) -> dict[str, np.ndarray]:
    """By part, `[case layer]`; NaN where a case has no such prompt."""
    half = part_of(told, 0.0, 0.5)
    found = moments(model, layers, how.facts_share, corpus=how.corpus, progress=half)
    parts = {part: np.full((len(prompts), len(layers)), np.nan) for part in PARTS}
    for number, case in enumerate(prompts):
        told("reading keys", 0.5 + 0.5 * number / len(prompts))
        own = torch.cat([keys[:, :, -1] for keys, _ in _keys(model, case.subject, layers)], dim=1)
        k_star = key_star(own, how.bare_weight).double()
        solved = [found[layer].solve(k_star[i][None])[0] for i, layer in enumerate(layers)]
        w = torch.stack([s / (s @ k) for s, k in zip(solved, k_star, strict=True)])
        if case.paraphrases:
            said = [_answers(k[:, :, -1:], w) for k, _ in _keys(model, case.paraphrases, layers)]
            parts["hit"][number] = torch.cat(said, dim=1).mean(dim=(1, 2)).numpy()
        if case.neighbours:
            said = [
                (_answers(keys, w).abs() * mask).amax(dim=-1)
                for keys, mask in _keys(model, case.neighbours, layers)
            ]
            parts["leak"][number] = torch.cat(said, dim=1).mean(dim=1).numpy()
    parts["margin"] = parts["hit"] - parts["leak"]
    return parts


def _answers(
    keys: Float[Tensor, "layer row pos d_mlp"], w: Float[Tensor, "layer d_mlp"]
) -> Float[Tensor, "layer row pos"]:
    """The share of an edit's change that every key is answered with."""
    return torch.einsum("lrpm,lm->lrp", keys.double(), w).cpu()


@torch.no_grad()
def _keys(
    model: LabModel, rows: Sequence[list[int]], layers: Sequence[int]
) -> Iterator[tuple[Float[Tensor, "layer row pos d_mlp"], Tensor]]:
    """Keys of some layers at every position, a few prompts at a time, and where tokens are."""
    for first in range(0, len(rows), ROWS):
        batch = model.pad(rows[first : first + ROWS])
        with capture(model, ["ffn_key"], layers) as seen:
            Execution(model, batch).forward(stop=max(layers) + 1)
        keys = torch.stack([seen["ffn_key", layer] for layer in layers])
        yield keys, batch.mask.cpu()


def _prompts(model: LabModel, case: Case, contexts: Sequence[str]) -> _Prompts:
    """A case's prompts as ids; a paraphrase that does not name the subject is left out."""
    rewrite = case.rewrite
    behind = [place(model, c, rewrite.template, rewrite.subject) for c in contexts]
    paraphrases = []
    for prompt in case.paraphrases:
        try:
            last = model.span(prompt, rewrite.subject).last
        except SubjectNotFound:
            continue
        paraphrases.append(model.ids(prompt)[: last + 1])
    return _Prompts(
        subject=[placed.ids[: placed.subject_last + 1] for placed in behind],
        paraphrases=paraphrases,
        neighbours=[model.ids(near.prompt) for near in case.neighbours],
    )
