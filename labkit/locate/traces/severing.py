"""How much of a restored state's effect passes through later FFN, and how much through attention.

A trace says that a state carries a fact. It does not say what the model does with the state
next. With the FFN severed, the FFN outputs at the restored token stay what they were in the
corrupted run, in all later layers; then the state acts only through attention at its token, and
attention of later tokens to it. With attention severed, the attention outputs *at that token* stay;
later tokens still attend to it. The gap

    (P*[state] - P*[state, severed])

is the part of the effect that needs the severed path. Meng et al. read off its size at low
layers that FFN of the middle layers recall the fact: without them, states below lose their
effect, states above do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.locate.traces.alignment import ROLES
from labkit.locate.traces.averaged_trace import AveragedTrace
from labkit.locate.traces.trace_result import EFFECTS, TraceResult
from labkit.results.measured import Measured, measured_on
from labkit.stats.intervals import over_units

PATHS = ("plain", "ffn", "attn")
"""A trace with nothing severed, with the FFN severed, with attention severed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeveredComparison(Measured):
    """Plain and severed traces side by side, on the roles of tokens.

    Attributes:
        about: What was traced, for the title.
        unit: What the intervals are over: "noise draw" or "fact".
        paths: Which of `PATHS` there are, the plain trace first.
        effects: Indirect effects `P*[state] - P*`; NaN for roles that are absent or were not
            asked for.
    """

    about: str
    unit: str
    paths: tuple[str, ...]
    effects: Float[np.ndarray, "path unit role layer"]

    @property
    def title(self) -> str:
        """What was traced."""
        return f"Severed paths: {self.about}"

    def to_frame(self) -> pd.DataFrame:
        """One row per path, role and layer: the effect and the gap to the plain trace.

        Columns `path, role, layer, n, mean, low, high, gap, gap_low, gap_high`; the gap is
        paired over units, 95 % intervals.
        """
        frames = []
        for path, effects in zip(self.paths, self.effects, strict=True):
            for role, of_role, plain in zip(
                ROLES, np.moveaxis(effects, 1, 0), np.moveaxis(self.effects[0], 1, 0), strict=True
            ):
                there = ~np.isnan(of_role[:, 0] + plain[:, 0])
                if not there.any():
                    continue
                mean, low, high = self._intervals(of_role[there])
                gap, gap_low, gap_high = self._intervals((plain - of_role)[there])
                numbers = {
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "gap": gap,
                    "gap_low": gap_low,
                    "gap_high": gap_high,
                }
                names = {"path": path, "role": role, "layer": range(len(mean)), "n": there.sum()}
                frames.append(pd.DataFrame(names | numbers))
        return pd.concat(frames, ignore_index=True)

    def figure(self, role: str = "last subject token") -> Any:
        """Effects by layer at one role, one curve per path, with bands."""
        from labkit.plots import severed_curves

        frame = self.to_frame()
        if role not in set(frame["role"]):
            raise InputError(f"no token in the role {role!r}; there are {set(frame['role'])}")
        return severed_curves(frame, role=role, unit=self.unit, title=self.title)

    def _intervals(self, values: Float[np.ndarray, "unit layer"]) -> tuple[Any, Any, Any]:
        """Mean, low and high over units."""
        return over_units(values, within=EFFECTS)[:3]


def compare_severed(
    plain: TraceResult | AveragedTrace, *severed: TraceResult | AveragedTrace
) -> SeveredComparison:
    """A plain trace beside severed ones of the same fact, or of the same facts.

        plain = CausalTrace()(model, fact)
        compare_severed(plain, CausalTrace(severed="ffn")(model, fact)).figure()

    Args:
        plain: From `CausalTrace(...)`, or from `average_traces` with it.
        severed: From the same with `severed="ffn"` and/or `severed="attn"`.

    Raises:
        InputError: If one of them is of other facts, another model or other settings, or the
            first is itself severed or another is not.

    Shows:
        How much of what a restored state recovers needs the FFNs (or attention) above it.

    Does not show:
        That the gap is the FFN's own contribution: holding outputs at values from another run
        also takes away what they would have added in any case.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 2.2 and
        figure 3.

    Differs from the paper: intervals are over units paired between the traces.
    """
    traces: Sequence[TraceResult | AveragedTrace] = (plain, *severed)
    if plain.severed is not None or not severed or any(trace.severed is None for trace in severed):
        raise InputError("a comparison takes a plain trace first and then severed ones")
    for trace in severed:
        if _settings(trace) != _settings(plain):
            raise InputError(
                "these traces are not of the same facts, model and settings, so their "
                "differences do not measure the severed path"
            )
    single = isinstance(plain, TraceResult)
    return SeveredComparison(
        about=plain.about,
        unit="noise draw" if single else "fact",
        paths=("plain", *(str(trace.severed) for trace in severed)),
        effects=np.stack([trace.effects_by_role() for trace in traces]),
        **measured_on(plain),
    )


def _settings(trace: TraceResult | AveragedTrace) -> tuple:
    """What two traces must share to be compared; the roles that only one has are left out."""
    free = ("severed", "memory", "roles")
    config = {name: value for name, value in trace.config.items() if name not in free}
    return type(trace), trace.asked, trace.fingerprint, config
