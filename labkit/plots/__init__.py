"""Tables in, plotly figures out. Nothing else in the project imports plotly.

Every function takes a data frame whose columns its docstring names, and returns a plain
`go.Figure` (never a widget, which costs megabytes in a saved notebook).
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.plots.editing.collapse import collapse_curves
    from labkit.plots.editing.deltas import change_bars, export_bars, share_bars
    from labkit.plots.editing.evaluation import metrics_bars, predictions_bar
    from labkit.plots.editing.methods import method_intervals, reach_and_spare
    from labkit.plots.editing.side_effects import change_intervals, phenomena_bars
    from labkit.plots.icl.demonstrations import measure_by_k, order_strip
    from labkit.plots.icl.finetuning import similarity_by_layer
    from labkit.plots.icl.regression import (
        attention_weights,
        distance_map,
        learner_curves,
        reading_by_depth,
    )
    from labkit.plots.icl.vectors import (
        scale_map,
        trajectory_curves,
        vector_curves,
        worth_by_position,
    )
    from labkit.plots.lens import lens_at_last, lens_table
    from labkit.plots.locate.agreement import agreement_matrix, profile_curves
    from labkit.plots.locate.attention import attention_viewer
    from labkit.plots.locate.attribution import agreement_scatter, attribution_heatmap, node_bars
    from labkit.plots.locate.averages import role_curves, role_heatmap, severed_curves
    from labkit.plots.locate.heads import head_grids, knockout_curves
    from labkit.plots.locate.neurons import neuron_test_bars, neurons_by_layer
    from labkit.plots.locate.patching import pair_heatmap
    from labkit.plots.locate.tracing import Traced, trace_curves, trace_heatmap, trace_panels
    from labkit.plots.memories.cards import coloured_text, neuron_card, triggers_in_context
    from labkit.plots.memories.contributions import contribution_bars, switch_bars
    from labkit.plots.memories.words import (
        agreement_curve,
        patterns_curves,
        words_bars,
        writers_bars,
    )
    from labkit.plots.output import to_html, to_png, use_in_notebooks
    from labkit.plots.probes.cloze import (
        cloze_depths,
        cloze_popularity,
        cloze_precision,
        cloze_ranks,
        lens_quality_curves,
    )
    from labkit.plots.probes.relations import operator_selection, relation_intervals
    from labkit.plots.probes.scores import probe_curves, probe_map_heatmap, removal_bars

__getattr__, __dir__, __all__ = door(__name__, __file__)
