"""Pictures of attention heads: knock-out curves, and grids of all heads."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import (
    COLOURS,
    DIVERGING,
    HEIGHT,
    INK,
    add_band,
    layer_axis,
    of_rows,
    require_columns,
    text,
    themed,
)

CURVE = ("source", "layer", "mean", "low", "high", "n")


def knockout_curves(
    frame: pd.DataFrame, *, title: str, window: int, control: str = "random other tokens"
) -> go.Figure:
    """Change of P(answer) by the centre of the blocked window, one curve per group of tokens.

    Args:
        frame: Columns `source` (which tokens the last one may not look at), `layer`, `mean`,
            `low`, `high` (relative change of P(answer), -1..), `n` (units behind the
            interval). A source that is NaN throughout is left out.
        title: Title of the figure.
        window: Number of layers that are blocked together.
        control: The source that is drawn in grey.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    drawn = require_columns(frame, CURVE).dropna(subset="mean")
    require_columns(drawn, CURVE)
    figure = go.Figure()
    names = list(dict.fromkeys(frame["source"]))
    colours = dict(zip([name for name in names if name != control], COLOURS, strict=False))
    for name in names:
        rows = drawn[drawn["source"] == name].sort_values("layer")
        if rows.empty:
            continue
        colour = colours.get(name, INK)
        add_band(figure, rows["layer"], rows["low"], rows["high"], colour, group=name)
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            name=text(name),
            legendgroup=name,
            mode="lines",
            line={"color": colour, "width": 2, "dash": "dot" if name == control else "solid"},
            customdata=rows[["low", "high", "n"]].to_numpy(),
            hovertemplate=(
                "%{y:+.1%} [%{customdata[0]:+.1%}, %{customdata[1]:+.1%}], n=%{customdata[2]}"
            ),
        )
    figure.update_layout(hovermode="x unified")
    layers = f"centre of the {window} blocked layers" if window > 1 else "blocked layer"
    figure.update_xaxes(title_text=layers, **layer_axis(int(frame["layer"].max()) + 1))
    figure.update_yaxes(title_text="change of P(answer)", tickformat=".0%")
    return themed(figure, title, "the last token may not look at:", height=HEIGHT + 60, legend=True)


def head_grids(
    frame: pd.DataFrame,
    panels: Mapping[str, str],
    *,
    title: str,
    subtitle: str | None = None,
    percent: Collection[str] = (),
    shared: bool = False,
) -> go.Figure:
    """Every head of every layer as a cell, one panel per measure, blue below zero, orange above.

    Args:
        frame: Columns `layer`, `head` and those that `panels` names; where there are also
            `NAME_low` and `NAME_high`, hover shows the interval.
        panels: Column -> what the panel is called.
        title: Title of the figure.
        subtitle: A second line.
        percent: Columns that are shares of one, to be shown in percent.
        shared: Whether all panels have one colour axis. By default each has its own, from
            minus to plus its largest absolute value.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("layer", "head", *panels))
    n_layers, n_heads = frame["layer"].nunique(), frame["head"].nunique()
    figure = make_subplots(
        rows=1,
        cols=len(panels),
        shared_yaxes=True,
        subplot_titles=[text(label) for label in panels.values()],
        horizontal_spacing=0.04 if shared else 0.13,
    )
    limits = {name: _limit(frame[name]) for name in panels}
    if shared:
        limits = dict.fromkeys(panels, max(limits.values()))
    for column, name in enumerate(panels, start=1):
        grid = frame.pivot(index="layer", columns="head", values=name)
        interval, hover, form = None, "", ":+.1%" if name in percent else ":+.3f"
        if {f"{name}_low", f"{name}_high"} <= set(frame.columns):
            ends = [
                frame.pivot(index="layer", columns="head", values=f"{name}_{end}")
                for end in ("low", "high")
            ]
            interval = np.stack([end.to_numpy() for end in ends], axis=-1)
            hover = f" [%{{customdata[0]{form}}}, %{{customdata[1]{form}}}]"
        right = figure.get_subplot(1, column).xaxis.domain[1]
        figure.add_heatmap(
            z=grid.to_numpy(),
            x=list(grid.columns),
            y=list(grid.index),
            customdata=interval,
            zmin=-limits[name],
            zmax=limits[name],
            colorscale=DIVERGING,
            showscale=not shared or column == len(panels),
            colorbar={"x": right + 0.01, "tickformat": "+.2~%" if name in percent else "+.2~g"},
            hovertemplate=f"layer %{{y}}, head %{{x}}: %{{z{form}}}{hover}<extra></extra>",
            row=1,
            col=column,
        )
    across, down = layer_axis(n_heads), layer_axis(n_layers)
    figure.update_xaxes(title_text="head", showgrid=False, zeroline=False, **across)
    figure.update_yaxes(showgrid=False, zeroline=False, **down)
    figure.update_yaxes(title_text="layer", col=1)
    return themed(figure, title, subtitle, height=of_rows(n_layers, 16, 170)[0])


def _limit(values: pd.Series) -> float:
    """The largest absolute value, for a colour axis around zero; never zero itself."""
    largest = values.abs().max()
    return float(largest) if largest > 0 else 1e-6  # NaN throughout compares as False
