"""Results of `HeadAblation`: what switching heads off does to in-context learning."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.results.measured import Measured
from labkit.stats import Estimate, average, holm, paired_difference, share
from labkit.stats.intervals import over_units

Heads = tuple[tuple[int, int], ...]
"""Heads, as (layer, head)."""

NOTHING, ALL = "nothing", "all of them"
"""What the run with no head off is called, and the one with heads of all kinds off."""

TEXTS = ("repeated tokens", "text")
"""What losses by position were measured on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadAblationResult(Measured):
    """Losses and tasks with heads of some kinds off, and with random heads off.

    Attributes:
        config: The method's fields.
        tasks: Names of the tasks.
        kinds: Kinds of heads.
        scores: Their scores on repeated random tokens, 0..1.
        sets: By what was off, the heads found, then each draw of random ones.
        cases: One row per unit: `measure`, `on` (a task, or what text), `k` (demonstrations),
            `unit` (sequence, text or query), `value`, `heads` (what was off; `NOTHING`), `draw`
            (0: the heads found, then the draws of random ones). Measures are "score" (late minus
            early loss, nats), "loss" (nats per token), "accuracy" (0..1), "log P(label)" (nats),
            "gain of ..." these two (with demonstrations minus without).
        runs: What was off in each run, and its draw.
        repeated: Loss of every token but the first of sequences of repeated tokens, in nats.
        text: The same of texts.
    """

    config: dict[str, Any]
    tasks: tuple[str, ...]
    kinds: tuple[str, ...]
    scores: Float[np.ndarray, "kind sequence layer head"]
    sets: dict[str, tuple[Heads, ...]]
    cases: pd.DataFrame
    runs: tuple[tuple[str, int], ...]
    repeated: Float[np.ndarray, "run tested pos"]
    text: Float[np.ndarray, "run document text_pos"]

    @property
    def title(self) -> str:
        """The gain from repetition with the first kind of heads off, and with random ones off."""
        kind = self.kinds[0]
        row = self.row("score", "repeated tokens", kind)
        return (
            f"{len(self.sets[kind][0])} {kind} heads of {self.model} off: loss late - early on "
            f"repeated tokens {row['intact']:+.2f} -> {row['mean']:+.2f} nats (random heads "
            f"{row['intact'] + row['random']:+.2f})"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per measure and what was off, tested together.

        Columns `measure, on, k, heads, n_heads, intact` (nothing off), `mean, low, high` (these
        off), `change, change_low, change_high` (these off - nothing off, unit by unit), `random,
        random_low, random_high` (the same change with as many random heads off, mean over draws),
        `least, most` (its range over draws), `beyond, beyond_low, beyond_high` (change - random),
        `p` of a sign-flip test of `beyond`, `p_holm`, corrected for the number of rows, `n`
        (units: sequences, texts or queries).
        """
        return self._frame.copy()

    @cached_property
    def _frame(self) -> pd.DataFrame:
        """The table, computed once: its tests are resampled."""
        rows = []
        for (measure, on, k), own in self.cases.groupby(["measure", "on", "k"], sort=False):
            wide = own.pivot(index="unit", columns=["heads", "draw"], values="value")
            intact = wide[NOTHING, 0].to_numpy()
            for kind, sets in self.sets.items():
                values, random = wide[kind, 0].to_numpy(), wide[kind].drop(columns=0)
                over_draws = random.mean(axis=1).to_numpy()
                by_draw = random.mean(axis=0) - intact.mean()
                beyond, p = paired_difference(values, over_draws)
                of = share if measure == "accuracy" else average
                rows.append(
                    {"measure": measure, "on": on, "k": k, "heads": kind}
                    | {"n_heads": len(sets[0]), "intact": float(intact.mean())}
                    | named(of(values))
                    | named(average(values - intact), "change")
                    | named(average(over_draws - intact), "random")
                    | {"least": float(by_draw.min()), "most": float(by_draw.max())}
                    | named(beyond, "beyond")
                    | {"p": p, "n": len(values)}
                )
        frame = pd.DataFrame(rows)
        frame.insert(frame.columns.get_loc("p") + 1, "p_holm", holm(frame["p"].tolist()))
        return frame

    def row(self, measure: str, on: str, heads: str, k: int | None = None) -> pd.Series:
        """One row of the table; `k` is that of the demonstrations where it is not given.

        Raises:
            InputError: If that was not measured.
        """
        if k is None:
            k = self.config["k"] if on in self.tasks else 0
        frame = self._frame
        found = frame[
            (frame["measure"] == measure)
            & (frame["on"] == on)
            & (frame["heads"] == heads)
            & (frame["k"] == k)
        ]
        if found.empty:
            raise InputError(
                f"{measure!r} on {on!r} with {heads!r} off and {k} demonstrations was not measured"
            )
        return found.iloc[0]

    def losses(self, on: str = "repeated tokens") -> pd.DataFrame:
        """Loss by position: `heads, random, pos, mean, low, high, n` in nats, over units.

        `pos` is the token whose loss it is, the first being 0; `random` says whether as many
        random heads were off, mean over draws.

        Raises:
            InputError: If `on` is neither "repeated tokens" nor "text".
        """
        if on not in TEXTS:
            raise InputError(f"losses by position of {' or '.join(TEXTS)}, not of {on!r}")
        values = self.repeated if on == TEXTS[0] else self.text
        parts = []
        for kind in (NOTHING, *self.sets):
            for random in (False, True):
                places = [
                    place
                    for place, (heads, draw) in enumerate(self.runs)
                    if heads == kind and (draw > 0) == random
                ]
                if places:
                    mean, low, high, n = over_units(values[places].mean(axis=0))
                    columns = {"heads": kind, "random": random, "pos": np.arange(1, len(mean) + 1)}
                    numbers = {"mean": mean, "low": low, "high": high, "n": n}
                    parts.append(pd.DataFrame(columns | numbers))
        return pd.concat(parts, ignore_index=True)

    def heads_frame(self) -> pd.DataFrame:
        """One row per kind and head: `kind, layer, head, mean, low, high, off`.

        Attention score of that kind with its interval over sequences, and whether the head was
        switched off as one of that kind.
        """
        layers, heads = (axis.ravel() for axis in np.indices(self.scores.shape[2:]))
        parts = []
        for kind, scores in zip(self.kinds, self.scores, strict=True):
            found = over_units(scores, within=(0.0, 1.0))
            mean, low, high, _ = (values.ravel() for values in found)
            chosen = set(self.sets[kind][0])
            off = [pair in chosen for pair in zip(layers.tolist(), heads.tolist(), strict=True)]
            columns = {"kind": kind, "layer": layers, "head": heads}
            parts.append(
                pd.DataFrame(columns | {"mean": mean, "low": low, "high": high, "off": off})
            )
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Any:
        """Scores and tasks with these heads off, with random heads off, and with nothing off."""
        from labkit.plots.icl.heads import ablation_intervals

        frame = self.to_frame()
        frame = frame[(frame["k"] > 0) | ~frame["on"].isin(self.tasks)]
        frame = frame[frame["measure"] != "gain of accuracy"]
        return ablation_intervals(
            frame.assign(panel=[_panel(*row) for row in frame[["measure", "on", "k"]].values]),
            title=self.title,
            subtitle="95 % intervals of the change, over sequences, texts or queries",
        )

    def figure_heads(self) -> Any:
        """The map of all heads, one panel per kind, those that were switched off framed."""
        from labkit.plots.icl.heads import ablated_heads

        return ablated_heads(
            self.heads_frame(),
            title=f"Heads of {self.model} on repeated random tokens, and those switched off",
        )

    def figure_loss(self, on: str = "repeated tokens") -> Any:
        """Loss by position with nothing off, with these heads off and with random heads off.

        Raises:
            InputError: If `on` is neither "repeated tokens" nor "text".
        """
        from labkit.plots.icl.heads import loss_by_position

        return loss_by_position(
            self.losses(on),
            title=f"Loss by position on {on}: {self.model}",
            subtitle="dotted: as many random heads of the same layers off",
        )


def _panel(measure: str, on: str, k: int) -> str:
    """The name of a measure in the figure."""
    if k:
        return f"{on}, {k} shown: {measure}"
    return f"{on}: late - early loss" if measure == "score" else f"{on}: loss"


def named(estimate: Estimate, name: str = "") -> dict[str, float]:
    """An estimate as columns: `NAME, NAME_low, NAME_high`; without a name `mean, low, high`."""
    ends = f"{name}_" if name else ""
    return {name or "mean": estimate.mean, f"{ends}low": estimate.low, f"{ends}high": estimate.high}
