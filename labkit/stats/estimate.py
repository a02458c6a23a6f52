"""A number with its interval and the number of units behind it; how it and its test are shown."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_DIGITS = 6
"""Decimals up to which an interval is shown that fewer would close."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean with its interval, if it has one.

    A single unit, units that are all equal, and exact numbers have no interval: both ends
    are NaN, so that no comparison with them holds, plots draw no bar and tables leave the
    cell empty. They print as `1.790 (n = 1)`.

    Attributes:
        mean: The point estimate, in the unit of what was measured.
        low: Lower end of the 95 % interval; NaN if there is none.
        high: Upper end of the interval; NaN if there is none.
        n: Number of independent units (facts, noise draws, tokens...) behind it.
    """

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def exact(cls, value: float, n: int = 1) -> "Estimate":
        """A number without an interval: of a single unit, of equal units, or known exactly."""
        return cls(float(value), math.nan, math.nan, n)

    @property
    def has_interval(self) -> bool:
        """Whether anything is known of how far off the mean may be."""
        return not math.isnan(self.low)

    def __eq__(self, other: object) -> bool:
        """Same numbers; no interval equals no interval."""
        return isinstance(other, Estimate) and self._key == other._key

    def __hash__(self) -> int:
        """By the four numbers."""
        return hash(self._key)

    @property
    def _key(self) -> tuple[float | None, ...]:
        numbers = (self.mean, self.low, self.high, self.n)
        return tuple(None if math.isnan(number) else number for number in numbers)

    def __format__(self, spec: str) -> str:
        """Mean and interval in one number format: `f"{estimate:+.1%}"` is `+3.0% [+1.2%, +4.8%]`.

        Decimals are added where the two ends would look the same. Without a format as `str`.
        """
        return interval_text(self.mean, self.low, self.high, self.n, spec) if spec else str(self)

    def __str__(self) -> str:
        """Three decimals: `0.712 [0.655, 0.764] (n = 30)`, or `1.790 (n = 1)`."""
        text = f"{self:.3f}"
        return f"{text} (n = {self.n})" if self.has_interval else text

    def to_dict(self) -> dict[str, float | int]:
        """The four fields; ends that there are not are NaN (as JSON the string "NaN")."""
        # One NaN for all, so that equal dictionaries are equal.
        low, high = (math.nan if math.isnan(end) else end for end in (self.low, self.high))
        return {"mean": self.mean, "low": low, "high": high, "n": self.n}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Estimate":
        """Inverse of `to_dict`, also after JSON."""
        mean, low, high = (float(record[name]) for name in ("mean", "low", "high"))
        return cls(mean, low, high, int(record["n"]))


def interval_text(mean: float, low: float, high: float, n: int, spec: str = ".3f") -> str:
    """A mean and its interval for people; see `Estimate.__format__`.

    Args:
        mean: The point estimate.
        low: Lower end of the interval; NaN if there is none.
        high: Upper end of the interval; NaN if there is none.
        n: Number of units, which is told if there is no interval.
        spec: How a number is shown, such as `.3f` or `+.1%`.
    """
    if math.isnan(low) or math.isnan(high):
        return f"{mean:{spec}} (n = {n})" if n == 1 else f"{mean:{spec}} (n = {n}, no interval)"
    digits = re.fullmatch(r"(.*)\.(\d+)([f%])", spec)
    if digits and low < high:  # an interval that rounding closes would look like certainty
        sign, shown, kind = digits[1], int(digits[2]), digits[3]
        more = 2 if kind == "%" else 0
        while round(low, shown + more) == round(high, shown + more) and shown < MOST_DIGITS:
            shown += 1
        closed = round(low, shown + more) == round(high, shown + more)
        spec = f"{sign}.1e" if closed else f"{sign}.{shown}{kind}"
    return f"{mean:{spec}} [{low:{spec}}, {high:{spec}}]"


def smallest_p(n: int) -> float:
    """The least p-value that a two-sided sign-flip test of `n` pairs can give: 2 / 2^n.

    Above .05 for n <= 5: so few pairs cannot show a difference by this test, whatever it is.
    """
    return min(1.0, 2.0 ** (1 - n))


def p_text(p: float, n: int) -> str:
    """A p-value of a sign-flip test for people, with the least possible one if that is above .05.

    Args:
        p: The p-value, corrected or not.
        n: Number of pairs.
    """
    least = smallest_p(n)
    if least <= 0.05:
        return f"{p:.3g}"
    return f"{p:.3g} ({n} pair{'s' if n > 1 else ''} cannot give less than {least:.3g})"
