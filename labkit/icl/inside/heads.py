"""Induction and previous-token heads are found, then switched off: is in-context learning lost?

A previous-token head copies to every token which token stood before it; an induction head looks for
the token after an earlier copy of the present one, and repeats it. Together they continue any
sequence seen before, and are said to carry in-context learning. The test:

    found       by their attention on repeated random tokens (`labkit.locate.attention.head_kinds`)
    switched    their output replaced, at every position, by its *mean* over the positions of
    off         other text, or by *zero*
    score       loss late - loss early in a context, in nats: below zero where context helps;
                on other repeated random tokens, and on running text
    tasks       accuracy and log P(label) with demonstrations and without

each beside as many random heads of the same layers, which should matter less.

    HeadAblation(kinds=("induction",))(model, [labkit.icl.task("topic")]).figure()

References:
    Olsson et al. (2022), In-context Learning and Induction Heads: the in-context learning score
    ("In-context learning score", 500th minus 50th token), and Argument 3 (ablations).
    Crosbie and Shutova (2024), Induction Heads as an Essential Mechanism for Pattern Matching in
    In-context Learning: the share of heads, mean and zero ablation, random heads.

Differs from the paper:
    Olsson et al. keep attention patterns fixed and ablate heads one by one; here all heads of a
    kind go at once, and later patterns follow. The score is averaged over a tenth of the context
    around its places, 50 and 500 of 512 tokens scaled to the window.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.asking.queries import require_fit
from labkit.icl.asking.scoring import Tokens
from labkit.icl.behaviour.demonstrations import Demonstrations
from labkit.icl.inside.ablating import (
    mean_outputs,
    repeated_tokens,
    switched_off,
    token_losses,
    windows,
)
from labkit.icl.inside.heads_result import ALL, NOTHING, HeadAblationResult, Heads
from labkit.icl.tasks.items import Task
from labkit.locate.attention.head_kinds import PATTERNS, HeadScores, head_scores
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import measured_on
from labkit.running.activations import patched
from labkit.stats import numpy_generator
from labkit.text.corpus import Corpus, corpus_of

SHARE = 0.03
"""Share of all heads that are taken of each kind: the larger of Crosbie and Shutova's two."""


