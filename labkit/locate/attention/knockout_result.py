"""Results of attention knock-outs, for one fact and for many."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit import stats
from labkit.locate.fact_result import FactResult
from labkit.results.measured import Measured
from labkit.stats import Estimate
from labkit.stats.intervals import over_units

SOURCES: tuple[str, ...] = (
    "subject",
    "last subject token",
    "other tokens",
    "first token",
    "last token",
)
"""Groups of positions that the last one may not look at. *Other tokens* are all but the
subject and the last, the first token included where it is not the subject's."""

CONTROL = "random other tokens"
RELATIVE = (-1.0, math.inf)
"""Where a relative change of a probability lies."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KnockoutResult(FactResult):
    """P(answer) of one fact with attention into the last position blocked.

    Attributes:
        n_control: Number of random other tokens in the control: as many as the subject has,
            or as there are; 0 where there are none, and the control is then NaN.
        window: Number of layers in a window.
        by_layer: P(answer) with a window of layers blocked, by `SOURCES` and centre of the
            window; NaN where the prompt has no such token.
        control: The same for random other tokens, by draw.
        by_head: P(answer) where one head may not look at the subject.
        by_head_control: The same for random other tokens.
    """

    n_control: int
    window: int
    by_layer: Float[np.ndarray, "source layer"]
    control: Float[np.ndarray, "draw layer"]
    by_head: Float[np.ndarray, "layer head"]
    by_head_control: Float[np.ndarray, "layer head"]

    @property
    def title(self) -> str:
        """Where blocking the subject has the largest effect."""
        change = self.change(self.by_layer[0])
        worst = int(change.argmin())
        return (
            f"{self.prompt} … P({self.answer.strip()}) {self.clean:.2f}: blocking the subject in "
            f"{self.window} layers around {worst} changes it by {change[worst]:+.0%}"
        )

    @property
    def profile(self) -> Float[np.ndarray, " layer"]:
        """By layer, the share of P(answer) lost where the subject is blocked around it."""
        return -self.change(self.by_layer[SOURCES.index("subject")])

    def change(self, blocked: np.ndarray) -> np.ndarray:
        """Relative change of P(answer), -1..; NaN stays."""
        return (blocked - self.clean) / self.clean

    def to_frame(self) -> pd.DataFrame:
        """One row per source and layer: source, layer, mean, low, high (relative change), n.

        One fact has one number (n = 1) and no interval; the control's covers its draws.
        """
        cells = {name: self.by_layer[row : row + 1] for row, name in enumerate(SOURCES)}
        return _curves({k: self.change(v) for k, v in (cells | {CONTROL: self.control}).items()})

    def heads_frame(self) -> pd.DataFrame:
        """One row per head: layer, head, change, control (relative changes of P(answer))."""
        layers, heads = np.indices(self.by_head.shape)
        change, control = self.change(self.by_head), self.change(self.by_head_control)
        columns = {"layer": layers.ravel(), "head": heads.ravel()}
        return pd.DataFrame(columns | {"change": change.ravel(), "control": control.ravel()})

    def figure(self) -> Any:
        """Change of P(answer) by the centre of the window, one curve per group of positions."""
        from labkit.plots import knockout_curves

        return knockout_curves(self.to_frame(), title=self.title, window=self.window)

    def figure_heads(self) -> Any:
        """The grid of single heads, beside its control."""
        from labkit.plots import head_grids

        panels = {"change": "the subject", "control": CONTROL}
        title = f"P(answer) where one head may not look at ...: {self.prompt}"
        return head_grids(self.heads_frame(), panels, title=title, percent=panels, shared=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class KnockoutAverage(Measured):
    """Attention knock-outs of several facts; the unit of every interval is the fact.

    Attributes:
        prompts: The prompts.
        answers: The tokens whose probabilities were followed.
        window: Number of layers in a window.
        clean: P(answer) with nothing blocked.
        by_layer: Relative change of P(answer) by `SOURCES` and centre of the window; NaN
            where a fact has no such token.
        control: The same for random other tokens, mean over draws.
        by_head: Relative change where one head may not look at the subject.
        by_head_control: The same for random other tokens.
        n_together: Number of heads blocked together in the next two.
        together: Relative change where the heads that cost most *on the other facts* may not
            look at the subject, all at once.
        together_control: The same for as many random heads of the same layers, mean over
            draws.
        config: The method's fields.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    window: int
    clean: Float[np.ndarray, " fact"]
    by_layer: Float[np.ndarray, "fact source layer"]
    control: Float[np.ndarray, "fact layer"]
    by_head: Float[np.ndarray, "fact layer head"]
    by_head_control: Float[np.ndarray, "fact layer head"]
    n_together: int
    together: Float[np.ndarray, " fact"]
    together_control: Float[np.ndarray, " fact"]
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """Where blocking the subject has the largest effect, on average."""
        mean = self.by_layer[:, 0].mean(axis=0)
        worst = int(mean.argmin())
        return (
            f"Blocking the subject in {self.window} layers around {worst} changes P(answer) by "
            f"{mean[worst]:+.0%} on average ({len(self.prompts)} facts)"
        )

    @property
    def effect_together(self) -> tuple[Estimate, Estimate]:
        """Relative change with the costliest heads blocked at once, and its control."""
        return (
            stats.average(self.together, within=RELATIVE),
            stats.average(self.together_control, within=RELATIVE),
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per source and layer: source, layer, mean, low, high (relative change), n.

        Intervals are 95 %, over facts; `n` counts the facts that have such tokens.
        """
        cells = {name: self.by_layer[:, row] for row, name in enumerate(SOURCES)}
        return _curves(cells | {CONTROL: self.control})

    def heads_frame(self) -> pd.DataFrame:
        """One row per head: layer, head, then change and control, each with _low and _high."""
        layers, heads = np.indices(self.by_head.shape[1:])
        columns = {"layer": layers.ravel(), "head": heads.ravel()}
        for name, cells in (("change", self.by_head), ("control", self.by_head_control)):
            mean, low, high, _ = over_units(cells, within=RELATIVE)
            columns |= {
                name: mean.ravel(),
                f"{name}_low": low.ravel(),
                f"{name}_high": high.ravel(),
            }
        return pd.DataFrame(columns)

    def figure(self) -> Any:
        """Mean change of P(answer) by the centre of the window, with bands."""
        from labkit.plots import knockout_curves

        return knockout_curves(self.to_frame(), title=self.title, window=self.window)

    def figure_heads(self) -> Any:
        """The grid of single heads, beside its control."""
        from labkit.plots import head_grids

        panels = {"change": "the subject", "control": CONTROL}
        title = f"P(answer) where one head may not look at ... ({len(self.prompts)} facts)"
        return head_grids(self.heads_frame(), panels, title=title, percent=panels, shared=True)


def costliest(by_head: Float[np.ndarray, "fact layer head"], n: int) -> list[tuple[int, int]]:
    """The heads with the lowest mean change, lowest first, as (layer, head)."""
    mean = by_head.mean(axis=0)
    order = mean.ravel().argsort(kind="stable")[:n]
    return [(int(cell) // mean.shape[1], int(cell) % mean.shape[1]) for cell in order]


def _curves(cells: dict[str, Float[np.ndarray, "_unit layer"]]) -> pd.DataFrame:
    """One row per source and layer, the mean over units with its interval."""
    parts = []
    for source, values in cells.items():
        mean, low, high, n = over_units(values, within=RELATIVE)
        columns = {"source": source, "layer": np.arange(len(mean))}
        parts.append(pd.DataFrame(columns | {"mean": mean, "low": low, "high": high, "n": n}))
    return pd.concat(parts, ignore_index=True)
