"""The editors: each a frozen dataclass, `Method(...)(model, rewrites) -> WeightDelta`.

`closed_form` holds those that solve a least-squares problem (ROME, EMMET, MEMIT, PMET, AlphaEdit),
`tuning` those that descend a gradient; beside them knowledge-neuron editing and in-context
editing. `METHODS` names them all.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.methods.in_context import InContext, PromptEdit
    from editing.methods.neuron_editing import KnowledgeNeuronEditing
    from editing.methods.table import METHODS

__getattr__, __dir__, __all__ = door(__name__, __file__)
