"""Pictures of how far methods agree: a matrix of correlations, and profiles over layers."""

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import (
    COLOURS,
    DIVERGING,
    add_band,
    layer_axis,
    require_columns,
    text,
    themed,
)


def agreement_matrix(
    frame: pd.DataFrame, *, methods: Sequence[str] = (), title: str = "Agreement"
) -> go.Figure:
    """Rank correlations of methods: on the same fact above the diagonal, the control below.

    Args:
        frame: Columns `first, second, facts` (`"same"` or `"next"`), `mean, low, high, n`.
        methods: All methods in order, those without a correlation included; by default
            those of the table.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("first", "second", "facts", "mean", "low", "high", "n"))
    names = list(methods or dict.fromkeys([*frame["first"], *frame["second"]]))
    found = {(r.first, r.second, r.facts): r for r in frame.itertuples()}
    values: list[list[float | None]] = []
    labels: list[list[str]] = []
    hover: list[list[str]] = []
    for row, first in enumerate(names):
        cells = [
            found.get((first, second, "same" if column > row else "next"))
            for column, second in enumerate(names)
        ]
        values.append([None if cell is None else cell.mean for cell in cells])
        labels.append(
            [
                "" if cell is None else f"{cell.mean:.2f}<br><sub>{_ends(cell)}</sub>"
                for cell in cells
            ]
        )
        hover.append(
            [
                ""
                if cell is None
                else f"{text(first)} and {text(cell.second)}, {cell.facts} fact<br>"
                f"{cell.mean:.3f} {_ends(cell, 3)} over {cell.n} facts"
                for cell in cells
            ]
        )
    ticks = list(range(len(names)))
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=ticks,
            y=ticks,
            text=labels,
            customdata=hover,
            texttemplate="%{text}",
            textfont={"color": "#1a1a1a", "size": 13},
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=[[at, colour] for at, colour in DIVERGING],
            zmin=-1,
            zmax=1,
            xgap=2,
            ygap=2,
            colorbar={"title": {"text": "Spearman"}, "tickvals": [-1, -0.5, 0, 0.5, 1]},
        )
    )
    axis = {"tickvals": ticks, "ticktext": [_wrapped(name) for name in names], "showgrid": False}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis, autorange="reversed")
    subtitle = "above the diagonal: on the same fact; below: control, on another fact"
    return themed(figure, title, subtitle, height=180 + 64 * len(names))


def profile_curves(
    frame: pd.DataFrame,
    *,
    title: str = "Where methods point",
    score: str = "score, scaled to 0..1 for each fact",
    over: str = "facts",
) -> go.Figure:
    """Each method's score over the layers, with a band.

    Args:
        frame: Columns `method, layer, mean, low, high` (scores in 0..1), `n`.
        title: Title of the figure.
        score: What the scores are.
        over: What the bands are over.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("method", "layer", "mean", "low", "high", "n"))
    figure = go.Figure()
    for index, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        rows = rows.sort_values("layer")
        colour = COLOURS[index % len(COLOURS)]
        place = rows["layer"], rows["low"], rows["high"]
        add_band(figure, *place, colour, alpha=0.18, group=str(method))
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            name=text(str(method)),
            legendgroup=str(method),
            mode="lines+markers",
            line={"color": colour, "dash": ("solid", "dash", "dot")[index // len(COLOURS) % 3]},
            marker={"size": 5, "symbol": ("circle", "square", "diamond", "x", "cross")[index % 5]},
            customdata=rows[["low", "high"]].to_numpy(),
            hovertemplate="%{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="layer", **layer_axis(int(frame["layer"].max()) + 1))
    figure.update_yaxes(title_text=score, range=[-0.02, 1.02])
    return themed(figure, title, f"bands: 95 % over {over}", legend=True)


def _wrapped(name: str) -> str:
    """A name in short lines, for a tick beside other ticks."""
    return "<br>".join(map(text, textwrap.wrap(name, 12)))


def _ends(cell: Any, digits: int = 2) -> str:
    """The interval of a cell in brackets, or that there is none."""
    if pd.isna(cell.low):
        return "(no interval)"
    return f"[{cell.low:.{digits}f}, {cell.high:.{digits}f}]"
