"""Tables in, plotly figures out. Nothing else in the project imports plotly.

Every function takes a data frame whose columns its docstring names, and returns a plain
`go.Figure` (never a widget, which costs megabytes in a saved notebook).
"""

from labkit.plots.agreement import agreement_matrix, profile_curves
from labkit.plots.attention import attention_viewer
from labkit.plots.attribution import agreement_scatter, attribution_heatmap, node_bars
from labkit.plots.averages import role_curves, role_heatmap, severed_curves
from labkit.plots.cards import coloured_text, neuron_card, triggers_in_context
from labkit.plots.cloze import (
    cloze_depths,
    cloze_popularity,
    cloze_precision,
    cloze_ranks,
    lens_quality_curves,
)
from labkit.plots.collapse import collapse_curves
from labkit.plots.contributions import contribution_bars, switch_bars
from labkit.plots.deltas import export_bars, share_bars
from labkit.plots.evaluation import metrics_bars, predictions_bar
from labkit.plots.heads import head_grids, knockout_curves
from labkit.plots.icl import measure_by_k, order_strip
from labkit.plots.icl_finetuning import similarity_by_layer
from labkit.plots.icl_regression import (
    attention_weights,
    distance_map,
    learner_curves,
    reading_by_depth,
)
from labkit.plots.icl_vectors import (
    scale_map,
    trajectory_curves,
    vector_curves,
    worth_by_position,
)
from labkit.plots.lens import lens_at_last, lens_table
from labkit.plots.memories import (
    agreement_curve,
    patterns_curves,
    words_bars,
    writers_bars,
)
from labkit.plots.methods import method_intervals, reach_and_spare
from labkit.plots.neurons import neuron_test_bars, neurons_by_layer
from labkit.plots.output import to_html, to_png, use_in_notebooks
from labkit.plots.patching import pair_heatmap
from labkit.plots.probes import probe_curves, probe_map_heatmap, removal_bars
from labkit.plots.relations import operator_selection, relation_intervals
from labkit.plots.side_effects import change_intervals, phenomena_bars
from labkit.plots.tracing import trace_curves, trace_heatmap, trace_panels

__all__ = [
    "agreement_curve",
    "agreement_matrix",
    "agreement_scatter",
    "attention_viewer",
    "attention_weights",
    "attribution_heatmap",
    "change_intervals",
    "cloze_depths",
    "cloze_popularity",
    "cloze_precision",
    "cloze_ranks",
    "collapse_curves",
    "coloured_text",
    "contribution_bars",
    "distance_map",
    "export_bars",
    "head_grids",
    "knockout_curves",
    "learner_curves",
    "lens_at_last",
    "lens_quality_curves",
    "lens_table",
    "measure_by_k",
    "method_intervals",
    "metrics_bars",
    "neuron_card",
    "neuron_test_bars",
    "neurons_by_layer",
    "node_bars",
    "operator_selection",
    "order_strip",
    "pair_heatmap",
    "patterns_curves",
    "phenomena_bars",
    "predictions_bar",
    "probe_curves",
    "probe_map_heatmap",
    "profile_curves",
    "reach_and_spare",
    "reading_by_depth",
    "relation_intervals",
    "removal_bars",
    "role_curves",
    "role_heatmap",
    "scale_map",
    "severed_curves",
    "share_bars",
    "similarity_by_layer",
    "switch_bars",
    "to_html",
    "to_png",
    "trace_curves",
    "trace_heatmap",
    "trace_panels",
    "trajectory_curves",
    "triggers_in_context",
    "use_in_notebooks",
    "vector_curves",
    "words_bars",
    "worth_by_position",
    "writers_bars",
]
