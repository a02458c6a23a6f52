"""Which demonstrations: drawn at random, or the nearest to each query.

    random     drawn, the same for all queries
    bm25       the items that share most words with the query (Okapi BM25)
    states     the items whose states are nearest to the query's, in the model itself
    alike      drawn for each query, with the labels of its nearest by BM25

The nearest stands last, next to the query. `alike` is the control: nearest neighbours often have
the query's own label, and may help by showing it more often, whatever they are about.

The state of an input is the residual stream in the middle of the model, at the last token of
the query without demonstrations; distances are cosines of states less their mean over the pool.

Inputs of one word share no word with any other: there BM25 ranks nothing, and ties are broken
at random.

References:
    Liu et al. (2022), What Makes Good In-Context Examples for GPT-3?, section 3. Robertson and
    Zaragoza (2009), The Probabilistic Relevance Framework: BM25 and Beyond.

Differs from the paper:
    Liu et al. take sentence embeddings of another model; here it is the model's own state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float

from labkit.corpus import Progress
from labkit.errors import InputError
from labkit.execute import MEMORY, Execution, rows_within
from labkit.icl.prompts import Shot, write
from labkit.icl.result import DemonstrationsResult
from labkit.icl.scoring import Tokens, label_ids, prompt_ids, score_labels
from labkit.icl.tasks import Item, Task
from labkit.models import LabModel
from labkit.stats import numpy_generator

Way = Literal["random", "bm25", "states", "alike"]

WORDS: dict[Way, str] = {
    "random": "drawn at random",
    "bm25": "nearest by BM25",
    "states": "nearest by state",
    "alike": "drawn, labels of the nearest",
}
"""What each way of choosing is called in a result."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Scores of every label behind demonstrations chosen in different ways.

    Attributes:
        ways: How demonstrations are chosen; the first is compared with.
        ks: Numbers of demonstrations, ascending, at least 1.
        draws: How many times those that are drawn are drawn.
        queries: How many items are asked about; all that the pool can spare if there are fewer.
        tokens: Whether all tokens of a label are scored, or its first alone.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.
    """

    ways: tuple[Way, ...] = ("random", "bm25", "states", "alike")
    ks: tuple[int, ...] = (1, 4, 8)
    draws: int = 4
    queries: int = 50
    tokens: Tokens = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        unknown = [way for way in self.ways if way not in get_args(Way)]
        if unknown or not self.ways or len(set(self.ways)) < len(self.ways):
            raise InputError(
                f"ways of choosing, each once, out of {', '.join(get_args(Way))}, not {self.ways}"
            )
        if not self.ks or min(self.ks) < 1 or list(self.ks) != sorted(set(self.ks)):
            raise InputError(f"numbers of demonstrations from 1 on, ascending, not {self.ks}")
        if self.draws < 1 or self.queries < 1:
            raise InputError(f"{self.draws} draws, {self.queries} queries: at least one of each")

    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> DemonstrationsResult:
        """Score the queries of a task behind demonstrations chosen for them.

        Its `conditions` are the ways of choosing, in words (`WORDS`). No content-free input is
        asked: the calibrated accuracy is the raw one.

        Args:
            model: The model.
            task: The task.
            progress: Called as prompts are scored.

        Raises:
            PoolTooSmall: If there are fewer items than the most demonstrations and one query.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels cannot be told apart by the tokens scored.
            ContextTooShort: If the demonstrations with a query are too long.
        """
        queries, pool = task.queries_and_pool(self.queries, max(self.ks), seed=self.seed)
        labels = label_ids(model, task.template, task.labels, tokens=self.tokens)
        chosen = self.chosen(model, task, queries, pool)
        # Queries behind the same demonstrations are asked together.
        groups: dict[tuple[Shot, ...], dict[str, None]] = {}
        cells = []
        for way in self.ways:
            for k in self.ks:
                for draw in range(self.draws):
                    for query, numbers in zip(queries, chosen[way][draw], strict=True):
                        near = [pool[number] for number in numbers[:k][::-1]]
                        shots = tuple(Shot(input=one.input, label=one.label) for one in near)
                        groups.setdefault(shots, {})[query.input] = None
                        cells.append((shots, query.input))
        prompts = [
            prompt_ids(model, [write(task.template, shots, text) for text in texts])
            for shots, texts in groups.items()
        ]
        tables = score_labels(model, prompts, labels, progress=progress)
        scores = {
            (shots, text): row
            for (shots, texts), table in zip(groups.items(), tables, strict=True)
            for text, row in zip(texts, table.numpy(), strict=True)
        }
        shape = (len(self.ways), len(self.ks), self.draws, len(queries), len(task.labels))
        log_probs = np.stack([scores[cell] for cell in cells]).reshape(shape).astype(np.float32)
        return DemonstrationsResult(
            model=model.name,
            fingerprint=model.fingerprint,
            task=task.name,
            source=task.source,
            labels=task.labels,
            queries=tuple(item.input for item in queries),
            gold=tuple(item.label for item in queries),
            conditions=tuple(WORDS[way] for way in self.ways),
            ks=self.ks,
            tokens=self.tokens,
            seed=self.seed,
            log_probs=log_probs,
            content_free=np.zeros((*shape[:3], 1, shape[-1]), dtype=np.float32),
        )

    def chosen(
        self, model: LabModel, task: Task, queries: Sequence[Item], pool: Sequence[Item]
    ) -> dict[Way, list[list[list[int]]]]:
        """By way, draw and query: numbers of the pool's items, the nearest first."""
        most = max(self.ks)

        def draws(way: Way, one: Callable[[np.random.Generator], list[list[int]]]) -> list:
            return [
                one(numpy_generator(self.seed, "icl choice", task.name, way, number))
                for number in range(self.draws)
            ]

        def drawn(draw: np.random.Generator) -> list[list[int]]:
            return [draw.permutation(len(pool))[:most].tolist()] * len(queries)

        asked, texts = [item.input for item in queries], [item.input for item in pool]
        found: dict[Way, list[list[list[int]]]] = {}
        if "random" in self.ways:
            found["random"] = draws("random", drawn)
        if {"bm25", "alike"} & set(self.ways):
            ties = numpy_generator(self.seed, "icl choice", task.name, "ties")
            near = _nearest(bm25_scores(asked, texts), most, ties)
            found["bm25"] = [near] * self.draws

            def alike(draw: np.random.Generator) -> list[list[int]]:
                order = draw.permutation(len(pool)).tolist()
                return [_with_labels_of(numbers, pool, order) for numbers in near]

            found["alike"] = draws("alike", alike)
        if "states" in self.ways:
            ties = numpy_generator(self.seed, "icl choice", task.name, "ties")
            scores = state_scores(model, task, asked, texts)
            found["states"] = [_nearest(scores, most, ties)] * self.draws
        return found


