"""What can be written into a model's weights: deltas, keys and values, methods, audit, export.

delta = ROME()(model, [rewrite])             # a WeightDelta; the model is untouched
with applied(model, delta): ...              # edited here, bit for bit restored after
audit(model, delta, case)                    # one edit, prompt by prompt
evaluate(model, ROME(), cases)               # a method over many cases; protocol=...
compare_methods(model, {...}, cases)         # several on the same cases, tested in pairs
sweep_layers(model, cases, range(8))         # which layer can be edited
export_hf(model, delta, "out/")              # a checkpoint; export_peft, export_gguf
diff(model, "out/")                          # two checkpoints as a delta
undo(total, delta)                           # one edit of several taken back
"""

from functools import partial

from editing.adapter import export_peft
from editing.alphaedit import AlphaEdit
from editing.audit import Audit, audit
from editing.compare_methods import compare_methods
from editing.delta import Dense, LowRank, WeightDelta, applied
from editing.diff import diff
from editing.effect import in_effect
from editing.emmet import EMMET
from editing.evaluate import Evaluation, evaluate
from editing.export import export_hf
from editing.fine_tuning import Ball, FineTuning
from editing.gguf_file import export_gguf
from editing.in_context import InContext, PromptEdit
from editing.known_cases import known_cases
from editing.lora import LoRA
from editing.memit import MEMIT
from editing.method_comparison import MethodComparison
from editing.neuron_editing import KnowledgeNeuronEditing
from editing.pmet import PMET
from editing.portability import implications, mirrored
from editing.portability_result import Portability, portability
from editing.presets import Preset, preset
from editing.public_tasks import PublicTasks, public_tasks
from editing.reopen import ExportCheck, check_export
from editing.restore import undo_checkpoint
from editing.rome import ROME
from editing.side_effects import SideEffects
from editing.side_effects_result import SideComparison
from editing.sweep import LayerSweep, sweep_layers
from editing.truncate import truncated
from editing.undo import Undo, undo

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
"""Editors by the name that the command line knows."""

__all__ = [
    "EMMET",
    "MEMIT",
    "METHODS",
    "PMET",
    "ROME",
    "AlphaEdit",
    "Audit",
    "Ball",
    "Dense",
    "Evaluation",
    "ExportCheck",
    "FineTuning",
    "InContext",
    "KnowledgeNeuronEditing",
    "LayerSweep",
    "LoRA",
    "LowRank",
    "MethodComparison",
    "Portability",
    "Preset",
    "PromptEdit",
    "PublicTasks",
    "SideComparison",
    "SideEffects",
    "Undo",
    "WeightDelta",
    "applied",
    "audit",
    "check_export",
    "compare_methods",
    "diff",
    "evaluate",
    "export_gguf",
    "export_hf",
    "export_peft",
    "implications",
    "in_effect",
    "known_cases",
    "mirrored",
    "portability",
    "preset",
    "public_tasks",
    "sweep_layers",
    "truncated",
    "undo",
    "undo_checkpoint",
]
