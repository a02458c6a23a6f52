"""Claims, each a prediction about a difference, and their verdicts, tested together.

A claim says before it is measured what the difference between two conditions will be:

    more      above 0
    alike     within the margin, on both sides
    no more   below the margin

A claim that there is no difference cannot be supported by a difference that is merely not
significant. It is tested the other way round: the margin, the largest difference that would
still count as none, is stated beforehand, and the data have to exclude what lies beyond.

All claims of a table are corrected for their number (Holm), and a claim with fewer than
`FEWEST` units is left open whatever its interval says: with five, all 32 patterns of signs
count the same, and no sign-flip test can fall below .05.

References:
    Schuirmann 1987, A comparison of the two one-sided tests procedure (equivalence).
    Agresti and Caffo 2000 (two pseudo-observations, for values that hardly vary).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from labkit.errors import InputError
from labkit.results.result import Result
from labkit.stats import average, holm, paired_difference

Expects = Literal["more", "alike", "no more"]
FEWEST = 6
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Claim:
    """One prediction, and the differences that decide it.

    Attributes:
        claim: Its short name.
        what: The difference, in words: "own labels - random".
        values: The difference of each independent unit, in -1..1.
        expects: What was predicted of their mean.
        margin: Of "alike" and "no more": the largest difference that counts as none.
        unit: What a unit is.
    """

    claim: str
    what: str
    values: Sequence[float] | np.ndarray
    expects: Expects = "more"
    margin: float | None = None
    unit: str = "query"

    def __post_init__(self) -> None:
        """Refuse a claim that cannot be tested."""
        if self.expects not in get_args(Expects):
            raise InputError(f"{self.claim} expects {self.expects!r}: one of more, alike, no more")
        if (self.margin is None) != (self.expects == "more"):
            raise InputError(
                f"{self.claim} expects {self.expects!r}: a margin is stated for 'alike' and "
                "'no more', and for them alone"
            )
        if self.margin is not None and not 0 < self.margin < 1:
            raise InputError(f"{self.claim}: a margin of {self.margin} is not between 0 and 1")

    def tested(self, seed: int) -> tuple[str, float]:
        """The verdict that its values lean to, and the two-sided p of that lean."""
        values = np.asarray(self.values, dtype=float)
        if self.margin is None:
            _, p = paired_difference(values, np.zeros_like(values), seed=seed)
            return ("supports" if values.mean() > 0 else "contradicts"), p
        below, beyond = _one_sided(values, self.margin)
        if self.expects == "alike":
            above, short = _one_sided(-values, self.margin)
            below, beyond = max(below, above), min(1.0, 2 * min(beyond, short))
        if below <= beyond:
            return "supports", min(1.0, 2 * below)
        return "contradicts", min(1.0, 2 * beyond)


def _one_sided(values: np.ndarray, margin: float) -> tuple[float, float]:
    """The p of a mean that is not below the margin, and of one that is not above it.

    Student's t of the values and of one pseudo-value at either end of their range: values that
    are all the same are no proof that the next one will be.
    """
    padded = np.append(values, (-1.0, 1.0))
    error = padded.std(ddof=1) / np.sqrt(len(padded))
    t = float((values.mean() - margin) / error)
    return (
        float(scipy_stats.t.cdf(t, len(values) - 1)),
        float(scipy_stats.t.sf(t, len(values) - 1)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts(Result):
    """The verdicts on some claims.

    Attributes:
        model: What was measured.
        table: One row per claim: `claim, what, expects` (with its margin), `mean, low, high, n`
            (of the difference), `unit`, `p`, `p_holm` (corrected for the number of claims) and
            `verdict`: supports, contradicts, leaves open, or too few.
    """

    model: str
    table: pd.DataFrame

    @property
    def title(self) -> str:
        """How many claims fell which way."""
        counts = self.table["verdict"].value_counts()
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        return f"{len(self.table)} claims on {self.model}: {said}"

    def to_frame(self) -> pd.DataFrame:
        """One row per claim."""
        return self.table.copy()

    def of(self, what: str) -> str:
        """The verdict on one difference, by its words.

        Raises:
            InputError: If there is no such claim.
        """
        rows = self.table[self.table["what"] == what]
        if rows.empty:
            raise InputError(f"no claim about {what!r}; there are {', '.join(self.table['what'])}")
        return str(rows["verdict"].iloc[0])

    def figure(self) -> Any:
        """Every difference with its interval; filled where it decides."""
        from labkit.plots.claims import claim_intervals

        return claim_intervals(self.table, title=self.title)


def verdicts(claims: Sequence[Claim], *, model: str, seed: int = 0) -> Verdicts:
    """Test claims together.

    Args:
        claims: The claims: all that were made, not those that came out well.
        model: What was measured, for the title.
        seed: Seed of intervals and permutations.

    Raises:
        InputError: If there is no claim, or one has no values.
    """
    if not claims:
        raise InputError("no claims to test")
    rows = []
    for claim in claims:
        values = np.asarray(claim.values, dtype=float)
        estimate = average(values, within=(-1.0, 1.0))
        enough = len(values) >= FEWEST
        lean, p = claim.tested(seed) if enough else ("too few", 1.0)
        expects = claim.expects + ("" if claim.margin is None else f" ({claim.margin:g})")
        about = {"claim": claim.claim, "what": claim.what, "expects": expects}
        rows.append(about | estimate.to_dict() | {"unit": claim.unit, "p": p, "verdict": lean})
    table = pd.DataFrame(rows)
    table.insert(len(table.columns) - 1, "p_holm", _corrected(table))
    decided = (table["p_holm"] < LEVEL) | (table["verdict"] == "too few")
    table["verdict"] = table["verdict"].where(decided, "leaves open")
    return Verdicts(model=model, table=table)


def _corrected(table: pd.DataFrame) -> list[float]:
    """p-values corrected for the number of claims that could be tested at all."""
    tested = table["verdict"] != "too few"
    p = pd.Series(1.0, index=table.index)
    p[tested] = holm(table.loc[tested, "p"].tolist())
    return p.tolist()
