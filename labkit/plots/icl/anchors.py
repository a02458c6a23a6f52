"""Pictures of attention among demonstrations: where it goes, and what depends on it."""

import numpy as np
import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.memories.cards import coloured_text
from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    add_band,
    interval_bars,
    layer_axis,
    require_columns,
    text,
    themed,
    translucent,
)


def shares_by_layer(
    frame: pd.DataFrame, *, measure: str, title: str, subtitle: str | None = None
) -> go.Figure:
    """Shares of a whole by layer, one curve per part, with bands.

    Args:
        frame: Columns `layer, part, mean, low, high` (0..1).
        measure: What is shared, in words.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("layer", "part", "mean", "low", "high"))
    figure = go.Figure()
    parts = list(dict.fromkeys(frame["part"]))
    colours = dict.fromkeys(("first token", "others (ww)"), INK)
    colours |= dict(zip([part for part in parts if part not in colours], COLOURS, strict=False))
    for part in parts:
        rows = frame[frame["part"] == part].sort_values("layer")
        add_band(figure, rows["layer"], rows["low"], rows["high"], colours[part], group=part)
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            name=text(part),
            legendgroup=part,
            mode="lines",
            line={"color": colours[part], "width": 2},
            customdata=rows[["low", "high"]].to_numpy(),
            hovertemplate="%{y:.1%} [%{customdata[0]:.1%}, %{customdata[1]:.1%}]",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="layer", **layer_axis(int(frame["layer"].max()) + 1))
    figure.update_yaxes(title_text=text(measure), tickformat=".0%", rangemode="tozero")
    return themed(figure, title, subtitle, height=HEIGHT + 60, legend=True)


def knockout_bars(
    frame: pd.DataFrame, *, measure: str, title: str, subtitle: str | None = None
) -> go.Figure:
    """What blocking edges changes, beside random edges; one panel per window of layers.

    Args:
        frame: Columns `panel, edges, change, change_low, change_high`, and where there are random
            edges `random, random_low, random_high`; shares of one.
        measure: What changes, in words.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    own, random = ["change", "change_low", "change_high"], ["random", "random_low", "random_high"]
    frame = frame.reindex(columns=[*frame.columns, *(set(random) - set(frame.columns))])
    require_columns(frame, ("panel", "edges", *own))
    panels, edges = list(dict.fromkeys(frame["panel"])), list(dict.fromkeys(frame["edges"]))
    figure = make_subplots(
        rows=1,
        cols=len(panels),
        shared_yaxes=True,
        shared_xaxes="all",
        subplot_titles=[text(panel) for panel in panels],
        horizontal_spacing=0.03,
    )
    for column, panel in enumerate(panels, start=1):
        rows = frame[frame["panel"] == panel].set_index("edges").loc[edges]
        for columns, name, colour, up in (
            (own, "these edges blocked", COLOURS[1], -0.2),
            (random, "random edges", INK, 0.2),
        ):
            points = rows[columns].set_axis(["mean", "low", "high"], axis=1)
            figure.add_bar(
                x=points["mean"],
                y=[place + up for place in range(len(edges))],
                name=name,
                orientation="h",
                width=0.36,
                marker={"color": translucent(colour, 0.55), "line": {"width": 0}},
                error_x=interval_bars(points, colour, width=0),
                customdata=points[["low", "high"]].to_numpy(),
                hovertemplate="%{x:+.1%} [%{customdata[0]:+.1%}, %{customdata[1]:+.1%}]",
                legendgroup=name,
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_layout(barmode="overlay")
    ends = frame[[*own, *random]].to_numpy()
    low, high = min(0.0, float(np.nanmin(ends))), max(0.0, float(np.nanmax(ends)))
    room = 0.06 * max(high - low, 0.1)
    figure.update_xaxes(tickformat="+.0%", nticks=4, range=[low - room, high + room])
    figure.update_xaxes(title_text=text(measure), col=1)
    figure.update_yaxes(
        tickvals=list(range(len(edges))),
        ticktext=[text(name) for name in edges],
        range=[len(edges) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return themed(figure, title, subtitle, height=220 + 44 * len(edges), legend=True)


def attention_flow(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """A prompt whose tokens are coloured by the attention of its last one; labels are framed.

    What goes to the first token, mostly attention with nothing to do, is said and not drawn;
    tokens of the query are coloured up to the strongest before them.

    Args:
        frame: Columns `pos, token, part, attention` (0..1).
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("pos", "token", "part", "attention")).sort_values("pos")
    first = rows["part"] == "first token"
    sums = rows.groupby("part", sort=False)["attention"].sum()
    shares = ", ".join(f"{part} {sums[part]:.0%}" for part in sums.index)
    front = rows.loc[~rows["part"].isin(["first token", "query"]), "attention"]
    drawn = rows["attention"].mask(first, 0.0).clip(upper=front.max() if len(front) else None)
    figure = coloured_text(rows.assign(activation=drawn), title=title, subtitle=shares)
    is_label = (rows["part"] == "labels").tolist()
    boxes = figure.data[0]
    boxes.marker.line.width = [2 if label else 0 for label in is_label]
    boxes.marker.line.color = COLOURS[1]
    hover = zip(boxes.hovertext, rows["part"], rows["attention"], strict=True)
    boxes.hovertext = [f"{token} ({part})<br>attention {own:.2%}" for token, part, own in hover]
    boxes.hovertemplate = "%{hovertext}<extra></extra>"
    return figure
