"""The map as a result: tasks by depths, their centres, and the test of their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from labkit.errors import InputError
from labkit.results.measured import Measured
from probes.probing.depths import MEASURES, OrderTest, order_test, reach_draws
from probes.probing.probe_result import ProbeResult

LINGUISTIC = ("lexical", "syntactic")
"""What claim C1 places in the low and middle layers."""

FACTUAL = ("factual",)
"""What claim C2 places in the middle and high ones."""

FAMILIES = ("surface", "lexical", "syntactic", "semantic", "factual")
"""Families in the order of the figure."""


@dataclass(frozen=True, kw_only=True)
class ProbeMap(Measured):
    """Tasks by depths.

    Attributes:
        where: What was read.
        estimator: Which probe.
        probes: What was found, by task, family by family.
        seed: Seed of every draw.
    """

    where: str
    estimator: str
    probes: tuple[ProbeResult, ...]
    seed: int

    @property
    def title(self) -> str:
        """Number of tasks and depths, and the model."""
        n_depths = len(self.probes[0].depths)
        return f"{len(self.probes)} tasks at {n_depths} depths of {self.model}"

    def __getitem__(self, task: str) -> ProbeResult:
        """What was found for one task.

        Raises:
            InputError: If the map has no such task.
        """
        for found in self.probes:
            if found.task == task:
                return found
        names = ", ".join(found.task for found in self.probes)
        raise InputError(f"the map has no task {task!r}; it has {names}")

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: task, family, the columns of `ProbeResult.to_frame`, baseline, gain.

        `gain` is the score above the strongest baseline, `share` the score above the majority as
        a share of what the majority leaves open (at most 1); `p_bh` is the p-value corrected over
        all cells of the map (Benjamini and Hochberg 1995: bounds the share of false ones).
        """
        frames = []
        for found in self.probes:
            frame = found.to_frame()
            name, baseline = found.baseline
            frame.insert(0, "task", found.task)
            frame.insert(1, "family", found.family)
            frame["baseline"], frame["baseline_is"] = baseline.mean, name
            frame["gain"] = frame["score"] - baseline.mean
            usual = found.baselines["majority"].mean
            frame["share"] = (frame["score"] - usual) / (1 - usual)
            frames.append(frame)
        frame = pd.concat(frames, ignore_index=True)
        return frame.assign(p_bh=false_discovery_control(frame["p"].to_numpy()))

    def centres(self, measure: str = "gravity") -> pd.DataFrame:
        """One row for each task that has the measure.

        Args:
            measure: "gravity", "expected" or "arrival".

        Returns:
            Columns `task, family, mean, low, high, n` (depths; n groups).
        """
        rows = []
        for found in self.probes:
            estimate = getattr(found.reach, measure)
            if estimate is not None:
                rows.append({"task": found.task, "family": found.family, **estimate.to_dict()})
        return pd.DataFrame(rows, columns=["task", "family", "mean", "low", "high", "n"])

    def summary(self) -> pd.DataFrame:
        """One row per task: best depth and score, its controls there, both centres."""
        rows = []
        for found in self.probes:
            best, reach = found.best, found.reach
            name, baseline = found.baseline
            rows.append(
                {
                    "task": found.task,
                    "family": found.family,
                    "measure": found.measure,
                    "best depth": best.depth,
                    "score": best.score,
                    "embedding": found.depths[0].score,
                    "baseline": baseline,
                    "baseline is": name,
                    "random weights": best.twin,
                    "selectivity": best.selectivity,
                    "compression": best.compression,
                    "gravity": reach.gravity,
                    "expected depth": reach.expected,
                    "arrival": reach.arrival,
                    "n": found.n_test,
                }
            )
        return pd.DataFrame(rows)

    def order(
        self,
        measure: str = "arrival",
        *,
        lower: Sequence[str] = LINGUISTIC,
        upper: Sequence[str] = FACTUAL,
    ) -> OrderTest:
        """Test whether tasks of some families arise at lower depths than those of others.

        Args:
            measure: "arrival", "gravity" or "expected"; see `probes.probing.depths`.
            lower: Families that should lie lower.
            upper: Families that should lie higher.

        Raises:
            InputError: If there is no such measure, or fewer than two tasks of either kind
                have it.
        """
        if measure not in MEASURES:
            raise InputError(f"unknown measure {measure!r}; one of {', '.join(MEASURES)}")
        measured = {
            found.task: reach_draws(
                found.credits,
                np.asarray(found.weight),
                [at.depth for at in found.depths],
                measure,
                floor=found.baselines["majority"].mean,
                seed=found.seed,
            )
            for found in self.probes
        }
        sides = [
            [found.task for found in self.probes if found.family in families]
            for families in (lower, upper)
        ]
        return order_test(measured, *sides, measure=measure, seed=self.seed)

    def figure(self) -> Any:
        """Heatmap of tasks by depths, with what `order` compares by default: their arrivals."""
        from labkit.plots import probe_map_heatmap

        frame = self.to_frame().rename(columns={"score_low": "low", "score_high": "high"})
        return probe_map_heatmap(
            frame,
            self.centres("arrival"),
            title=f"What a {self.estimator} probe reads in {self.model}",
            subtitle="share of what the majority leaves open; diamond: arrival, "
            "the mean depth of the gain",
        )
