"""What a probe found, depth by depth, with its controls beside it."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.results.measured import Measured
from labkit.stats import Estimate
from probes.probing.depths import Reach, reach
from probes.probing.description_length import Portion
from probes.probing.fitted import FittedProbes


@dataclass(frozen=True, kw_only=True)
class ProbedDepth:
    """What a probe reads at one depth. Intervals are over groups of the test side.

    Attributes:
        depth: Blocks passed through, or the layer of another site than the residual stream.
        score: Accuracy 0..1 on the test side, or R^2 (at most 1) for numbers.
        control: The same on the control task; None where it has nothing to memorise.
        selectivity: Score less control score, over the same examples.
        shuffled: Score of the probe trained on permuted labels.
        twin: Score on the model of random weights.
        bits: Length of the online code of the training side's labels; over its groups.
        compression: Uniform code over online code; 1 is nothing learned.
        p: One-sided p-value that the probe is no better than the strongest baseline.
        p_holm: The same, corrected for the number of depths.
    """

    depth: int
    score: Estimate
    control: Estimate | None
    selectivity: Estimate | None
    shuffled: Estimate | None
    twin: Estimate | None
    bits: Estimate | None
    compression: Estimate | None
    p: float
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Measured):
    """A task, probed at every depth of a model.

    Attributes:
        task: Name of the task.
        family: What kind of knowledge it asks for.
        source: Where its data comes from.
        where: What was read: "resid", or another site.
        estimator: Which probe.
        strength: Its strength, chosen in grouped cross-validation; None if it has none.
        numeric: Whether the labels are numbers, scored by R^2.
        n_train: Examples that were learned from.
        n_test: Examples that were scored.
        n_classes: Number of classes; None for numbers.
        left_out: Classes too rare among the examples that were drawn.
        unconverged: Fits that stopped at their number of steps.
        baselines: Scores without using the state: "majority", "form", "bag".
        no_selectivity: The reason where there is no selectivity.
        no_code: The reason where there is no description length.
        depths: What was found, by depth.
        curve: The sample-size curve at the best depth: the code's portions.
        credit: By depth and group of the test side, what the answers are worth.
        weight: By group, what perfect answers are worth.
        seed: Seed of every draw.
        kept: The fitted probes; None where `Probing.keep` was off. Use `fitted`.
    """

    task: str
    family: str
    source: str
    where: str
    estimator: str
    strength: float | None
    numeric: bool
    n_train: int
    n_test: int
    n_classes: int | None
    left_out: tuple[str, ...]
    unconverged: int
    baselines: dict[str, Estimate]
    no_selectivity: str | None
    no_code: str | None
    depths: tuple[ProbedDepth, ...]
    curve: tuple[Portion, ...]
    credit: tuple[tuple[float, ...], ...]
    weight: tuple[float, ...]
    seed: int
    kept: FittedProbes | None = field(default=None, compare=False, repr=False)

    @property
    def fitted(self) -> FittedProbes:
        """The fitted probes by depth, to be tried on other states: `fitted[8].score(features)`.

        Raises:
            InputError: If they were not kept.
        """
        if self.kept is None:
            raise InputError(
                f"the probes of {self.task!r} were not kept: probe with Probing(keep=True), or a "
                "map with dataclasses.replace(MAP, keep=True)"
            )
        return self.kept

    @property
    def measure(self) -> str:
        """What a score is."""
        return "R²" if self.numeric else "accuracy"

    @property
    def best(self) -> ProbedDepth:
        """The depth with the highest score, the lowest of several.

        It is chosen on the test side, so its score is a little flattering; the differences
        between neighbours are mostly smaller than their intervals.
        """
        return max(self.depths, key=lambda at: at.score.mean)

    @property
    def baseline(self) -> tuple[str, Estimate]:
        """The strongest of the baselines."""
        return max(self.baselines.items(), key=lambda pair: pair[1].mean)

    @property
    def reach(self) -> Reach:
        """Where the score comes from: `probes.probing.depths` with intervals."""
        numbers = [at.depth for at in self.depths]
        floor = self.baselines["majority"].mean
        return reach(self.credits, np.asarray(self.weight), numbers, floor=floor, seed=self.seed)

    @property
    def credits(self) -> Float[np.ndarray, "depth group"]:
        """`credit` as an array."""
        return np.asarray(self.credit)

    @property
    def title(self) -> str:
        """Task, best depth and what it is above."""
        name, baseline = self.baseline
        best = self.best
        return (
            f"{self.task}, {self.estimator} probe of {self.model}: {self.measure} "
            f"{best.score:.3f} at depth "
            f"{best.depth} ({name} {baseline.mean:.3f}, n={self.n_test})"
        )

    def at(self, depth: int) -> ProbedDepth:
        """What was found at a depth."""
        return next(found for found in self.depths if found.depth == depth)

    def to_frame(self) -> pd.DataFrame:
        """One row per depth: every estimate as mean, `_low` and `_high`, and the p-values."""
        return pd.DataFrame([_flat(found) for found in self.depths])

    def to_long(self) -> pd.DataFrame:
        """One row per depth and reading: `depth, reading, mean, low, high, n`, for figures.

        Baselines are the same at every depth, and stand there once each.
        """
        rows = []
        for found in self.depths:
            for reading in ("score", "control", "shuffled", "twin"):
                estimate = getattr(found, reading)
                if estimate is not None:
                    rows.append({"depth": found.depth, "reading": reading, **estimate.to_dict()})
            for reading, estimate in self.baselines.items():
                rows.append({"depth": found.depth, "reading": reading, **estimate.to_dict()})
        return pd.DataFrame(rows)

    def curve_frame(self) -> pd.DataFrame:
        """The sample-size curve at the best depth: `n_train, score, bits`, one row per portion."""
        total, rows = 0, []
        for step in self.curve:
            total += step.n
            rows.append({"n_train": total, "score": step.score, "bits": step.bits})
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """Score and controls over the depths."""
        from labkit.plots import probe_curves

        return probe_curves(
            self.to_long(),
            measure=self.measure,
            title=f"{self.task}: what a {self.estimator} probe reads in {self.model}",
            subtitle=f"{self.n_train} examples learned from, {self.n_test} scored; "
            f"bands: 95 % over {len(self.weight)} groups",
        )


def _flat(found: ProbedDepth) -> dict[str, Any]:
    """A depth as a row of a table."""
    row: dict[str, Any] = {}
    for name in (each.name for each in fields(found)):
        value = getattr(found, name)
        if isinstance(value, Estimate):
            row |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        elif value is None:
            row |= {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
        else:
            row[name] = value
    return row
