"""How far methods agree on where a fact is located.

Every method is reduced to a *profile*: one score per layer for one fact. Two methods agree on
a fact as far as their profiles order its layers alike (Spearman's rank correlation, so that
methods with different units can be set side by side).

Two methods can agree because both like low layers, whatever the fact. So each correlation
comes with its control: one method's profile of a fact against the other's profile of the
*next* fact. Only what exceeds the control is about facts; the rest is about layers.

The
peak of a causal trace does not predict where an edit succeeds (Hase et al. 2023). A sweep of edit
success over layers is therefore passed in and compared with the profiles; this package does not
depend on editing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import spearmanr

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.results.result import RunDirectory
from labkit.stats import Estimate

Locator = Callable[[LabModel, Fact], Any]
"""A method for one fact whose result has a `profile`, an array `[layer]`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement(Measured):
    """Profiles of some methods over the same facts.

    Attributes:
        methods: Names of the methods.
        prompts: Prompts of the facts.
        profiles: One score per layer, in each method's own unit; NaN where a method has none.
        seconds: Seconds that each method took for each fact; NaN where scores were passed in.
        seed: Seed of the intervals.
    """

    methods: tuple[str, ...]
    prompts: tuple[str, ...]
    profiles: Float[np.ndarray, "method fact layer"]
    seconds: Float[np.ndarray, "method fact"]
    seed: int

    @property
    def title(self) -> str:
        """What was compared, on what."""
        return f"{len(self.methods)} methods on {len(self.prompts)} facts, {self.model}"

    def correlation(self, first: str, second: str, *, shift: int = 0) -> Estimate | None:
        """Rank correlation of two methods' profiles, mean over facts with its interval.

        Args:
            first: A method.
            second: Another.
            shift: Offset of the fact whose profile is taken for the second method; 1 is the
                control.

        Returns:
            In -1..1, `n` the facts on which it is defined (a flat profile has no order);
            None if there is none.

        Raises:
            InputError: If there is no such method.
        """
        one, other = self._of(first), np.roll(self._of(second), -shift, axis=0)
        found = [_rank_correlation(a, b) for a, b in zip(one, other, strict=True)]
        defined = [value for value in found if np.isfinite(value)]
        return stats.average(defined, within=(-1.0, 1.0)) if defined else None

    def peaks(self, method: str) -> np.ndarray:
        """Layer of the highest score, by fact; a single one for a sweep that was passed in."""
        profile = self._own(method)
        return np.nanargmax(profile[np.isfinite(profile).any(axis=1)], axis=1)

    def to_frame(self) -> pd.DataFrame:
        """One row per ordered pair: first, second, facts ("same", "next"), mean, low, high, n."""
        rows = []
        for first in self.methods:
            for second in self.methods:
                for shift, facts in enumerate(("same", "next")):
                    found = self.correlation(first, second, shift=shift)
                    if found is not None and first != second:
                        row = {"first": first, "second": second, "facts": facts}
                        rows.append(row | found.to_dict())
        return pd.DataFrame(rows)

    def methods_frame(self) -> pd.DataFrame:
        """One row per method: its peak layer (mean, interval, quartiles), and its cost."""
        rows = []
        for index, method in enumerate(self.methods):
            peaks = self.peaks(method)
            mean = stats.average(peaks, within=(0.0, self.profiles.shape[2] - 1.0))
            row = {"method": method, "peak layer": mean.mean, "low": mean.low, "high": mean.high}
            row |= {
                "lower quartile": float(np.percentile(peaks, 25)),
                "upper quartile": float(np.percentile(peaks, 75)),
                "facts": mean.n,
                "median seconds per fact": float(np.median(self.seconds[index])),
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def profiles_frame(self) -> pd.DataFrame:
        """One row per method and layer: mean, low, high over facts, each scaled to range 1."""
        rows = []
        for method in self.methods:
            scaled = _scaled(self._own(method))
            for layer in np.flatnonzero(np.isfinite(scaled).all(axis=0)):
                found = stats.average(scaled[:, layer], within=(0.0, 1.0))
                rows.append({"method": method, "layer": int(layer)} | found.to_dict())
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """The agreement matrix: same fact above the diagonal, the next fact's below it."""
        from labkit.plots import agreement_matrix

        return agreement_matrix(self.to_frame(), methods=self.methods, title=self.title)

    def figure_profiles(self) -> Any:
        """Profiles of the methods by layer, with bands over facts."""
        from labkit.plots import profile_curves

        return profile_curves(self.profiles_frame(), title=self.title)

    def _own(self, method: str) -> np.ndarray:
        """A method's profiles `[fact layer]`; one row for a sweep, which holds for all facts."""
        profiles = self._of(method)
        swept = np.isnan(self.seconds[self.methods.index(method)]).all()
        return profiles[:1] if swept else profiles

    def _of(self, method: str) -> np.ndarray:
        if method not in self.methods:
            raise InputError(f"no method {method!r}; there are {', '.join(self.methods)}")
        return self.profiles[self.methods.index(method)]


@checked
def compare(
    model: LabModel,
    facts: Sequence[Fact],
    locators: Mapping[str, Locator],
    *,
    sweeps: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    run: RunDirectory | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """Run several methods over the same facts.

        compare(model, facts, {"trace": CausalTrace(), "gradient": AttributionPatching()}).figure()

    Args:
        model: The model.
        facts: At least two, so that there is a control.
        locators: By name, a method whose result has a `profile`.
        sweeps: By name, one score per layer that holds for all facts and was measured
            elsewhere, such as the success of edits there; NaN for layers left out.
        seed: Seed of the intervals.
        run: A run directory: finished facts are kept there, and skipped when resuming.
        progress: Called before each fact.

    Raises:
        InputError: If there are fewer than two facts or methods, two go by one name, or a
            sweep has not one score per layer.

    Shows:
        How far methods order the layers of one fact alike, beyond what they say of any fact.

    Does not show:
        That a layer where methods agree is the right place to write: a sweep of edit success is
        therefore passed in and compared.

    References:
        Hase et al. 2023, Does Localization Inform Editing?, section 4: tracing effects
        against edit success by layer.

    Differs from the paper: it correlates the two over facts at one layer; here layers are
    ranked within a fact, and a sweep has one score per layer for all facts.
    """
    sweeps = {} if sweeps is None else sweeps
    _refuse(model, facts, locators, sweeps)
    done = {} if run is None else {record["case_id"]: record for record in run.cases()}
    records = []
    for number, fact in enumerate(facts):
        listener(progress)(
            f"fact {number + 1} of {len(facts)}: {fact.subject}", number / len(facts)
        )
        record = done.get(f"{number}: {fact.prompt}")
        if record is None:
            record = {"case_id": f"{number}: {fact.prompt}", "profiles": {}, "seconds": {}}
            for name, locator in locators.items():
                start = time.perf_counter()
                profile = np.asarray(locator(model, fact).profile, dtype=float)
                record["seconds"][name] = time.perf_counter() - start
                record["profiles"][name] = profile.tolist()
            if run is not None:
                run.append_case(record)
        records.append(record)
    measured = [[record["profiles"][name] for record in records] for name in locators]
    handed_in = [[list(sweep)] * len(facts) for sweep in sweeps.values()]
    seconds = [[record["seconds"][name] for record in records] for name in locators]
    return Agreement(
        methods=(*locators, *sweeps),
        prompts=tuple(fact.prompt for fact in facts),
        profiles=np.array(measured + handed_in, dtype=float),
        seconds=np.array(seconds + [[np.nan] * len(facts) for _ in sweeps]),
        **measured_on(model),
        seed=seed,
    )


def _refuse(
    model: LabModel,
    facts: Sequence[Fact],
    locators: Mapping[str, Locator],
    sweeps: Mapping[str, Sequence[float]],
) -> None:
    """Named errors before any work; see `compare`."""
    if len(facts) < 2:
        raise InputError(f"{len(facts)} fact(s): agreement and its control need at least two")
    if len(locators) + len(sweeps) < 2 or not locators:
        raise InputError("agreement needs at least two methods, one of them run here")
    if both := set(locators) & set(sweeps):
        raise InputError(f"two methods have the name {sorted(both)[0]!r}")
    for name, sweep in sweeps.items():
        if len(sweep) != model.n_layers:
            raise InputError(
                f"the sweep {name!r} has {len(sweep)} scores, {model.name} has {model.n_layers} "
                "layers: hand in NaN for layers left out"
            )


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rho over the layers where both have a score; NaN if one of them is flat."""
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < 3 or np.ptp(first[both]) == 0 or np.ptp(second[both]) == 0:
        return np.nan
    return float(spearmanr(first[both], second[both]).statistic)


def _scaled(profiles: Float[np.ndarray, "fact layer"]) -> Float[np.ndarray, "fact layer"]:
    """Each fact's profile from 0 at its lowest layer to 1 at its highest."""
    low = np.nanmin(profiles, axis=1, keepdims=True)
    span = np.nanmax(profiles, axis=1, keepdims=True) - low
    return (profiles - low) / np.where(span == 0, 1, span)
