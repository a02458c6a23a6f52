"""The structural probe: a syntax tree as distances between the states of words.

    d_B(h_i, h_j)^2 = (B (h_i - h_j))^T (B (h_i - h_j))

B is learned so that squared distances of states equal distances in the tree, the number of arcs
between two words:

    min_B  sum_sentences 1 / n^2  sum_{i,j} | d_T(i, j) - d_B(h_i, h_j)^2 |

Scored by the rank correlation of distances, and by the share of the gold tree's arcs in the
minimum spanning tree of the predicted ones (UUAS). A tree that follows the order of words gives
every model some of both: `probes.trees.by_depth` runs the probe with that control and a
random-weight model, at every depth.

References:
    Hewitt and Manning (2019), A Structural Probe for Finding Syntax in Word Representations,
    sections 2.2 and 4.1.

Differs from the paper:
    States are standardised, column by column, before the fit: a few columns of a residual stream
    are far larger than all others. Correlations are averaged over words, not first within
    sentences of one length. UUAS is the mean over sentences of each one's share of arcs, so that
    sentences can be the unit of its interval; the paper counts arcs over all sentences together,
    in which long ones weigh more.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from labkit.errors import InputError
from labkit.stats import generator


def tree_distances(heads: Sequence[int]) -> Float[np.ndarray, "word word"]:
    """Number of arcs between any two words of a tree.

    Args:
        heads: Place of each word's head; -1 for the root.

    Raises:
        InputError: If they form no tree.
    """
    n = len(heads)
    paths = []
    for word in range(n):
        path, at = [word], heads[word]
        while at != -1:
            if not 0 <= at < n or at in path:
                raise InputError(f"the heads {list(heads)} form no tree: look at word {word}")
            path.append(at)
            at = heads[at]
        paths.append(path)
    if len({path[-1] for path in paths}) != 1:
        raise InputError(f"the heads {list(heads)} form no tree: there is not one root")
    distances = np.zeros((n, n))
    for i, path in enumerate(paths):
        for j, other in enumerate(paths):
            shared = len(set(path) & set(other))
            distances[i, j] = len(path) + len(other) - 2 * shared
    return distances


class StructuralProbe(BaseEstimator):
    """Distances in a tree, read off states by a linear map.

        StructuralProbe(rank=16).fit(states, distances).score(others, their_distances)

    scikit-learn's rules as far as they go: fields, `fit`, `predict`, `score`, and a trailing
    underscore; but an example is a whole sentence, so X and y are lists of arrays.

    Args:
        rank: Rows of B; the width of the states where that is smaller.
        epochs: Passes over the sentences.
        learning_rate: Of Adam in the first epoch; it falls to 0, epoch by epoch.
        batch: Sentences of a step, of similar length.
        seed: Seed of B and of the order of steps.

    Attributes:
        B_: `[rank, width]`, in units of the scaled states.
        mean_: What is taken off states.
        scale_: What their columns are divided by.
        losses_: Mean loss of each epoch, in arcs.

    Shows:
        How well distances between states, after one linear map, are those of a syntax tree.

    Does not show:
        That the model parses: a chain of neighbours and a model with random weights find many
        arcs too (`probes.trees.by_depth`).
    """

    def __init__(
        self,
        rank: int = 64,
        epochs: int = 20,
        learning_rate: float = 1e-3,
        batch: int = 20,
        seed: int = 0,
    ) -> None:
        self.rank = rank
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch = batch
        self.seed = seed

    def fit(self, X: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> "StructuralProbe":
        """Learn B.

        Args:
            X: The states of each sentence's words, `[word, width]`.
            y: Their distances in the tree, `[word, word]`; see `tree_distances`.

        Raises:
            InputError: If there is no sentence, or states and distances do not match.
        """
        self._check(X, y)
        every = np.concatenate(X)
        spread = every.std(axis=0)
        self.mean_, self.scale_ = every.mean(axis=0), np.where(spread > 0, spread, 1.0)
        states = [self._scaled(sentence) for sentence in X]
        gold = [torch.tensor(distances, dtype=torch.float32) for distances in y]
        # Sentences of similar length together, so that little is padding.
        order = sorted(range(len(states)), key=lambda number: len(states[number]))
        groups = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        batches = [_padded([states[i] for i in some], [gold[i] for i in some]) for some in groups]
        rank = min(self.rank, every.shape[1])
        draw = generator(self.seed, "structural probe", rank, every.shape[1])
        B = torch.randn(rank, every.shape[1], generator=draw) / every.shape[1]
        B.requires_grad_(True)
        optimiser = torch.optim.Adam([B], lr=self.learning_rate)
        decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, self.epochs)
        self.losses_ = []
        for _ in range(self.epochs):
            total = 0.0
            for number in torch.randperm(len(batches), generator=draw).tolist():
                padded, distances, there = batches[number]
                wrong = (_squared(B, padded) - distances).abs() * there
                loss = (wrong.sum(dim=(1, 2)) / there.sum(dim=(1, 2))).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach()) * len(padded)
            decay.step()
            self.losses_.append(total / len(states))
        self.B_ = B.detach().numpy()
        return self

    def predict(self, X: Sequence[np.ndarray]) -> list[Float[np.ndarray, "word word"]]:
        """Predicted distances of each sentence's words, in arcs."""
        check_is_fitted(self)
        B = torch.tensor(self.B_)
        return [_squared(B, self._scaled(sentence)).numpy() for sentence in X]

    def score(self, X: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> float:
        """Mean Spearman correlation of distances from each word, -1..1."""
        self._check(X, y)
        pairs = zip(self.predict(X), y, strict=True)
        found = [rank_correlations(predicted, gold) for predicted, gold in pairs]
        return float(np.concatenate(found).mean())

    def uuas(self, X: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Float[np.ndarray, " arc"]:
        """For each arc of the gold trees, whether the minimum spanning tree has it: 1 or 0."""
        self._check(X, y)
        pairs = zip(self.predict(X), y, strict=True)
        return np.concatenate([arcs_found(predicted, gold) for predicted, gold in pairs])

    def _scaled(self, sentence: np.ndarray) -> Tensor:
        return torch.tensor((sentence - self.mean_) / self.scale_, dtype=torch.float32)

    def _check(self, X: Any, y: Any) -> None:
        if len(X) != len(y) or not len(X):
            raise InputError(f"{len(X)} sentences of states and {len(y)} of distances")
        for number, (states, distances) in enumerate(zip(X, y, strict=True)):
            if distances.shape != (len(states), len(states)):
                raise InputError(
                    f"sentence {number} has {len(states)} words, its distances are "
                    f"{distances.shape}"
                )


def rank_correlations(
    predicted: Float[np.ndarray, "word word"], gold: Float[np.ndarray, "word word"]
) -> Float[np.ndarray, " row"]:
    """Spearman's correlation of the distances from each word, where the tree's are not all alike.

    0 where the predicted ones are all alike: they tell nothing.
    """
    rows = [place for place, row in enumerate(gold) if np.ptp(row) > 0]
    return np.asarray(
        [
            float(spearmanr(predicted[i], gold[i]).statistic) if np.ptp(predicted[i]) > 0 else 0.0
            for i in rows
        ]
    )


def arcs_found(
    predicted: Float[np.ndarray, "word word"], gold: Float[np.ndarray, "word word"]
) -> Float[np.ndarray, " arc"]:
    """For each arc of a tree, whether the minimum spanning tree of some distances has it: 1 or 0.

    Args:
        predicted: The distances, from 0 on.
        gold: Distances in the tree: an arc is where they are 1.
    """
    # Distances of 0 would be no edges to scipy.
    tree = minimum_spanning_tree(predicted + 1e-6).toarray()
    linked = (tree + tree.T) > 0
    return linked[np.triu(gold == 1)].astype(float)


def _padded(states: Sequence[Tensor], gold: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """States and distances of some sentences side by side, and which of these are there."""
    longest = max(map(len, states))
    distances = torch.zeros(len(gold), longest, longest)
    there = torch.zeros_like(distances)
    for row, own in enumerate(gold):
        distances[row, : len(own), : len(own)] = own
        there[row, : len(own), : len(own)] = 1
    return pad_sequence(list(states), batch_first=True), distances, there


def _squared(
    B: Float[Tensor, "rank width"], states: Float[Tensor, "*sentence word width"]
) -> Float[Tensor, "*sentence word word"]:
    """Squared distances of the mapped states."""
    mapped = states @ B.T
    return (mapped[..., :, None, :] - mapped[..., None, :, :]).square().sum(dim=-1)
