"""Pictures of attributions: effects around zero, and how they compare with exact ones."""

from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from labkit.plots.locate.tracing import STATES, Traced, cell_grid, layers_across, token_axis
from labkit.plots.theme import (
    COLOURS,
    DIVERGING,
    INK,
    interval_bars,
    of_rows,
    require_columns,
    themed,
    token_label,
)


def attribution_heatmap(
    frame: pd.DataFrame, traced: Traced, *, kind: str = "resid", title: str | None = None
) -> go.Figure:
    """Approximate effect of restoring one state, for every token (down) and layer (across).

    Colours are symmetric around zero: orange brings the answer back, blue pushes it away.
    Tokens of the subject carry a star.

    Args:
        frame: Columns `pos, token, layer, mean, low, high`, one row per cell; differences of
            probability, the interval over noise draws.
        traced: What was approximated: answer, probabilities, positions of the subject.
        kind: What is restored: a key of `STATES`, or words of your own.
        title: Replaces the default title.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    grid, labels = cell_grid(frame, traced, digits=4)
    largest = max(float(np.nanmax(np.abs(grid["z"]))), 1e-9)
    heatmap = go.Heatmap(
        **grid,
        zmin=-largest,
        zmax=largest,
        colorscale=DIVERGING,
        colorbar={"title": {"text": f"ΔP({token_label(traced.answer)})"}},
    )
    figure = go.Figure(heatmap)
    figure.update_xaxes(title_text="layer", **layers_across(frame))
    height, letters = of_rows(len(labels), 26, 150)
    figure.update_yaxes(**token_axis(grid["y"], labels, letters))
    return themed(
        figure,
        title
        or f"Approximate effect of the {STATES.get(kind, kind)} on P({traced.answer.strip()})",
        f"by gradient;  clean {traced.clean:.3f}, corrupted {traced.corrupted:.3f};  * subject",
        height=height,
    )


def agreement_scatter(
    frame: pd.DataFrame,
    *,
    title: str = "Attribution against the exact trace",
    subtitle: str | None = None,
) -> go.Figure:
    """Approximate against exact effect, one point per cell; on the line they are equal.

    Args:
        frame: Columns `pos, token, layer, in_subject, exact, approximate`; differences of
            probability. Cells that were not measured (NaN) are left out.
        title: Title of the figure.
        subtitle: A second line; usually the correlations.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("pos", "token", "layer", "in_subject", "exact", "approximate")
    frame = require_columns(frame, columns).dropna(subset=["exact", "approximate"])
    figure = go.Figure()
    both = frame[["exact", "approximate"]]
    ends = [float(both.max(axis=0).min()), float(both.min(axis=0).max())]
    figure.add_scatter(
        x=sorted(ends),
        y=sorted(ends),
        mode="lines",
        line={"color": INK, "width": 1.5, "dash": "dot"},
        name="equal",
        hoverinfo="skip",
    )
    groups = (("subject", True, "circle"), ("after the subject", False, "diamond"))
    for (name, inside, symbol), colour in zip(groups, (COLOURS[1], COLOURS[0]), strict=True):
        rows = frame[frame["in_subject"] == inside]
        if rows.empty:
            continue
        figure.add_scatter(
            x=rows["exact"],
            y=rows["approximate"],
            name=name,
            mode="markers",
            marker={"color": colour, "size": 6, "symbol": symbol, "opacity": 0.75},
            text=[token_label(token) for token in rows["token"]],
            customdata=rows[["pos", "layer"]].to_numpy(),
            hovertemplate=(
                "%{text} (position %{customdata[0]}), layer %{customdata[1]}<br>"
                "exact %{x:.4f}, approximate %{y:.4f}<extra></extra>"
            ),
        )
    figure.update_xaxes(title_text="exact effect on P(answer)")
    figure.update_yaxes(title_text="approximate effect")
    return themed(figure, title, subtitle, legend=True)


def node_bars(frame: pd.DataFrame, *, answer: str, title: str, n_nodes: int = 15) -> go.Figure:
    """The nodes with the largest effects, whatever their sign, largest on top.

    Args:
        frame: Columns `kind` ("embed", "head" or "ffn"), `pos, token, layer, head, mean,
            low, high`, one row per node; differences of probability.
        answer: The token whose probability is meant.
        title: Title of the figure.
        n_nodes: Number of nodes shown.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("kind", "pos", "token", "layer", "head", "mean", "low", "high")
    rows = require_columns(frame, columns)
    rows = rows.sort_values("mean", key=abs, ascending=False).head(n_nodes)
    places = list(range(len(rows)))
    figure = go.Figure(
        go.Bar(
            x=rows["mean"],
            y=places,
            orientation="h",
            marker={"color": [COLOURS[1] if mean > 0 else COLOURS[0] for mean in rows["mean"]]},
            error_x=interval_bars(rows, INK, thickness=1.5, width=4),
            customdata=rows[["low", "high", "pos"]].to_numpy(),
            hovertemplate=(
                "%{x:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}], position %{customdata[2]}"
                "<extra></extra>"
            ),
        )
    )
    labels = [f"{_node(row)} at {token_label(row.token)}" for row in rows.itertuples()]
    figure.update_xaxes(title_text=f"effect on P({token_label(answer)})")
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=labels, showgrid=False)
    return themed(figure, title, height=max(280, 170 + 22 * len(rows)))


def _node(row: Any) -> str:
    """A node's short name: `L3H2` is a head, `L3 FFN` an FFN."""
    if row.kind == "embed":
        return "embedding"
    return f"L{row.layer}H{row.head}" if row.kind == "head" else f"L{row.layer} FFN"
