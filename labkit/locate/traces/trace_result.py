"""Results of a causal trace: a probability for every noise draw, position and layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit import stats
from labkit.errors import InputError
from labkit.locate.fact_result import FactResult
from labkit.locate.traces.alignment import align
from labkit.locate.traces.restoring import usual_window
from labkit.stats import Estimate

Cells = np.ndarray | np.floating
"""One number per cell; a bare number where there is one cell."""

NAMES = {"resid": "hidden state", "ffn": "FFN output", "attn": "attention output"}
"""What is restored, in words."""


EFFECTS = (-1.0, 1.0)
"""Where an effect lies, being a difference of two probabilities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceResult(FactResult):
    """Results of a causal trace.

    Attributes:
        kind: What was restored.
        corrupted: P(answer) under noise, by noise draw.
        cells: P(answer) with one site restored, by noise draw; NaN where no cell was asked
            for.
        severed: Whose outputs at the restored token were held at their corrupted values.
        warning: What is odd about the subject, in one line; None if nothing is.
    """

    kind: str
    corrupted: Float[np.ndarray, " sample"]
    cells: Float[np.ndarray, "sample pos layer"]
    severed: str | None = None
    warning: str | None = None

    @property
    def title(self) -> str:
        """What was traced, with the clean and the corrupted probability."""
        held = f", {NAMES[self.severed]}s held" if self.severed else ""
        return (
            f"Restoring one {NAMES[self.kind]}{held}: P({self.answer!r}) clean "
            f"{self.clean:.2f}, corrupted {self.corrupted.mean():.2f} "
            f"({len(self.corrupted)} noise draws)"
        )

    @property
    def about(self) -> str:
        """What was restored, and for which prompt."""
        return f"restoring one {NAMES[self.kind]}, {self.prompt!r}"

    @property
    def asked(self) -> tuple[tuple[str, str, str], ...]:
        """Prompt, subject and answer, as `AveragedTrace.asked` has them."""
        return ((self.prompt, self.subject, self.answer),)

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: pos, token, layer, in_subject, and mean, low, high of P(answer).

        The interval covers the noise draws: 95 %, within 0..1; a single draw has none (NaN).
        Cells that were not asked for are left out.
        """
        frame = self._over_cells(self.cells, within=(0.0, 1.0))
        return frame.dropna(subset="mean", ignore_index=True)

    @property
    def total_effect(self) -> Estimate:
        """`P - P*`: what the noise destroys, with its interval over draws."""
        return stats.average(self.clean - self.corrupted, within=EFFECTS)

    def indirect_effect(self, pos: int, layer: int) -> Estimate:
        """`P*[state] - P*` of one cell, paired over noise draws, with its interval."""
        return stats.average(self.cells[:, pos, layer] - self.corrupted, within=EFFECTS)

    def share_recovered(self, pos: int, layer: int) -> Estimate:
        """Indirect effect of one cell over the total effect, with its interval over draws.

        1 where restoring the state recovers all that the noise destroyed.

        Raises:
            InputError: If the noise destroys nothing: there is nothing to recover.
        """
        effect = self.cells[:, pos, layer] - self.corrupted
        return ratio_of_means(effect, self.clean - self.corrupted)

    def effects_by_role(self) -> Float[np.ndarray, "sample role layer"]:
        """Indirect effects by `labkit.locate.ROLES` instead of positions.

        NaN for roles that the prompt lacks, or that were not asked for.
        """
        return align(self.cells, self.subject_positions) - self.corrupted[:, None, None]

    @property
    def profile(self) -> Float[np.ndarray, " layer"]:
        """By layer, the largest mean indirect effect among the subject's tokens."""
        effects = self.cells.mean(axis=0) - self.corrupted.mean()
        return np.nanmax(effects[list(self.subject_positions)], axis=0)

    def peak(self, positions: Sequence[int] | None = None) -> tuple[int, int]:
        """Position and layer of the cell that restores most, among some positions.

        By default among the subject's positions: the last position restores everything in
        the last layers by construction.
        """
        among = list(self.subject_positions if positions is None else positions)
        mean = self.cells.mean(axis=0)[among]
        if np.isnan(mean).all():
            raise InputError(f"no cell at the positions {among} was asked for")
        row, layer = np.unravel_index(int(np.nanargmax(mean)), mean.shape)
        return among[int(row)], int(layer)

    def figure(self, *beside: "TraceResult") -> Any:
        """The heatmap: tokens down, subject starred, layers across.

        Args:
            *beside: Other traces of the same prompt and answer (FFN, attention), drawn side
                by side with one colour axis.

        Raises:
            InputError: If one of them is of another prompt, answer or noise.
        """
        from labkit.plots import Traced, trace_heatmap, trace_panels

        traced = Traced(
            answer=self.answer,
            clean=self.clean,
            corrupted=float(self.corrupted.mean()),
            subject_positions=self.subject_positions,
            n_draws=len(self.corrupted),
        )
        if not beside:
            return trace_heatmap(
                self.to_frame(),
                traced,
                kind=self.kind,
                window=self._window,
                severed=self.severed,
                warning=self.warning,
            )
        for other in beside:
            if other.asked != self.asked or not np.allclose(other.corrupted, self.corrupted):
                raise InputError("only traces of one prompt, answer and noise share a figure")
        return trace_panels({each._panel: each.to_frame() for each in (self, *beside)}, traced)

    @property
    def _window(self) -> int:
        """Layers restored together."""
        return self.config.get("window") or usual_window(self.cells.shape[-1])

    @property
    def _panel(self) -> str:
        """The name of the trace beside others."""
        window = self._window
        layers = f", {window} layers" if self.kind != "resid" and window > 1 else ""
        held = f", {self.severed} severed" if self.severed else ""
        return NAMES[self.kind] + layers + held


def ratio_of_means(
    parts: Float[np.ndarray, " unit"], wholes: Float[np.ndarray, " unit"]
) -> Estimate:
    """Mean of `parts` over mean of `wholes`, paired over units.

    A mean of ratios would be dominated by the units whose whole is near zero. The interval is
    that of `labkit.stats.ratio`.

    Raises:
        InputError: If the wholes have no positive mean.
    """
    whole = float(wholes.mean())
    if not whole > 0:
        raise InputError(f"there is no share of a mean effect of {whole:.3g}: nothing is lost")
    return stats.ratio(parts, wholes)
