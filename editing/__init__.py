"""What can be written into a model's weights: deltas, keys and values, methods, audit, export.

delta = ROME()(model, [rewrite])             # a WeightDelta; the model is untouched
with applied(model, delta): ...              # edited here, bit for bit restored after
audit(model, delta, case)                    # one edit, prompt by prompt
evaluate(model, ROME(), cases)               # a method over many cases
sweep_layers(model, cases, range(8))         # which layer can be edited
export_hf(model, delta, "out/")              # a checkpoint for plain transformers
"""

from editing.audit import Audit, audit
from editing.delta import LowRank, WeightDelta, applied
from editing.effect import in_effect
from editing.evaluate import Evaluation, evaluate
from editing.export import export_hf
from editing.in_context import InContext, PromptEdit
from editing.rome import ROME
from editing.sweep import LayerSweep, sweep_layers

METHODS = {"rome": ROME}
"""Editors by the name that the command line knows."""

__all__ = [
    "METHODS",
    "ROME",
    "Audit",
    "Evaluation",
    "InContext",
    "LayerSweep",
    "LowRank",
    "PromptEdit",
    "WeightDelta",
    "applied",
    "audit",
    "evaluate",
    "export_hf",
    "in_effect",
    "sweep_layers",
]
