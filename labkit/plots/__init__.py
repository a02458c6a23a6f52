"""Tables in, plotly figures out. Nothing else in the project imports plotly.

Every function takes a data frame whose columns its docstring names, and returns a plain
`go.Figure` (never a widget, which costs megabytes in a saved notebook).
"""

from labkit.plots.agreement import agreement_matrix, profile_curves
from labkit.plots.attribution import agreement_scatter, attribution_heatmap, node_bars
from labkit.plots.evaluation import metrics_bars, predictions_bar
from labkit.plots.lens import lens_at_last, lens_table
from labkit.plots.output import to_html, to_png, use_in_notebooks
from labkit.plots.tracing import trace_curves, trace_heatmap

__all__ = [
    "agreement_matrix",
    "agreement_scatter",
    "attribution_heatmap",
    "lens_at_last",
    "lens_table",
    "metrics_bars",
    "node_bars",
    "predictions_bar",
    "profile_curves",
    "to_html",
    "to_png",
    "trace_curves",
    "trace_heatmap",
    "use_in_notebooks",
]
