"""Estimates with intervals that cover, tests, and seeded draws.

`average`, `share` and `ratio` return an `Estimate`, which knows whether it has an interval and
prints itself; what the intervals are made of, and how often they cover, stands in
`labkit.stats.intervals`. Random numbers come from `generator(seed, *what_they_are_for)`.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.stats.draws import generator, numpy_generator
    from labkit.stats.estimate import Estimate, p_text, smallest_p
    from labkit.stats.summaries import (
        CONFIDENCE,
        around,
        average,
        from_resamples,
        holm,
        jackknife,
        paired_difference,
        proportion,
        ratio,
        share,
    )

__getattr__, __dir__, __all__ = door(__name__, __file__)