@dataclass(frozen=True, kw_only=True)
class HeadAblation:
    """Heads of some kinds switched off, beside random heads of the same layers.

    Attributes:
        kinds: Kinds of heads, out of "induction", "previous token", "duplicate token"; each goes
            alone and, where there are several, all together.
        top: How many heads of each kind; by default 3 % of all heads, at least one.
        instead: What replaces a head's output: its mean over text, or zero.
        draws: Sets of random heads for each.
        length: Random tokens that are repeated, for finding and testing.
        sequences: Sequences of repeated tokens in the test; none of them found the heads.
        window: Tokens of a text; fewer where the model reads fewer.
        documents: Texts in the test; as many others give the mean.
        k: Demonstrations of a task.
        sets: Sets of demonstrations that are drawn.
        queries: Items of a task that are asked about.
        tokens: Whether all tokens of a label are scored, or its first alone.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        What repetition and demonstrations lose without heads of a kind, beside random heads.

    Does not show:
        Learning in context alone: all that reads these heads is harmed, others may take over, and
        the kinds are found on random tokens.
    """

    kinds: tuple[str, ...] = ("induction", "previous token")
    top: int | None = None
    instead: Literal["mean", "zero"] = "mean"
    draws: int = 4
    length: int = 25
    sequences: int = 12
    window: int = 256
    documents: int = 8
    k: int = 8
    sets: int = 2
    queries: int = 30
    tokens: Tokens = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        unknown = [kind for kind in self.kinds if kind not in PATTERNS]
        if unknown or not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise InputError(
                f"kinds of heads, each once, out of {', '.join(PATTERNS)}, not {list(self.kinds)}"
            )
        if self.instead not in ("mean", "zero"):
            raise InputError(f"a head's output becomes its 'mean' or 'zero', not {self.instead!r}")
        for name in ("top", "draws", "sequences", "documents", "k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} = {value}: at least 1")
        if self.length < 2 or self.window < 20:
            raise InputError(
                f"{self.length} tokens repeated, texts of {self.window}: at least 2, and 20"
            )
        _ = self.demonstrations  # the rest is refused there

    @property
    def demonstrations(self) -> Demonstrations:
        """How tasks are asked."""
        return Demonstrations(
            conditions=("gold",),
            ks=(0, self.k),
            draws=self.sets,
            queries=self.queries,
            tokens=self.tokens,
            seed=self.seed,
        )

    @checked
    @torch.no_grad()
    def __call__(
        self,
        model: LabModel,
        tasks: Sequence[Task] = (),
        *,
        corpus: Corpus | None = None,
        progress: Progress | None = None,
    ) -> HeadAblationResult:
        """Find the heads, switch them off, and ask again.

        Args:
            model: The model; it is not changed.
            tasks: Tasks that are asked with and without demonstrations; none is fine.
            corpus: Running text; by default the model's own (`labkit.text.corpus.corpus_of`).
            progress: Called as sets of heads are done.

        Raises:
            InputError: If the model has too few other heads, is too small for the repeated
                tokens, or two tasks have one name.
            ContextTooShort: If a prompt is too long, or the corpus too short for the texts.
            PoolTooSmall, EmptyTarget, AmbiguousLabels: If a task cannot be asked like this.
        """
        self._require(model, tasks)
        texts = windows(
            model,
            corpus_of(model) if corpus is None else corpus,
            min(self.window, model.n_ctx or self.window),
            2 * self.documents,
            seed=self.seed,
        )
        scores = head_scores(model, length=self.length, seed=self.seed)
        sets = self.heads(model, scores)
        outputs = mean_outputs(model, texts[self.documents :])
        if self.instead == "zero":
            outputs = torch.zeros_like(outputs)
        repeated = repeated_tokens(model, self.length, self.sequences, seed=self.seed)
        runs = [(NOTHING, 0)] + [(kind, draw) for kind in sets for draw in range(self.draws + 1)]
        parts, losses = [], []
        for number, (kind, draw) in enumerate(runs):
            off = () if kind == NOTHING else sets[kind][draw]
            with patched(model, switched_off(model, off, outputs) if off else {}):
                pair = (
                    token_losses(model, repeated),
                    token_losses(model, texts[: self.documents]),
                )
                cases = [*self._scores(model, *pair), *self._tasks(model, tasks)]
            losses.append(pair)
            parts.append(pd.concat(cases).assign(heads=kind, draw=draw))
            listener(progress)(
                f"{number + 1} of {len(runs)} sets of heads", (number + 1) / len(runs)
            )
        return HeadAblationResult(
            **measured_on(model),
            config=asdict(self),
            tasks=tuple(task.name for task in tasks),
            kinds=self.kinds,
            scores=np.stack([scores.scores[scores.kinds.index(kind)] for kind in self.kinds]),
            sets=sets,
            cases=pd.concat(parts, ignore_index=True),
            runs=tuple(runs),
            repeated=np.stack([pair[0] for pair in losses]),
            text=np.stack([pair[1] for pair in losses]),
        )

    def heads(self, model: LabModel, scores: HeadScores) -> dict[str, tuple[Heads, ...]]:
        """By what is switched off: the heads found, then the draws of random ones.

        Random heads are none of those found, whatever their kind; where a layer has too few
        others, the rest are of the layers nearest to it.
        """
        top = self._top(model)
        found = {kind: tuple(scores.top(kind, top)) for kind in self.kinds}
        every = tuple(dict.fromkeys(head for heads in found.values() for head in heads))
        if len(found) > 1:
            found[ALL] = every
        left = [
            (layer, head)
            for layer in range(model.n_layers)
            for head in range(model.n_heads)
            if (layer, head) not in every
        ]

        def random(heads: Heads, draw: np.random.Generator) -> Heads:
            pool = [left[number] for number in draw.permutation(len(left))]
            chosen = []
            for layer, _ in heads:
                near = min(pool, key=lambda other: abs(other[0] - layer))
                pool.remove(near)
                chosen.append(near)
            return tuple(chosen)

        return {
            kind: (
                heads,
                *(
                    random(heads, numpy_generator(self.seed, "icl random heads", kind, draw))
                    for draw in range(self.draws)
                ),
            )
            for kind, heads in found.items()
        }

    def _top(self, model: LabModel) -> int:
        """Heads of each kind."""
        default = max(1, round(SHARE * model.n_layers * model.n_heads))
        return default if self.top is None else self.top

    def _require(self, model: LabModel, tasks: Sequence[Task]) -> None:
        """Raise what would otherwise be raised after half of the work."""
        most, n_heads = len(self.kinds) * self._top(model), model.n_layers * model.n_heads
        if 2 * most > n_heads:
            raise InputError(
                f"{most} heads and as many random ones: {model.name} has {n_heads} in all; ask for "
                "a smaller top"
            )
        if len({task.name for task in tasks}) < len(tasks):
            raise InputError(f"tasks by different names, not {[task.name for task in tasks]}")
        for task in tasks:
            queries, pool = task.queries_and_pool(self.queries, self.k, seed=self.seed)
            require_fit(model, task, pool, queries, self.k, tokens=self.tokens)

    def _scores(
        self, model: LabModel, repeated: np.ndarray, text: np.ndarray
    ) -> list[pd.DataFrame]:
        """Late minus early loss of every sequence and text, and the loss of every text."""
        first = int(model.prepend_bos)  # the losses are those of the second token on
        tenth, n = max(1, text.shape[1] // 10), self.length
        early = slice(first, first + n - 1)
        late = slice(first + n, first + 2 * n - 1)  # the second copy's first token is a surprise
        around = slice(tenth // 2, tenth // 2 + tenth)
        values = {
            ("score", "repeated tokens"): repeated[:, late].mean(1) - repeated[:, early].mean(1),
            ("score", "text"): text[:, -tenth:].mean(1) - text[:, around].mean(1),
            ("loss", "text"): text.mean(1),
        }
        return [_rows(measure, on, 0, own) for (measure, on), own in values.items()]

    def _tasks(self, model: LabModel, tasks: Sequence[Task]) -> list[pd.DataFrame]:
        """Accuracy and log P(label) of every query, with demonstrations and without."""
        rows = []
        for task in tasks:
            found = self.demonstrations(model, task)
            right = [task.labels.index(label) for label in found.gold]
            of_gold = found.log_probs[0][..., np.arange(len(right)), right]
            accuracy = found.values("accuracy")[0].mean(axis=1)
            log_prob = of_gold.mean(axis=1).astype(np.float64)
            for place, k in enumerate((0, self.k)):
                rows.append(_rows("accuracy", task.name, k, accuracy[place]))
                rows.append(_rows("log P(label)", task.name, k, log_prob[place]))
            rows.append(_rows("gain of accuracy", task.name, self.k, accuracy[1] - accuracy[0]))
            gain = log_prob[1] - log_prob[0]
            rows.append(_rows("gain of log P(label)", task.name, self.k, gain))
        return rows


def _rows(measure: str, on: str, k: int, values: np.ndarray) -> pd.DataFrame:
    """One row per unit."""
    columns: dict[str, Any] = {"measure": measure, "on": on, "k": k}
    return pd.DataFrame(columns | {"unit": np.arange(len(values)), "value": values})
