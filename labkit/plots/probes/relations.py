"""Pictures of linear operators: what they are worth by relation, and how they were chosen."""

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    SEQUENTIAL,
    interval_bars,
    layer_axis,
    require_columns,
    text,
    themed,
)

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")


def relation_intervals(
    frame: pd.DataFrame, *, measure: str = "faithfulness", title: str = "Linear operators"
) -> go.Figure:
    """One measure by relation (down) and method (colour and shape), with intervals.

    Args:
        frame: Columns `relation, measure, method, mean, low, high` (shares in 0..1), `n`. The
            first relation, usually all of them, is drawn on top.
        measure: Which rows are drawn.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing, or there is no row of the measure.
    """
    columns = ("relation", "measure", "method", "mean", "low", "high", "n")
    rows = require_columns(frame, columns)
    rows = require_columns(rows[rows["measure"] == measure], columns)
    relations = list(dict.fromkeys(rows["relation"]))
    methods = list(dict.fromkeys(rows["method"]))
    figure = go.Figure()
    for index, method in enumerate(methods):
        own = rows[rows["method"] == method]
        shift = 0.8 * (index - (len(methods) - 1) / 2) / len(methods)
        colour = (*COLOURS, INK)[index % (len(COLOURS) + 1)]
        figure.add_scatter(
            x=own["mean"],
            y=[relations.index(name) + shift for name in own["relation"]],
            name=text(method),
            mode="markers",
            marker={"color": colour, "size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            error_x=interval_bars(own, colour, width=0),
            customdata=own[["low", "high", "n"]].to_numpy(),
            hovertemplate=(
                f"{text(method)}: %{{x:.2f}} [%{{customdata[0]:.2f}}, %{{customdata[1]:.2f}}], "
                "n=%{customdata[2]}<extra></extra>"
            ),
        )
    figure.update_xaxes(
        title_text=f"{measure}: share of held-out subjects",
        range=[-0.03, 1.03],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
    )
    figure.update_yaxes(
        tickvals=list(range(len(relations))),
        ticktext=[text(name) for name in relations],
        range=[len(relations) - 0.5, -0.5],
    )
    height = 200 + (14 * len(methods) + 8) * len(relations)
    return themed(figure, title, "95 % intervals over subjects", height=height, legend=True)


def operator_selection(
    frame: pd.DataFrame, *, depth: int, beta: float, title: str = "How an operator was chosen"
) -> go.Figure:
    """Log-probability of the model's own answer under the map, depths across, beta up.

    Args:
        frame: Columns `depth, beta, faithful` (share, 0..1), `log_prob` (nats).
        depth: The depth that was chosen; marked.
        beta: The beta that was chosen.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("depth", "beta", "faithful", "log_prob"))
    z = rows.pivot(index="beta", columns="depth", values="log_prob")
    faithful = rows.pivot(index="beta", columns="depth", values="faithful")
    betas = [f"{value:g}" for value in z.index]
    figure = go.Figure(
        go.Heatmap(
            z=z.to_numpy(),
            x=list(z.columns),
            y=list(range(len(betas))),
            customdata=faithful.to_numpy(),
            colorscale=SEQUENTIAL,
            zmin=max(float(z.to_numpy().min()), -10.0),
            zmax=0,
            colorbar={"title": {"text": "log P"}},
            hovertemplate=(
                "depth %{x}: log P %{z:.2f}, faithful on %{customdata:.0%}<extra></extra>"
            ),
        )
    )
    figure.add_scatter(
        x=[depth],
        y=[list(z.index).index(beta)],
        mode="markers",
        marker={"symbol": "circle-open", "size": 16, "color": "white", "line": {"width": 3}},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_xaxes(
        title_text="blocks that the subject's state has passed through",
        showgrid=False,
        **layer_axis(int(z.columns.max()) + 1),
    )
    figure.update_yaxes(
        title_text="beta", tickvals=list(range(len(betas))), ticktext=betas, showgrid=False
    )
    subtitle = "on subjects that are neither examples nor scored; circle: chosen"
    return themed(figure, title, subtitle, height=HEIGHT)
