"""Results of attribution patching, and its agreement with the exact trace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from labkit import stats
from labkit.errors import FingerprintMismatch, InputError
from labkit.locate.fact_result import FactResult, cell_columns
from labkit.locate.traces.restoring import usual_window
from labkit.locate.traces.trace_result import NAMES, TraceResult
from labkit.results.result import Result
from labkit.stats import Estimate

RESAMPLES = 1000
"""Bootstrap resamples of the noise draws behind the interval of a correlation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionResult(FactResult):
    """First-order approximation of a causal trace.

    Attributes:
        kind: What would be restored.
        corrupted: P(answer) under noise, by noise draw.
        effects: Approximate indirect effect `P*[state] - P*` of each state, by noise draw;
            an extrapolation, which may exceed the range of a probability.
    """

    kind: str
    corrupted: Float[np.ndarray, " sample"]
    effects: Float[np.ndarray, "sample pos layer"]

    @property
    def title(self) -> str:
        """What was approximated, with the clean and the corrupted probability."""
        return (
            f"Attribution of one {NAMES[self.kind]}: P({self.answer!r}) clean {self.clean:.2f}, "
            f"corrupted {self.corrupted.mean():.2f} ({len(self.corrupted)} noise draws)"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: pos, token, layer, in_subject, and mean, low, high of the effect.

        The interval covers the noise draws: 95 %.
        """
        return self._over_cells(self.effects)

    def indirect_effect(self, pos: int, layer: int) -> Estimate:
        """Approximate `P*[state] - P*` of one cell, with its interval over draws."""
        return stats.average(self.effects[:, pos, layer])

    @property
    def profile(self) -> Float[np.ndarray, " layer"]:
        """The largest mean effect among the subject's positions, layer by layer."""
        return self.effects.mean(axis=0)[list(self.subject_positions)].max(axis=0)

    def peak(self, positions: Sequence[int] | None = None) -> tuple[int, int]:
        """Position and layer of the largest effect, by default among the subject's positions."""
        among = list(self.subject_positions if positions is None else positions)
        mean = self.effects.mean(axis=0)[among]
        row, layer = np.unravel_index(int(mean.argmax()), mean.shape)
        return among[int(row)], int(layer)

    def figure(self) -> Any:
        """The heatmap: tokens down, subject starred, layers across, colours around zero."""
        from labkit.plots import Traced, attribution_heatmap

        traced = Traced(
            answer=self.answer,
            clean=self.clean,
            corrupted=float(self.corrupted.mean()),
            subject_positions=self.subject_positions,
            n_draws=len(self.corrupted),
        )
        return attribution_heatmap(self.to_frame(), traced, kind=self.kind)

    def agreement(self, trace: TraceResult, *, seed: int = 0) -> "TraceAgreement":
        """How far the approximation agrees with the exact trace of the same fact.

        Args:
            trace: The trace, of the same prompt, subject, answer, kind and window.
            seed: Seed of the bootstrap over noise draws.

        Raises:
            FingerprintMismatch: If the trace is another model's.
            InputError: If it is not the same question, or has nothing to correlate.
        """
        if trace.fingerprint != self.fingerprint:
            raise FingerprintMismatch(f"the trace is of another model ({trace.model})")
        same = ("prompt", "subject_positions", "answer", "kind")
        n_layers = self.effects.shape[-1]
        asked, traced = (
            {name: getattr(result, name) for name in same}
            | {name: result.config.get(name) for name in ("noise", "severed")}
            | {"window": result.config.get("window") or usual_window(n_layers)}
            for result in (self, trace)
        )
        if different := [name for name in asked if asked[name] != traced[name]]:
            name = different[0]
            raise InputError(
                f"the trace has {name} {traced[name]!r}, the attribution {asked[name]!r}: compare "
                "attribution and trace of the same settings"
            )
        start = self.subject_positions[0]
        exact = (trace.cells - trace.corrupted[:, None, None])[:, start:]
        guess = self.effects[:, start:]
        same_draws = all(trace.config.get(k) == self.config.get(k) for k in ("seed", "samples"))

        def correlated(positions: slice, ranks: bool) -> Estimate:
            grids = guess[:, positions], exact[:, positions]
            return _correlation(*grids, ranks=ranks, paired=same_draws, seed=seed)

        inside = slice(len(self.subject_positions))
        return TraceAgreement(
            prompt=self.prompt,
            answer=self.answer,
            tokens=self.tokens[start:],
            first=start,
            subject_positions=self.subject_positions,
            kind=self.kind,
            steps=int(self.config.get("steps", 1)),
            approximate=guess.mean(axis=0),
            exact=exact.mean(axis=0),
            spearman=correlated(slice(None), ranks=True),
            pearson=correlated(slice(None), ranks=False),
            spearman_subject=correlated(inside, ranks=True),
            pearson_subject=correlated(inside, ranks=False),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceAgreement(Result):
    """Attribution against the exact trace, cell by cell.

    The cells are those from the first subject token on that were traced; before it both are
    zero by construction. Cells of one prompt are no independent units, so intervals come from
    resampling the noise draws: they show how certain the correlation is *for this fact*.

    Attributes:
        prompt: The prompt.
        answer: The token whose probability is followed.
        tokens: Its tokens from the first subject token on.
        first: Position of the first of them.
        subject_positions: Positions of the subject's tokens.
        kind: What is restored.
        steps: Points at which the gradient was taken.
        approximate: Effect by attribution, mean over draws.
        exact: Effect by the trace, mean over draws.
        spearman: Rank correlation over all these cells, -1..1.
        pearson: Linear correlation over the same.
        spearman_subject: Rank correlation over the subject's tokens alone.
        pearson_subject: Linear correlation over the same.
    """

    prompt: str
    answer: str
    tokens: tuple[str, ...]
    first: int
    subject_positions: tuple[int, ...]
    kind: str
    steps: int
    approximate: Float[np.ndarray, "pos layer"]
    exact: Float[np.ndarray, "pos layer"]
    spearman: Estimate
    pearson: Estimate
    spearman_subject: Estimate
    pearson_subject: Estimate

    @property
    def title(self) -> str:
        """The correlations, on what."""
        n_cells = np.isfinite(self.exact).sum()
        return (
            f"Attribution against trace, {NAMES[self.kind]}: rank correlation {self.spearman} "
            f"over {n_cells} cells, {self.spearman_subject} on the subject's tokens"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: pos, token, layer, in_subject, exact (NaN: not traced), approximate."""
        cells = cell_columns(
            self.exact.shape, self.tokens, self.subject_positions, first=self.first
        )
        return pd.DataFrame(
            cells | {"exact": self.exact.ravel(), "approximate": self.approximate.ravel()}
        )

    def figure(self) -> Any:
        """One point per cell: exact across, approximate up."""
        from labkit.plots import agreement_scatter

        return agreement_scatter(
            self.to_frame(),
            subtitle=f"rank correlation {self.spearman};  subject {self.spearman_subject}",
        )


def _correlation(
    guess: Float[np.ndarray, "sample pos layer"],
    exact: Float[np.ndarray, "other pos layer"],
    *,
    ranks: bool,
    paired: bool,
    seed: int,
) -> Estimate:
    """Correlation of two mean grids, with its interval over resampled draws.

    Raises:
        InputError: If one of the grids is the same everywhere.
    """
    measured = np.isfinite(exact).all(axis=0)  # a trace may be of some roles of tokens only
    grids = [grid[:, measured].astype(float) for grid in (guess, exact)]
    if not measured.any() or any(np.ptp(grid.mean(axis=0)) == 0 for grid in grids):
        raise InputError("every cell has the same effect: a correlation is undefined")
    point = float(_over_cells(*(grid.mean(axis=0)[None] for grid in grids), ranks=ranks)[0])
    n_draws = min(map(len, grids))
    if n_draws < 2:
        return Estimate.exact(point, n_draws)
    draw = stats.numpy_generator(seed, "agreement", len(guess), len(exact))
    picks = [draw.integers(len(grid), size=(RESAMPLES, len(grid))) for grid in grids]
    if paired:
        picks[1] = picks[0]
    means = [grid[pick].mean(axis=1) for grid, pick in zip(grids, picks, strict=True)]
    draws = _over_cells(*means, ranks=ranks)
    return stats.from_resamples(point, draws, n_draws, within=(-1.0, 1.0))


def _over_cells(
    first: Float[np.ndarray, "resample cell"],
    second: Float[np.ndarray, "resample cell"],
    *,
    ranks: bool,
) -> Float[np.ndarray, " resample"]:
    """Pearson's correlation over the cells, or Spearman's, row by row."""
    pair = [rankdata(values, axis=1) if ranks else values for values in (first, second)]
    a, b = (values - values.mean(axis=1, keepdims=True) for values in pair)
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
