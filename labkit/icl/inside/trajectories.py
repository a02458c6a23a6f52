"""How an answer forms from layer to layer, with and without demonstrations.

The stream leaving each block at the last position, read through the final norm and the
unembedding (the logit lens), gives at every depth the rank and log-probability of the right
label, the log-probability of a wrong one, and the mass on all labels together:

    rank      how many tokens are likelier than the right label, 0 is the top
    gold      log-probability of the right label
    wrong     log-probability of another label, always the same one for a label
    mass      probability of all labels together

If the mass rises before the right label separates from the wrong one, the model has identified the
possible answers before choosing one. Labels are read by their first token.

References:
    nostalgebraist (2020), interpreting GPT: the logit lens. Halawi et al. (2024), Overthinking
    the Truth, section 3: early exits after right and wrong demonstrations.

Differs from the papers:
    The wrong label is another of the space; Halawi et al. take the one that false
    demonstrations claim.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.asking.queries import asked_ids, drawn_shots
from labkit.icl.asking.scoring import require_context
from labkit.icl.asking.task_result import QueriesResult, about_queries
from labkit.icl.behaviour.conditions import flipped
from labkit.icl.inside.vectors import Labels
from labkit.icl.tasks.items import Task
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.logits import MEMORY
from labkit.running.scoring import READ_AT_ONCE, logits_of
from labkit.running.states import last_streams
from labkit.stats import Estimate, average, numpy_generator
from labkit.stats.intervals import over_units

DEPTH_READINGS: dict[str, str] = {
    "gold": "log-probability of the right label",
    "wrong": "log-probability of a wrong label",
    "rank": "rank of the right label, from 1",
    "mass": "probability of all labels together",
}
RANGES = {
    "gold": (-math.inf, 0.0),
    "wrong": (-math.inf, 0.0),
    "rank": (0.0, math.inf),
    "mass": (0.0, 1.0),
}
"""Where the values of a reading lie; ranks as log1p of the rank from 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoriesResult(QueriesResult):
    """Readings of the lens by number of demonstrations and layer.

    The unit is the query, draws of demonstrations averaged first.

    Attributes:
        ks: Numbers of demonstrations.
        seed: Seed of the draws.
        readings: `DEPTH_READINGS` in their order; ranks from 0.
    """

    ks: tuple[int, ...]
    seed: int
    readings: Float[np.ndarray, "reading k draw layer query"]

    @property
    def title(self) -> str:
        """What was measured, on what."""
        n_draws = self.readings.shape[2]
        return (
            f"Answers to {self.task} by depth: {self.model}, {len(self.queries)} queries after "
            f"{n_draws} draw{'s' if n_draws > 1 else ''} of demonstrations, read by the logit lens"
        )

    def values(self, reading: str, k: int) -> Float[np.ndarray, "query layer"]:
        """A reading, draws averaged (of ranks: the mean of 1 + rank on a log scale).

        Raises:
            InputError: If that was not measured.
        """
        if reading not in DEPTH_READINGS or k not in self.ks:
            raise InputError(
                f"{reading!r} with {k} demonstrations was not measured; there are "
                f"{', '.join(DEPTH_READINGS)} with {', '.join(map(str, self.ks))}"
            )
        own = self.readings[list(DEPTH_READINGS).index(reading), self.ks.index(k)]
        if reading == "rank":
            own = np.log1p(own)
        return own.mean(axis=0).T

    def to_frame(self) -> pd.DataFrame:
        """One row per reading, number and layer: `reading, k, layer, mean, low, high, n`.

        95 % intervals over queries. Ranks count from 1 here, and are geometric means.
        """
        parts = []
        for reading in DEPTH_READINGS:
            for k in self.ks:
                mean, low, high, n = over_units(self.values(reading, k), within=RANGES[reading])
                if reading == "rank":
                    mean, low, high = (np.exp(values) for values in (mean, low, high))
                columns = {"reading": reading, "k": k, "layer": np.arange(len(mean))}
                parts.append(
                    pd.DataFrame(columns | {"mean": mean, "low": low, "high": high, "n": n})
                )
        return pd.concat(parts, ignore_index=True)

    def parting(self, k: int) -> pd.DataFrame:
        """By layer, log P(right) - log P(wrong): `layer, mean, low, high, n`.

        Raises:
            InputError: If that number was not measured.
        """
        apart = self.values("gold", k) - self.values("wrong", k)
        mean, low, high, n = over_units(apart)
        columns = {"mean": mean, "low": low, "high": high, "n": n}
        return pd.DataFrame({"layer": np.arange(len(mean))} | columns)

    def at_last(self, reading: str, k: int) -> Estimate:
        """A reading of what leaves the last block: the model's own answer."""
        return average(self.values(reading, k)[:, -1], within=RANGES[reading])

    def figure(self) -> Any:
        """The readings by layer, a panel each, one curve per number of demonstrations."""
        from labkit.plots.icl.vectors import trajectory_curves

        return trajectory_curves(
            self.to_frame(),
            DEPTH_READINGS,
            title=self.title,
            subtitle="bands: 95 % intervals over queries; ranks are geometric means",
        )


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """The logit lens at the last position, by depth and number of demonstrations.

        Trajectories(ks=(0, 8))(model, labkit.icl.task("past")).figure()

    Attributes:
        ks: Numbers of demonstrations, ascending; 0 is no demonstration.
        draws: How many sets of demonstrations are drawn.
        queries: How many items are asked about; fewer where the pool is small.
        seed: Seed of every draw.
        memory: Bound on the activations held at once, in bytes.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        At which depth the labels rise together, and at which the right one parts from the others.

    Does not show:
        What a state holds in a basis that the unembedding does not read (see `labkit.readout`).
    """

    ks: tuple[int, ...] = (0, 1, 8)
    draws: int = 2
    queries: int = 40
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not self.ks or min(self.ks) < 0 or list(self.ks) != sorted(set(self.ks)):
            raise InputError(f"numbers of demonstrations from 0 on, ascending, not {list(self.ks)}")
        if self.draws < 1 or self.queries < 1:
            raise InputError(f"{self.draws} draws, {self.queries} queries: at least one of each")

    @checked
    @torch.no_grad()
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> TrajectoriesResult:
        """Read the last position of every query at every depth.

        Args:
            model: The model.
            task: The task; its labels are told apart by first tokens (`labkit.icl.told_apart`).
            progress: Called with what is being done and the share that is done.

        Raises:
            PoolTooSmall: If there are fewer items than the most demonstrations and one query.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token.
            ContextTooShort: If the demonstrations with a query are too long.
        """
        queries, pool = task.queries_and_pool(self.queries, max(self.ks), seed=self.seed)
        labels = Labels.of(model, task, queries)
        other = flipped(task, numpy_generator(self.seed, "icl depths", task.name))
        wrong = torch.tensor(
            [task.labels.index(other[query.label]) for query in queries], device=model.device
        )
        sets = [
            drawn_shots(pool, max(self.ks), self.seed, "icl depths", task.name, draw)
            for draw in range(self.draws)
        ]
        prompts = {
            (k, draw): asked_ids(model, task, items[:k], queries)
            for k in self.ks
            for draw, items in enumerate(sets)
        }
        require_context(model, [ids for some in prompts.values() for ids in some], [(0,)])
        found: dict[tuple[int, int], np.ndarray] = {}
        for done, (cell, own) in enumerate(prompts.items()):
            listener(progress)(f"reading depths, k = {cell[0]}", done / len(prompts))
            if cell[0] == 0 and cell[1]:
                found[cell] = found[0, 0]  # without demonstrations there is nothing to draw
                continue
            states = last_streams(model, own, memory=self.memory)
            layers = [self.read(model, layer, labels, wrong) for layer in states]
            found[cell] = np.stack(layers, axis=1)
        cells = [np.stack([found[k, draw] for draw in range(self.draws)], axis=1) for k in self.ks]
        return TrajectoriesResult(
            **about_queries(model, task, queries),
            ks=self.ks,
            seed=self.seed,
            readings=np.stack(cells, axis=1),
        )

    def read(
        self,
        model: LabModel,
        states: Float[Tensor, "query d_model"],
        labels: Labels,
        wrong: Tensor,
    ) -> Float[np.ndarray, "reading query"]:
        """`DEPTH_READINGS` of the states of all queries at one depth."""
        parts = []
        for rows in torch.arange(len(states), device=states.device).split(READ_AT_ONCE):
            own = logits_of(model, states[rows]).log_softmax(dim=-1)
            among = own[:, labels.first]
            gold = among.gather(1, labels.gold[rows][:, None])
            rank = (own > gold).sum(dim=-1).to(own.dtype)
            other = among.gather(1, wrong[rows][:, None])[:, 0]
            parts.append(torch.stack([gold[:, 0], other, rank, among.exp().sum(dim=-1)]))
        return torch.cat(parts, dim=1).double().cpu().numpy()
