"""Results of comparing demonstrations in context with fine-tuning on them."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.icl.asking.measures import measured, shares_of, tested
from labkit.icl.asking.task_result import LabelsResult
from labkit.stats import (
    Estimate,
    average,
    paired_difference,
    ratio,
    share,
)

ARMS = {
    "own": "these demonstrations",
    "permuted": "permuted labels",
    "other": "another task",
    "random": "random direction",
    "causal": "layer by layer",
    "twin": "random-weight model",
}
"""What stands for fine-tuning, and what each is called in a figure; the first is the claim's."""

CONTROLS = ("permuted", "other", "random", "twin")
"""Those that the first has to be above, if it is the task that makes the two alike."""

Likeness = Literal["outputs", "maps", "map_gain"]
"""Updates of attention's output; where it attends; and what fine-tuning adds to the latter."""

WAYS = ("context", "sgd")


@dataclass(frozen=True, kw_only=True)
class FineTuningResult(LabelsResult):
    """Likeness of context and fine-tuning, query by query, with the controls.

    The unit of every interval is the query, sets of demonstrations (and layers) averaged first.

    Attributes:
        other: Name of the task that stands for another.
        k: Number of demonstrations.
        seed: Seed of the draws.
        arms: What stands for fine-tuning, names of `ARMS`.
        rates: Step sizes: of "causal", of "twin", and "own" of all others.
        choices: What each step size does to development queries: columns `rate` (0: no
            fine-tuning), `log_share` (of the right label among the labels, in nats), `accuracy`,
            `arm`.
        outputs: Cosine of the two updates of attention's output, -1..1 (SimAOU).
        maps: Cosine of where attention looks, -1..1 (SimAM).
        maps_before: The same before fine-tuning.
        log_probs: Log-probability of each label's first token: without anything, in context,
            and after each fine-tuning of this model, in the order of `arms`.
        order_log_probs: In context and after SGD, for several orders of the same demonstrations.
    """

    other: str
    k: int
    seed: int
    arms: tuple[str, ...]
    rates: dict[str, float]
    choices: pd.DataFrame
    outputs: Float[np.ndarray, "arm set query layer"]
    maps: Float[np.ndarray, "arm set query layer"]
    maps_before: Float[np.ndarray, "arm set query layer"]
    log_probs: Float[np.ndarray, "state set query label"]
    order_log_probs: Float[np.ndarray, "2 set order query label"]

    @property
    def title(self) -> str:
        """What was compared, on what."""
        n_sets = self.outputs.shape[1]
        return (
            f"Context and fine-tuning, {self.task}: {self.model}, {self.k} demonstrations, "
            f"{n_sets} set{'s' if n_sets > 1 else ''}, {len(self.queries)} queries"
        )

    @property
    def helped(self) -> bool:
        """Whether fine-tuning made the right label of development queries likelier at all."""
        own = self.choices[self.choices["arm"] == "own"].set_index("rate")["log_share"]
        return bool(own[self.rates["own"]] > own[0.0])

    def values(self, arm: str, likeness: Likeness = "outputs") -> Float[np.ndarray, "query layer"]:
        """A likeness, query by query and layer by layer, sets averaged.

        Raises:
            InputError: If there is no such arm or likeness.
        """
        if likeness not in get_args(Likeness):
            raise InputError(f"no likeness {likeness!r}; there are {', '.join(get_args(Likeness))}")
        if arm not in self.arms:
            raise InputError(f"no arm {arm!r}; there are {', '.join(self.arms)}")
        place = self.arms.index(arm)
        if likeness == "map_gain":
            return (self.maps[place] - self.maps_before[place]).mean(axis=0)
        return getattr(self, likeness)[place].mean(axis=0)

    def similarity(self, arm: str = "own", likeness: Likeness = "outputs") -> Estimate:
        """A likeness, its mean over layers; the interval is over queries."""
        return average(self.values(arm, likeness).mean(axis=1), within=self._range(likeness))

    def to_frame(self, likeness: Likeness = "outputs") -> pd.DataFrame:
        """One row per arm and layer: `arm, layer, mean, low, high, n`."""
        return pd.DataFrame(
            [
                {"arm": arm, "layer": layer}
                | average(column, within=self._range(likeness)).to_dict()
                for arm in self.arms
                for layer, column in enumerate(self.values(arm, likeness).T)
            ]
        )

    def summary(self, likeness: Likeness = "outputs") -> pd.DataFrame:
        """One row per arm, layers averaged, and what these demonstrations have on it.

        Columns `arm, similarity` (its mean), `mean, low, high, n` of own - arm, query by query,
        `p` of a sign-flip test and `p_holm`, corrected for the number of rows. The row "own" is
        left out: compared with itself it is 0; `similarity` has it.
        """
        own = self.values("own", likeness).mean(axis=1)
        others = {a: self.values(a, likeness).mean(axis=1) for a in self.arms if a != "own"}
        frame = tested((({"arm": a}, own, v) for a, v in others.items()), ("arm",), seed=self.seed)
        frame.insert(1, "similarity", [float(others[arm].mean()) for arm in frame["arm"]])
        return frame

    def above(self, likeness: Likeness = "outputs") -> tuple[str, ...]:
        """The controls that these demonstrations are above, at 5 % after Holm's correction."""
        frame = self.summary(likeness)
        kept = frame[(frame["mean"] > 0) & (frame["p_holm"] < 0.05)]["arm"]
        return tuple(arm for arm in kept if arm in CONTROLS)

    def right(self, state: str) -> Float[np.ndarray, "set query"]:
        """1 where the right label is the likeliest, else 0.

        Args:
            state: "none", "context", or an arm but "twin".

        Raises:
            InputError: If there is no such state.
        """
        if state not in self._states:
            raise InputError(f"no state {state!r}; there are {', '.join(self._states)}")
        return measured(self.log_probs, self.labels, self.gold)[self._states.index(state)]

    def accuracy(self, state: str) -> Estimate:
        """Share of queries answered right, its interval over queries; arguments as in `right`."""
        return share(self.right(state).mean(axis=0))

    def recall(self, arm: str = "own") -> Estimate | None:
        """Of the answers that fine-tuning puts right, the share that context puts right (Rec2FTP).

        None where fine-tuning puts nothing right. `n` is the number of queries that it puts
        right, which the interval is over; to be read beside `recall_by_chance`.
        """
        return self._share_of(self._corrected(arm))

    @property
    def recall_by_chance(self) -> Estimate | None:
        """Of all answers that are wrong without demonstrations, the share that context puts right.

        What `recall` would be if the two corrected independently of each other.
        """
        return self._share_of(1 - self.right("none"))

    def predictions(self) -> pd.DataFrame:
        """One row per state: `state, mean, low, high, n` of accuracy, `corrected` and `recall`.

        `corrected` counts answers (queries times sets) wrong without anything and right here.
        """
        rows = []
        for state in self._states:
            count = int(self._corrected(state).sum())
            shared = None if state in ("none", "context") else self.recall(state)
            rows.append(
                {"state": state} | self.accuracy(state).to_dict()
                | {"corrected": count, "recall": np.nan if shared is None else shared.mean}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def order_spread(self) -> pd.DataFrame:
        """How far answers differ between orders of the same demonstrations, in 0..1.

        The distance is total variation of the probabilities among the labels, averaged over
        pairs of orders. One row per way (context, sgd): `way, mean, low, high, n`, and `moved`:
        the distance from the answers without demonstrations, that the spread is a part of. A full
        batch of gradient descent sees a sum over demonstrations: its spread is 0.
        """
        return pd.DataFrame(
            [
                {"way": way} | average(self._spread(way), within=(0.0, 1.0)).to_dict()
                | {"moved": float(self._moved(way).mean())}
                for way in WAYS
            ]
        )  # fmt: skip

    def order_difference(self) -> tuple[Estimate, float]:
        """Spread over orders in context less that of SGD, query by query; p of a sign-flip test."""
        return paired_difference(self._spread("context"), self._spread("sgd"), seed=self.seed)

    def sentence(self) -> str:
        """The finding in one sentence, whatever it is."""
        above = self.above()
        below = [arm for arm in CONTROLS if arm not in above]
        recall, chance = self.recall(), self.recall_by_chance
        context, sgd = self.order_spread()["mean"]
        table = self.summary().set_index("arm")
        near = max(CONTROLS, key=lambda arm: table.loc[arm, "similarity"])
        right = [f"{self.right(state).mean():.2f}" for state in ("none", "context", "own")]
        parts = [
            f"The changes of attention's output that demonstrations of {self.task} and "
            f"fine-tuning on them make have a cosine of {self.similarity()}.",
            f"That is above {', '.join(ARMS[arm] for arm in above)}." if above else "",
            f"It is not above {', '.join(ARMS[arm] for arm in below)}." if below else "",
            f"Only what lies above the nearest control, {ARMS[near]} at "
            f"{table.loc[near, 'similarity']:.3f}, can be this task's own: a difference of "
            f"{Estimate.from_dict(table.loc[near].to_dict()):.3f}.",
            f"Right are {right[0]} without demonstrations, {right[1]} in context, {right[2]} "
            "fine-tuned.",
            f"Of what fine-tuning puts right, context puts right {recall}; of all that was wrong, "
            f"{chance}."
            if recall is not None
            else "Fine-tuning puts nothing right that was wrong.",
            f"Answers differ between orders of the same demonstrations by {context:.3f} in "
            f"context and by {sgd:.3f} after SGD; by 0 after a full batch.",
        ]
        return " ".join(part for part in parts if part)

    def figure(self, likeness: Likeness = "outputs") -> Any:
        """A likeness by layer, one curve per arm."""
        from labkit.plots.icl.finetuning import WORDS, similarity_by_layer

        frame = self.to_frame(likeness)
        return similarity_by_layer(
            frame.assign(arm=frame["arm"].map(ARMS)),
            reading=WORDS[likeness],
            title=self.title,
            subtitle="what is fine-tuned on by colour; 95 % interval over queries",
        )

    @staticmethod
    def _range(likeness: Likeness) -> tuple[float, float]:
        """Where a likeness lies: cosines, and differences of two."""
        return (-2.0, 2.0) if likeness == "map_gain" else (-1.0, 1.0)

    @property
    def _states(self) -> tuple[str, ...]:
        return ("none", "context", *(arm for arm in self.arms if arm != "twin"))

    def _corrected(self, state: str) -> Float[np.ndarray, "set query"]:
        return self.right(state) * (1 - self.right("none"))

    def _share_of(self, counted: Float[np.ndarray, "set query"]) -> Estimate | None:
        """Of the answers that count, the share right in context: a ratio of sums over queries."""
        whole = counted.sum(axis=0)
        both = (counted * self.right("context")).sum(axis=0)
        if whole.sum() == 0:
            return None
        return ratio(both, whole, share=True, units=float(whole.sum()))

    def _spread(self, way: str) -> Float[np.ndarray, " query"]:
        """Mean distance between two orders."""
        shares = shares_of(self.order_log_probs[WAYS.index(way)])
        pairs = combinations(range(shares.shape[1]), 2)
        apart = [np.abs(shares[:, a] - shares[:, b]).sum(axis=-1) / 2 for a, b in pairs]
        return np.mean(apart, axis=(0, 1))

    def _moved(self, way: str) -> Float[np.ndarray, " query"]:
        """Mean distance from the answers without demonstrations."""
        shares = shares_of(self.order_log_probs[WAYS.index(way)])
        plain = shares_of(self.log_probs[0])[:, None]
        return (np.abs(shares - plain).sum(axis=-1) / 2).mean(axis=(0, 1))
