"""What an edit is: requests, changes of weights, deltas, and how they are composed and undone.

`WeightDelta` is what every editor returns; `applied` applies it and restores the weights bit for
bit; `diff` finds one between two checkpoints, `undo` removes one of several.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.edits.applying import applied
    from editing.edits.change import Dense, LowRank
    from editing.edits.delta import WeightDelta
    from editing.edits.difference import diff
    from editing.edits.effect import in_effect
    from editing.edits.truncate import truncated
    from editing.edits.undoing import Undo, undo

__getattr__, __dir__, __all__ = door(__name__, __file__)
