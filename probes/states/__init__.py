"""States to probe: which tokens are a word's, and every depth read in one pass."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.states.alignment import Span, encoded
    from probes.states.features import (
        Features,
        extract,
        features_of,
        features_of_tasks,
        readable,
    )
    from probes.states.selection import States

__getattr__, __dir__, __all__ = door(__name__, __file__)
