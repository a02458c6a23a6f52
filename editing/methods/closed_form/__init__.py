"""ROME, EMMET, MEMIT, BLUE, PMET and AlphaEdit: keys, values, and one least-squares problem.

`base` has the algorithm that they share; each method's file says what is special about it.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.methods.closed_form.alphaedit import AlphaEdit
    from editing.methods.closed_form.emmet import EMMET
    from editing.methods.closed_form.memit import MEMIT
    from editing.methods.closed_form.pmet import PMET
    from editing.methods.closed_form.rome import ROME

__getattr__, __dir__, __all__ = door(__name__, __file__)
