"""What a sweep of layers found: where to edit, and the evidence."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from editing.presets.preset_files import SPREAD, Preset
from labkit.errors import InputError
from labkit.results.measured import Measured
from labkit.stats.estimate import Estimate

SCREENING = "screening"
"""State and reading of the rows that no edit was made for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSweep(Measured):
    """Edits of the same cases at several layers, each case alone.

    Attributes:
        table: One row per layer, reading, metric and state: mean, low, high, n (cases). Rows of
            the state "screening" are shares of a change, not of prompts, and no edits.
        method: Name of the method.
        n_layers: Number of layers of the model.
        n_cases: Number of cases.
    """

    table: pd.DataFrame
    method: str
    n_layers: int
    n_cases: int

    @property
    def title(self) -> str:
        """Model, method and layers of the sweep."""
        return f"{self.method} at every layer tried, {self.n_cases} cases, {self.model}"

    @property
    def layer(self) -> int:
        """The layer with the best score: efficacy, paraphrase and neighbourhood together.

        Where several are equal, the one with the widest margin in the screening.
        """
        score = self.by_layer()
        best = np.flatnonzero(score == np.nanmax(score))
        margin = np.nan_to_num(self.margin(), nan=-np.inf)
        return int(best[np.argmax(margin[best])])

    @property
    def layers(self) -> tuple[int, ...]:
        """Consecutive layers for methods that edit several: the widest mean margin.

        All such ranges hold `layer`. They were not edited together.
        """
        n, margin = min(SPREAD, self.n_layers), self.margin()
        starts = range(max(0, self.layer - n + 1), min(self.layer, self.n_layers - n) + 1)
        middle = min(max(0, self.layer - n // 2), self.n_layers - n)
        means = {start: float(margin[start : start + n].mean()) for start in starts}
        screened = {start: mean for start, mean in means.items() if np.isfinite(mean)}
        start = max(screened, key=screened.__getitem__) if screened else middle
        return tuple(range(start, start + n))

    def preset(self) -> Preset:
        """Where to edit the model, with the evidence."""
        score = self._rows("score", "success")
        row = score[score["layer"] == self.layer].iloc[0]
        source = (
            f"sweep of {self.model}: {self.method} edited {self.n_cases} cases at layers "
            f"{', '.join(map(str, sorted(score['layer'])))}; layer {self.layer} has the best "
            f"score, {Estimate.from_dict(row.to_dict()):.3f}; the layers for "
            "methods that edit several were chosen by keys and not edited together"
        )
        kept = self.table[self.table["reading"].isin(["success", SCREENING])]
        records = kept.sort_values("layer", kind="stable").to_dict(orient="records")
        evidence = tuple({str(k): v for k, v in record.items()} for record in records)
        return Preset(
            layer=self.layer,
            layers=self.layers,
            source=source,
            measured=True,
            evidence=evidence,
        )

    def to_frame(self) -> pd.DataFrame:
        """The table; see the class."""
        return self.table

    def by_layer(
        self, metric: str = "score", reading: str = "success"
    ) -> Float[np.ndarray, " layer"]:
        """One number per layer, NaN where the layer was left out.

        Args:
            metric: "efficacy", "paraphrase", "neighbourhood" or "score", their harmonic mean.
            reading: "success", "accuracy" or "generation".

        Raises:
            InputError: If nothing was measured under these names.
        """
        rows = self._rows(metric, reading)
        if rows.empty:
            raise InputError(f"no {metric!r} under the reading {reading!r} in this sweep")
        return self._spread(rows)

    def margin(self) -> Float[np.ndarray, " layer"]:
        """Hit minus leak by layer, NaN where it was not screened."""
        return self._spread(self._rows("margin", SCREENING, SCREENING))

    def figure(self) -> Any:
        """Success of the edited model by layer, one line per metric, with bands over cases."""
        from labkit.plots import profile_curves

        rows = self._rows(None, "success").rename(columns={"metric": "method"})
        return profile_curves(rows, title=self.title, score="success", over="cases")

    def _rows(self, metric: str | None, reading: str, state: str = "edited") -> pd.DataFrame:
        chosen = (self.table["state"] == state) & (self.table["reading"] == reading)
        return self.table[chosen & ((self.table["metric"] == metric) | (metric is None))]

    def _spread(self, rows: pd.DataFrame) -> np.ndarray:
        """The means of some rows, one per layer of the model."""
        found = np.full(self.n_layers, np.nan)
        found[rows["layer"].to_numpy(int)] = rows["mean"]
        return found
