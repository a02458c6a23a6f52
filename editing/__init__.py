"""What can be written into a model's weights: deltas, keys and values, methods, audit, export.

rewrite = labkit.Rewrite.from_prompt("The Louvre is in", "Louvre", "Rome", "Paris")
case = labkit.case_of(model, rewrite, neighbours=[...])   # a rewrite and what judges it
delta = ROME()(model, [rewrite])             # a WeightDelta; the model is untouched
with applied(model, delta): ...              # edited here, bit for bit restored after
audit(model, delta, case)                    # one edit, prompt by prompt
evaluate(model, ROME(), cases)               # many cases; then EvaluationOptions(protocol=...)
compare_methods(model, {"at 3": ROME(layer=3), ...}, [case])   # several, tested in pairs
sweep_layers(model, cases, range(8))         # which layer can be edited
export_hf(model, delta, "out/")              # a checkpoint; export_peft, export_gguf
diff(model, "out/")                          # two checkpoints as a delta
undo(total, delta)                           # undo one of several edits
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.edits.applying import applied
    from editing.edits.delta import Dense, LowRank, WeightDelta
    from editing.edits.difference import diff
    from editing.edits.effect import in_effect
    from editing.edits.truncate import truncated
    from editing.edits.undoing import Undo, undo
    from editing.evaluation.many_cases import Evaluation, evaluate
    from editing.evaluation.method_comparison import MethodComparison
    from editing.evaluation.one_edit import Audit, audit
    from editing.evaluation.options import EvaluationOptions
    from editing.evaluation.several_methods import compare_methods
    from editing.evaluation.side_by_side import audit_table
    from editing.export.adapter import export_peft
    from editing.export.checkpoint import export_hf
    from editing.export.gguf_file import export_gguf
    from editing.export.options import ExportOptions
    from editing.export.reopening import ExportCheck, check_export
    from editing.export.restore import undo_checkpoint
    from editing.layers.sweep import SweepOptions, sweep_layers
    from editing.layers.sweep_result import LayerSweep
    from editing.layers.tuning_cases import known_cases
    from editing.methods.closed_form.alphaedit import AlphaEdit
    from editing.methods.closed_form.emmet import EMMET
    from editing.methods.closed_form.memit import MEMIT
    from editing.methods.closed_form.pmet import PMET
    from editing.methods.closed_form.rome import ROME
    from editing.methods.in_context import InContext, PromptEdit
    from editing.methods.neuron_editing import KnowledgeNeuronEditing
    from editing.methods.table import METHODS
    from editing.methods.tuning.fine_tuning import Ball, FineTuning
    from editing.methods.tuning.lora import LoRA
    from editing.presets.preset_files import Preset, preset
    from editing.readings.consequences import implications, mirrored
    from editing.readings.lm_eval_tasks import PublicTasks, public_tasks
    from editing.readings.portability_result import Portability, portability
    from editing.readings.side_effects import SideEffects
    from editing.readings.side_effects_result import SideComparison

__getattr__, __dir__, __all__ = door(__name__, __file__)
