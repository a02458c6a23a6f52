"""Editors by the name that the command line knows."""

from functools import partial

from editing.methods.closed_form.alphaedit import AlphaEdit
from editing.methods.closed_form.emmet import EMMET
from editing.methods.closed_form.memit import MEMIT
from editing.methods.closed_form.pmet import PMET
from editing.methods.closed_form.rome import ROME
from editing.methods.in_context import InContext
from editing.methods.neuron_editing import KnowledgeNeuronEditing
from editing.methods.tuning.fine_tuning import Ball, FineTuning
from editing.methods.tuning.lora import LoRA

METHODS = {
    "rome": ROME,
    "emmet": EMMET,
    "memit": MEMIT,
    "blue": partial(MEMIT, spread="boundary"),
    "pmet": PMET,
    "alphaedit": AlphaEdit,
    "kn": KnowledgeNeuronEditing,
    "ft": FineTuning,
    "ft_constrained": partial(FineTuning, ball=Ball()),
    "lora": LoRA,
    "in_context": InContext,
}
"""Name to what makes the editor, with its defaults; all take fields by keyword."""
