"""Which demonstrations: drawn at random, the nearest to each query, or far from each other.

    random     drawn, the same for all queries
    bm25       the items that share most words with the query (Okapi BM25)
    states     the items whose states are nearest to the query's, in the model itself
    varied     near by state, but unlike each other
    spread     far from each other by state, the same for all queries
    alike      drawn for each query, with the labels of its nearest by BM25

The nearest stands last, next to the query. `alike` is the control of the nearest: they often
have the query's own label, and may help by showing it more often, whatever they are about.
`random` is the control of `spread`, from whose first demonstration it starts.

Inputs of one word share no word with any other: there BM25 ranks nothing, and ties are broken
at random.

References:
    Liu et al. (2022), What Makes Good In-Context Examples for GPT-3?, section 3: nearest. Su et
    al. (2023), Selective Annotation Makes Language Models Better Few-Shot Learners, section 2,
    and Ye et al. (2023), Complementary Explanations for Effective In-Context Learning, section
    4 (MMR): diverse.

Differs from the paper:
    They take sentence embeddings of another model; here it is the model's own state. Su et al.
    choose by votes on a graph of neighbours, here by farthest points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from labkit.arguments import checked
from labkit.errors import InputError, PoolTooSmall
from labkit.icl.asking.queries import Front, ask, require_fit, require_settings
from labkit.icl.asking.scoring import Tokens
from labkit.icl.asking.task_result import about_queries
from labkit.icl.behaviour.demonstrations_result import DemonstrationsResult
from labkit.icl.behaviour.nearness import (
    bm25_scores,
    nearest,
    spread,
    state_vectors,
    varied,
    with_labels_of,
)
from labkit.icl.tasks.items import Item, Task
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.stats import numpy_generator

Way = Literal["random", "bm25", "states", "varied", "spread", "alike"]

WORDS: dict[Way, str] = {
    "random": "drawn at random",
    "bm25": "nearest by BM25",
    "states": "nearest by state",
    "varied": "near by state, unlike each other",
    "spread": "far from each other",
    "alike": "drawn, labels of the nearest",
}
"""What each way of choosing is called in a result."""

BY_STATE = {"states", "varied", "spread"}
"""Ways for which the model has to be run."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Scores of every label after demonstrations chosen in different ways.

        Choice(ks=(2, 8))(model, task).figure()

    Attributes:
        ways: How demonstrations are chosen; the others are compared with the first.
        ks: Numbers of demonstrations, ascending, at least 1.
        draws: Number of draws for the ways that are random.
        queries: How many items are asked about; all that the pool can spare if there are fewer.
        pool: How many items demonstrations are chosen from, at most.
        tokens: Whether all tokens of a label are scored, or its first alone.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        Whether near or varied demonstrations help more than drawn ones, and more than their
        labels alone.

    Does not show:
        That nearness in another embedding would do the same: it is measured in the model's own
        states and in words.
    """

    ways: tuple[Way, ...] = ("random", "bm25", "states", "varied", "spread", "alike")
    ks: tuple[int, ...] = (1, 4, 8)
    draws: int = 4
    queries: int = 50
    pool: int = 500
    tokens: Tokens = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        unknown = [way for way in self.ways if way not in get_args(Way)]
        if unknown or not self.ways or len(set(self.ways)) < len(self.ways):
            raise InputError(
                f"ways of choosing, each once, out of {', '.join(get_args(Way))}, not {self.ways}"
            )
        require_settings(
            tokens=self.tokens, ks=self.ks, least=1, draws=self.draws, queries=self.queries
        )
        if self.pool < max(self.ks):
            raise PoolTooSmall(f"{max(self.ks)} demonstrations of a pool of {self.pool}")

    @checked
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> DemonstrationsResult:
        """Score the queries of a task after demonstrations chosen for them.

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
        most = max(self.ks)
        queries, pool = task.queries_and_pool(self.queries, most, seed=self.seed)
        pool = pool[: self.pool]
        if BY_STATE & set(self.ways):
            require_fit(model, task, pool, queries, most, tokens=self.tokens)
        chosen = self.chosen(model, task, queries, pool)
        # Queries after the same demonstrations are asked together.
        asked: dict[Front, dict[str, int]] = {}
        cells = []
        for way in self.ways:
            for k in self.ks:
                for draw in range(self.draws):
                    for query, numbers in zip(queries, chosen[way][draw], strict=True):
                        front = Front.of([pool[number] for number in numbers[:k][::-1]])
                        places = asked.setdefault(front, {})
                        cells.append((front, places.setdefault(query.input, len(places))))
        texts = {front: list(places) for front, places in asked.items()}
        tables = ask(model, task, texts, tokens=self.tokens, progress=progress)
        shape = (len(self.ways), len(self.ks), self.draws, len(queries), len(task.labels))
        scores = np.stack([tables[front][place] for front, place in cells])
        return DemonstrationsResult(
            **about_queries(model, task, queries),
            labels=task.labels,
            conditions=tuple(WORDS[way] for way in self.ways),
            ks=self.ks,
            tokens=self.tokens,
            seed=self.seed,
            log_probs=scores.reshape(shape).astype(np.float32),
            content_free=np.zeros((*shape[:3], 1, shape[-1]), dtype=np.float32),
        )

    def chosen(
        self, model: LabModel, task: Task, queries: Sequence[Item], pool: Sequence[Item]
    ) -> dict[Way, list[list[list[int]]]]:
        """By way, draw and query: numbers of the pool's items, the nearest or first drawn first.

        At least the ways asked for; those that are worked out on the way are there as well.
        """
        most = max(self.ks)

        def draws(way: Way, one: Callable[[np.random.Generator], list[list[int]]]) -> list:
            return [
                one(numpy_generator(self.seed, "icl choice", task.name, way, number))
                for number in range(self.draws)
            ]

        def drawn(draw: np.random.Generator) -> list[list[int]]:
            return [draw.permutation(len(pool))[:most].tolist()] * len(queries)

        def ties() -> np.random.Generator:
            return numpy_generator(self.seed, "icl choice", task.name, "ties")

        asked, texts = [item.input for item in queries], [item.input for item in pool]
        found: dict[Way, list[list[list[int]]]] = {"random": draws("random", drawn)}
        if {"bm25", "alike"} & set(self.ways):
            near = nearest(bm25_scores(asked, texts), most, ties())
            found["bm25"] = [near] * self.draws

            def alike(draw: np.random.Generator) -> list[list[int]]:
                order = draw.permutation(len(pool)).tolist()
                return [with_labels_of(numbers, pool, order) for numbers in near]

            found["alike"] = draws("alike", alike)
        if BY_STATE & set(self.ways):
            of_queries, of_texts = state_vectors(model, task, asked, texts)
            scores, between = of_queries @ of_texts.T, of_texts @ of_texts.T
            found["states"] = [nearest(scores, most, ties())] * self.draws
            found["varied"] = [[varied(row, between, most) for row in scores]] * self.draws
            found["spread"] = [
                [spread(between, most, numbers[0][0])] * len(queries) for numbers in found["random"]
            ]
        return found
