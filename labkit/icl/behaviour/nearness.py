"""Which items are near to a query, and which are far from each other.

    bm25_scores     words shared, by Okapi BM25
    state_vectors   the model's own states of inputs, as unit vectors
    nearest         the highest scores of each query
    varied          near to the query and unlike each other (maximal marginal relevance)
    spread          far from each other, whatever the query (greedy farthest point)
    with_labels_of  other items with the same labels

The state of an input is the residual stream in the middle of the model, at the last token of
the query without demonstrations, less its mean over the pool; nearness of two is the cosine.

References:
    Robertson and Zaragoza (2009), The Probabilistic Relevance Framework: BM25 and Beyond.
    Carbonell and Goldstein (1998), The Use of MMR. Gonzalez (1985), Clustering to Minimize the
    Maximum Intercluster Distance.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from labkit.icl.asking.scoring import prompt_ids
from labkit.icl.tasks.items import Item, Task
from labkit.icl.tasks.prompts import write
from labkit.models.model import LabModel
from labkit.running.states import Spot, last_states

RELEVANCE = 0.5
"""Weight of nearness to the query against unlikeness to what is chosen already, in 0..1."""


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
def state_vectors(
    model: LabModel, task: Task, queries: Sequence[str], texts: Sequence[str]
) -> tuple[Float[np.ndarray, "query d_model"], Float[np.ndarray, "text d_model"]]:
    """The model's states of queries and of texts, as unit vectors around the mean of the texts."""
    prompts = [write(task.template, (), text) for text in (*queries, *texts)]
    middle: Spot = ("resid_post", (model.n_layers + 1) // 2 - 1)
    states = last_states(model, prompt_ids(model, prompts), [middle])[middle].double()
    centred = states - states[len(queries) :].mean(dim=0)
    unit = torch.nn.functional.normalize(centred, dim=-1).cpu().numpy()
    return unit[: len(queries)], unit[len(queries) :]


def nearest(
    scores: Float[np.ndarray, "query text"], n: int, ties: np.random.Generator
) -> list[list[int]]:
    """By query, the numbers of the highest scores, the highest first, ties broken at random."""
    order = ties.permutation(scores.shape[1])
    ranked = np.argsort(-scores[:, order], axis=1, kind="stable")[:, :n]
    return order[ranked].tolist()


def varied(
    scores: Float[np.ndarray, " text"], alike: Float[np.ndarray, "text text"], n: int
) -> list[int]:
    """Texts near to a query and unlike each other, chosen one by one.

    argmax_i  w score_i - (1 - w) max_{j chosen} alike_ij,   w = `RELEVANCE`

    Args:
        scores: Nearness of each text to the query.
        alike: Nearness of the texts to each other, in the same unit.
        n: How many are chosen.
    """
    chosen = [int(scores.argmax())]
    while len(chosen) < min(n, len(scores)):
        value = RELEVANCE * scores - (1 - RELEVANCE) * alike[:, chosen].max(axis=1)
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
    return chosen


def spread(alike: Float[np.ndarray, "text text"], n: int, first: int) -> list[int]:
    """Texts far from each other: each the least like those before it, from a first one on."""
    chosen = [first]
    while len(chosen) < min(n, len(alike)):
        most = alike[:, chosen].max(axis=1)
        most[chosen] = np.inf
        chosen.append(int(most.argmin()))
    return chosen


def with_labels_of(numbers: Sequence[int], pool: Sequence[Item], order: Sequence[int]) -> list[int]:
    """Other items with the same labels, first come in an order; the items themselves if none."""
    left = [number for number in order if number not in set(numbers)]
    found = []
    for number in numbers:
        same = next((one for one in left if pool[one].label == pool[number].label), number)
        if same != number:
            left.remove(same)
        found.append(same)
    return found
