"""Pictures of learning in context: what demonstrations do, by how many there are."""

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import COLOURS, HEIGHT, INK, interval_bars, require_columns, text, themed

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
DASHES = ("solid", "dot", "dash")
SPREAD = 0.3
"""Width, in steps of the axis, over which the conditions of one number stand side by side."""


def measure_by_k(
    frame: pd.DataFrame,
    *,
    measure: str,
    title: str,
    levels: dict[str, float] | None = None,
    subtitle: str | None = None,
) -> go.Figure:
    """A measure against the number of demonstrations, one line a condition, with intervals.

    Numbers stand at even steps, so that 0, 1, 2, 4, 8 are as far from each other.

    Args:
        frame: Columns `condition, k, mean, low, high` (the measure, 0..1), `least, most` (its
            range over draws), one row a point.
        measure: What is drawn, in words.
        title: Title of the figure.
        levels: Level lines to compare with, by name.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("condition", "k", "mean", "low", "high", "least", "most"))
    ks = sorted(frame["k"].unique())
    conditions = list(dict.fromkeys(frame["condition"]))
    figure = go.Figure()
    for name, level in (levels or {}).items():
        figure.add_scatter(
            x=[-0.4, len(ks) - 0.6],
            y=[level, level],
            name=text(name),
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": "dash" if name == "chance" else "dot"},
            hovertemplate="%{y:.3f}",
        )
    for number, condition in enumerate(conditions):
        rows = frame[frame["condition"] == condition].sort_values("k")
        colour = COLOURS[number % len(COLOURS)]
        shift = SPREAD * (number / max(1, len(conditions) - 1) - 0.5) if conditions[1:] else 0.0
        figure.add_scatter(
            x=[ks.index(k) + shift for k in rows["k"]],
            y=rows["mean"],
            name=text(condition),
            mode="lines+markers",
            line={
                "color": colour,
                "width": 2,
                "dash": DASHES[number // len(COLOURS) % len(DASHES)],
            },
            marker={"size": 8, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            error_y=interval_bars(rows, colour, thickness=1.5, width=0),
            customdata=rows[["k", "low", "high", "least", "most"]].to_numpy(),
            hovertemplate=(
                "k = %{customdata[0]}: %{y:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}], "
                "draws %{customdata[3]:.3f} to %{customdata[4]:.3f}"
            ),
        )
    figure.update_xaxes(
        title_text="demonstrations",
        tickvals=list(range(len(ks))),
        ticktext=[str(k) for k in ks],
        range=[-0.4, len(ks) - 0.6],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(title_text=text(measure), rangemode="tozero")
    lines = -(-(len(conditions) + len(levels or {})) // 4)  # of the legend
    figure = themed(figure, title, subtitle, height=HEIGHT + 40 + 20 * lines, legend=True)
    return figure.update_layout(margin={"t": figure.layout.margin.t + 20 * (lines - 1)})
