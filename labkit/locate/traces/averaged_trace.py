"""Results of the causal traces of many facts, by role of token and layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from labkit import stats
from labkit.errors import InputError
from labkit.locate.traces.alignment import ROLES
from labkit.locate.traces.trace_result import EFFECTS, NAMES, ratio_of_means
from labkit.results.measured import Measured
from labkit.stats import Estimate
from labkit.stats.intervals import over_units


@dataclass(frozen=True, kw_only=True)
class TracedFact:
    """One of the facts in an average.

    Attributes:
        prompt: The prompt.
        subject: Its subject.
        answer: The token whose probability was traced.
        clean: P(answer) without noise.
        corrupted: P(answer) under noise, mean over noise draws.
    """

    prompt: str
    subject: str
    answer: str
    clean: float
    corrupted: float


@dataclass(frozen=True, kw_only=True)
class EarlySite:
    """Where restoring tokens of one role recovers most, and how far facts agree on it.

    Attributes:
        role: The role.
        layer: The layer at which the mean indirect effect is largest.
        effect: The indirect effect there. The layer was chosen on these facts, so it is a
            little too large; choose on some facts and read off others to be exact.
        share: The share of the total effect that is recovered there.
        peak: The layers at which the single facts peak, their mean.
        quartiles: First quartile, median and third quartile of those layers.
    """

    role: str
    layer: int
    effect: Estimate
    share: Estimate
    peak: Estimate
    quartiles: tuple[float, float, float]

    def __str__(self) -> str:
        """One line for people."""
        low, median, high = self.quartiles
        return (
            f"{self.role}: the mean effect peaks at layer {self.layer} with {self.effect}; single "
            f"facts peak at layer {median:g} (quartiles {low:g} to {high:g}), mean {self.peak}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragedTrace(Measured):
    """The traces of many facts, aligned on `labkit.locate.ROLES`.

    Attributes:
        kind: What was restored.
        severed: Whose outputs at the restored token were held at their corrupted values.
        facts: The facts, in the order given.
        restored: P(answer) with one state restored, mean over noise draws and over the
            tokens of the role; NaN where a fact has no token in the role, or none was asked
            for.
        config: The fields of the `CausalTrace` of every fact.
    """

    kind: str
    severed: str | None
    facts: tuple[TracedFact, ...]
    restored: Float[np.ndarray, "fact role layer"]
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """What was traced, over how many facts, and the total effect of the noise."""
        held = f", {NAMES[self.severed]}s held" if self.severed else ""
        return (
            f"Restoring one {NAMES[self.kind]}{held}, {len(self.facts)} facts on {self.model}: "
            f"total effect {self.total_effect}"
        )

    @property
    def about(self) -> str:
        """What was restored, and for how many facts."""
        return f"restoring one {NAMES[self.kind]}, {len(self.facts)} facts on {self.model}"

    @property
    def asked(self) -> tuple[tuple[str, str, str], ...]:
        """Prompt, subject and answer of every fact."""
        return tuple((fact.prompt, fact.subject, fact.answer) for fact in self.facts)

    @property
    def clean(self) -> Float[np.ndarray, " fact"]:
        """P(answer) without noise, by fact."""
        return np.array([fact.clean for fact in self.facts])

    @property
    def corrupted(self) -> Float[np.ndarray, " fact"]:
        """P(answer) under noise, by fact."""
        return np.array([fact.corrupted for fact in self.facts])

    @property
    def total_effect(self) -> Estimate:
        """`P - P*`, its mean over facts with its interval."""
        return stats.average(self.clean - self.corrupted, within=EFFECTS)

    @property
    def n_by_role(self) -> dict[str, int]:
        """How many facts have a token in each role, and were traced there."""
        there = ~np.isnan(self.restored[:, :, 0])
        return dict(zip(ROLES, there.sum(axis=0).tolist(), strict=True))

    def effects_by_role(self) -> Float[np.ndarray, "fact role layer"]:
        """Indirect effects `P*[state] - P*`, one curve per fact and role; NaN as in `restored`."""
        return self.restored - self.corrupted[:, None, None]

    def to_frame(self) -> pd.DataFrame:
        """One row per role and layer, for the roles that some fact has.

        Columns `role, layer, n` (facts); `mean, low, high` of the indirect effect, 95 %
        interval over facts; `q25, median, q75`, the quartiles of the facts' own
        effects; `restored, restored_low, restored_high`, the same for P(answer).
        """
        frames = []
        for index, role in enumerate(ROLES):
            there = self._there(role)
            if not there.any():
                continue
            restored = self.restored[there, index]
            effects = restored - self.corrupted[there, None]
            numbers = zip(
                ("mean", "low", "high", "q25", "median", "q75"),
                (
                    *over_units(effects, within=EFFECTS)[:3],
                    *np.quantile(effects, (0.25, 0.5, 0.75), axis=0),
                ),
                strict=True,
            )
            probabilities = zip(
                ("restored", "restored_low", "restored_high"),
                over_units(restored, within=(0.0, 1.0))[:3],
                strict=True,
            )
            names = {"role": role, "layer": range(restored.shape[1]), "n": int(there.sum())}
            frames.append(pd.DataFrame({**names, **dict(numbers), **dict(probabilities)}))
        return pd.concat(frames, ignore_index=True)

    def share_recovered(self, role: str, layer: int) -> Estimate:
        """Mean indirect effect over mean total effect, over the facts that have the role.

        Raises:
            InputError: If no fact has the role, or the noise destroys nothing.
        """
        there = self._require(role)
        effects = self.effects_by_role()[there, ROLES.index(role), layer]
        return ratio_of_means(effects, (self.clean - self.corrupted)[there])

    def shares(self) -> pd.DataFrame:
        """`share_recovered` of every role and layer: role, layer, share, low, high, n."""
        rows = [
            (role, layer, *self.share_recovered(role, layer).to_dict().values())
            for role, count in self.n_by_role.items()
            for layer in range(self.restored.shape[2])
            if count
        ]
        return pd.DataFrame(rows, columns=["role", "layer", "share", "low", "high", "n"])

    def early_site(self, role: str = "last subject token") -> EarlySite:
        """Where restoring tokens of a role recovers most.

        Only facts that the noise harms (total effect above 0) have a peak of their own. At
        the last token the peak is late by construction: there the answer is read.

        Raises:
            InputError: If no fact has the role, or the noise harms none.
        """
        there = self._require(role) & (self.clean > self.corrupted)
        if not there.any():
            raise InputError("the noise lowers P(answer) of no fact, so there is no peak")
        effects = self.effects_by_role()[:, ROLES.index(role)]
        layer = int(effects[self._there(role)].mean(axis=0).argmax())
        peaks = effects[there].argmax(axis=1)
        low, median, high = np.quantile(peaks, (0.25, 0.5, 0.75)).tolist()
        return EarlySite(
            role=role,
            layer=layer,
            effect=stats.average(effects[self._there(role), layer], within=EFFECTS),
            share=self.share_recovered(role, layer),
            peak=stats.average(peaks, within=(0.0, effects.shape[1] - 1.0)),
            quartiles=(low, median, high),
        )

    def sites(self) -> pd.DataFrame:
        """`early_site` of every role that some fact has, one row per role."""
        rows = []
        for role in (role for role, count in self.n_by_role.items() if count):
            site = self.early_site(role)
            low, median, high = site.quartiles
            rows.append(
                {
                    "role": role,
                    "n": self.n_by_role[role],
                    "layer": site.layer,
                    "effect": site.effect.mean,
                    "low": site.effect.low,
                    "high": site.effect.high,
                    "peak": site.peak.mean,
                    "peak_low": site.peak.low,
                    "peak_high": site.peak.high,
                    "q25": low,
                    "median": median,
                    "q75": high,
                }
            )
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """The mean indirect effect by layer, one panel per role, with bands and quartiles."""
        from labkit.plots import role_curves

        return role_curves(self.to_frame(), title=self.title)

    def heatmap(self) -> Any:
        """The mean indirect effect, roles down and layers across."""
        from labkit.plots import role_heatmap

        return role_heatmap(self.to_frame(), title=self.title)

    def _there(self, role: str) -> Bool[np.ndarray, " fact"]:
        """The facts that have a token in a role."""
        return ~np.isnan(self.restored[:, ROLES.index(role), 0])

    def _require(self, role: str) -> Bool[np.ndarray, " fact"]:
        """The same, if there is one."""
        if role not in ROLES or not self._there(role).any():
            raise InputError(f"no fact was traced at a {role!r}; there are {self.n_by_role}")
        return self._there(role)