def bm25_scores(queries: Sequence[str], texts: Sequence[str]) -> Float[np.ndarray, "query text"]:
    """Okapi BM25 of each text for each query, at least 0; 0 where they share no word."""
    import bm25s

    def words(some: Sequence[str]) -> list[list[str]]:
        return bm25s.tokenize(list(some), stopwords=None, return_ids=False, show_progress=False)

    scores = np.zeros((len(queries), len(texts)))
    corpus = words(texts)
    if not any(corpus):
        return scores
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    for row, asked in enumerate(words(queries)):
        if asked:
            scores[row] = index.get_scores(asked)
    return scores


@torch.no_grad()
def state_scores(
    model: LabModel, task: Task, queries: Sequence[str], texts: Sequence[str]
) -> Float[np.ndarray, "query text"]:
    """Cosines of the model's states of queries and texts, in -1..1."""
    prompts = [write(task.template, (), text) for text in (*queries, *texts)]
    batch = model.pad(prompt_ids(model, prompts))
    states = torch.cat(
        [
            Execution(model, batch.rows(rows)).forward(stop=(model.n_layers + 1) // 2)[:, -1]
            for rows in torch.arange(len(prompts)).split(rows_within(model, batch.shape[1], MEMORY))
        ]
    ).double()
    centred = states - states[len(queries) :].mean(dim=0)
    unit = torch.nn.functional.normalize(centred, dim=-1)
    return (unit[: len(queries)] @ unit[len(queries) :].T).cpu().numpy()


def _nearest(scores: np.ndarray, n: int, ties: np.random.Generator) -> list[list[int]]:
    """By query, the numbers of the highest scores, ties broken at random."""
    order = ties.permutation(scores.shape[1])
    ranked = np.argsort(-scores[:, order], axis=1, kind="stable")[:, :n]
    return order[ranked].tolist()


def _with_labels_of(
    numbers: Sequence[int], pool: Sequence[Item], order: Sequence[int]
) -> list[int]:
    """Other items with the same labels, first come in an order; themselves where there is none."""
    left = [number for number in order if number not in set(numbers)]
    found = []
    for number in numbers:
        same = next((one for one in left if pool[one].label == pool[number].label), number)
        if same != number:
            left.remove(same)
        found.append(same)
    return found
