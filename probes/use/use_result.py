"""The effect of a change of a state on the next token, with its placebo."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from labkit.results.measured import Measured
from labkit.stats import Estimate


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The effect of one change on the next token. Intervals are over texts.

    Attributes:
        name: Which change.
        kl: KL of the changed from the clean distribution, nats.
        accuracy: How often the token that follows is the argmax; None where none follows.
        pull: Change of log P(goal's words) - log P(source's words), nats; None without words.
        norm: Size of the change, as a share of the norm of the state.
    """

    name: str
    kl: Estimate
    accuracy: Estimate | None
    pull: Estimate | None
    norm: Estimate


@dataclass(frozen=True, kw_only=True)
class UseResult(Measured):
    """The effect of a change along a probe's directions, with its placebo.

    Attributes:
        task: Name of the task.
        depth: Where the state was changed.
        change: What was done, in words.
        rank: Number of directions.
        scores: Accuracy of the probe of each round of the projection; empty for a move.
        accuracy: How often the unchanged model's argmax is the token that follows.
        effects: The change, and its placebo.
        seed: Seed of every draw.
    """

    task: str
    depth: int
    change: str
    rank: int
    scores: tuple[float, ...]
    accuracy: Estimate | None
    effects: tuple[Effect, ...]
    seed: int

    @property
    def title(self) -> str:
        """What was done, where, and its effect beside the placebo's."""
        shown = ", ".join(f"{effect.name} {effect.kl.mean:.3f}" for effect in self.effects)
        return f"{self._change} at depth {self.depth} of {self.model} ({self.task}): KL {shown}"

    def to_frame(self) -> pd.DataFrame:
        """One row per change and measure: `intervention, measure, mean, low, high, n`."""
        return pd.DataFrame(
            {"intervention": effect.name, "measure": measure, **estimate.to_dict()}
            for effect in self.effects
            for measure in ("kl", "accuracy", "pull", "norm")
            if (estimate := getattr(effect, measure)) is not None
        )

    def figure(self) -> Any:
        """Effects of the change and of its placebo."""
        from labkit.plots import removal_bars

        measures = {"kl": "KL (nats)", "pull": "pull to the goal (nats)"}
        return removal_bars(
            self.to_frame(),
            measures=measures,
            title=f"{self._change}: effect on the next token",
            subtitle=f"{self.task}, depth {self.depth} of {self.model}; 95 % over texts",
        )

    @property
    def _change(self) -> str:
        """The change, as the beginning of a sentence."""
        return self.change[:1].upper() + self.change[1:]
