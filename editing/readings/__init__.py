"""What can be measured on an edited model, one reading per file.

Success, argmax accuracy and free generation of the rewrite and of what surrounds it; side effects
on text, grammar, known facts and writing; what follows from the new fact; public tasks.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.readings.collapse import CollapseCurve
    from editing.readings.consequences import implications, mirrored
    from editing.readings.lm_eval_tasks import PublicTasks, public_tasks
    from editing.readings.portability_result import Portability, portability
    from editing.readings.published import (
        fair_tests,
        multihop_implications,
        ripple_implications,
    )
    from editing.readings.side_effects import SideEffects
    from editing.readings.side_effects_result import SideComparison

__getattr__, __dir__, __all__ = door(__name__, __file__)
