"""How a model bears more and more edits: one panel per quantity over the number of edits."""

from collections.abc import Mapping

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import COLOURS, INK, add_band, require_columns, text, themed

TOGETHER = {"success": "efficacy", "argmax accuracy": "efficacy"}
"""Quantities that share a panel."""


def collapse_curves(
    frame: pd.DataFrame,
    *,
    title: str = "Edits adding up",
    thresholds: Mapping[str, float] | None = None,
) -> go.Figure:
    """Readings over the number of edits, on a logarithmic axis, with their intervals.

    Args:
        frame: Columns `edits, quantity, mean, low, high`; optional `unit`. Success and argmax
            accuracy share a panel, every other quantity has its own.
        title: Title of the figure.
        thresholds: By quantity, the level that counts as a sign, drawn as a dotted line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("edits", "quantity", "mean", "low", "high"))
    quantities = list(dict.fromkeys(frame["quantity"]))
    panels = list(dict.fromkeys(TOGETHER.get(quantity, quantity) for quantity in quantities))
    units = dict(zip(frame["quantity"], frame["unit"], strict=True)) if "unit" in frame else {}
    named = {TOGETHER.get(q, q): units.get(q, "") for q in quantities}
    n_rows = -(-len(panels) // 2)
    figure = make_subplots(
        rows=n_rows,
        cols=min(len(panels), 2),
        subplot_titles=[
            text(f"{panel}: {named[panel]}" if named[panel] else panel) for panel in panels
        ],
        horizontal_spacing=0.12,
        vertical_spacing=0.36 / n_rows,
    )
    for number, quantity in enumerate(quantities):
        rows = frame[frame["quantity"] == quantity].sort_values("edits")
        place = panels.index(TOGETHER.get(quantity, quantity))
        where = {"row": place // 2 + 1, "col": place % 2 + 1}
        colour = COLOURS[number % len(COLOURS)]
        add_band(figure, rows["edits"], rows["low"], rows["high"], colour, group=quantity, **where)
        figure.add_scatter(
            x=rows["edits"],
            y=rows["mean"],
            name=text(quantity),
            legendgroup=quantity,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": "dash" if "argmax" in quantity else "solid"},
            customdata=list(zip(rows["low"], rows["high"], strict=True)),
            hovertemplate=(
                f"{text(quantity)} after %{{x}} edits: %{{y:.3f}} "
                "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
            ),
            **where,
        )
        for level in (value for name, value in (thresholds or {}).items() if name == quantity):
            figure.add_hline(level, line={"dash": "dot", "color": INK, "width": 1.5}, **where)
        if TOGETHER.get(quantity) == "efficacy":
            figure.update_yaxes(range=[0, 1.04], **where)
    ticks = sorted(set(frame["edits"]))
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks])
    figure.update_xaxes(title_text="edits", row=n_rows)
    return themed(figure, title, height=120 + 230 * n_rows, legend=True)
