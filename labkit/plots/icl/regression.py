"""Pictures of learning in context as an algorithm: errors, distances, weights, what is inside."""

import numpy as np
import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import (
    COLOURS,
    DIVERGING,
    HEIGHT,
    INK,
    SEQUENTIAL_UNDER_TEXT,
    add_band,
    interval_bars,
    layer_axis,
    require_columns,
    text,
    themed,
)

KINDS = {
    "transformer": COLOURS[1],
    "ridge": COLOURS[0],
    "least squares": COLOURS[4],
    "gradient": COLOURS[2],
    "neighbour": COLOURS[3],
    "mean": INK,
    "zero": INK,
}
"""Colours by what a learner's name holds; those of one kind differ in their lines."""

DASHES = ("solid", "dash", "dot", "dashdot")
FLOOR = 1e-4  # of the logarithmic axis: below it two learners say the same
ROWS_OF_LEGEND = 4  # learners side by side in a legend
READINGS = {
    "states": ("the model's states", COLOURS[0], "circle"),
    "twin": ("random weights", COLOURS[3], "diamond"),
    "shuffled": ("another prompt's", COLOURS[4], "x"),
}
"""What is read from: its name, colour and marker."""


def learner_curves(
    frame: pd.DataFrame,
    *,
    measure: str,
    title: str,
    subtitle: str | None = None,
    n_trained: int | None = None,
) -> go.Figure:
    """A measure against the number of examples, one line per learner, on a logarithmic axis.

    Args:
        frame: Columns `learner, examples, mean, low, high`, one row per point. Values below 1e-4
            are drawn there.
        measure: What is drawn, in words.
        title: Title of the figure.
        subtitle: A second line.
        n_trained: Where to mark the end of what training showed.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("learner", "examples", "mean", "low", "high"))
    figure = go.Figure()
    learners = list(dict.fromkeys(frame["learner"]))
    seen: dict[str, int] = {}
    # The transformer last, so that it lies on top.
    for learner in sorted(learners, key=lambda name: name == "transformer"):
        kind = next((kind for kind in KINDS if kind in learner), "mean")
        dash = DASHES[(seen.setdefault(KINDS[kind], 0)) % len(DASHES)]
        seen[KINDS[kind]] += 1
        rows = frame[frame["learner"] == learner].sort_values("examples")
        rows = rows.assign(**{name: rows[name].clip(lower=FLOOR) for name in ("mean", "low")})
        own = kind == "transformer"
        if own:
            add_band(
                figure, rows["examples"], rows["low"], rows["high"], KINDS[kind], group=learner
            )
        figure.add_scatter(
            x=rows["examples"],
            y=rows["mean"],
            name=text(learner),
            legendgroup=learner,
            legendrank=0 if own else 1000,
            mode="lines",
            line={"color": KINDS[kind], "width": 3.5 if own else 1.8, "dash": dash},
            customdata=rows[["low", "high"]].to_numpy(),
            hovertemplate="%{y:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}]",
        )
    if n_trained is not None:
        figure.add_vline(
            x=n_trained,
            line={"color": INK, "dash": "dot"},
            annotation={"text": "longest in training", "yanchor": "bottom"},
            annotation_position="bottom left",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="examples in context", rangemode="tozero")
    figure.update_yaxes(title_text=text(measure), type="log", dtick=1, exponentformat="power")
    lines = -(-len(learners) // ROWS_OF_LEGEND)
    return themed(figure, title, subtitle, height=HEIGHT + 80 + 20 * lines, legend=True)


def distance_map(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """Settings down, learners across: how far each learner is from the transformer.

    The brighter a cell the nearer, from 1e-4 to 1; its number is the distance, the nearest of a
    row is framed.

    Args:
        frame: Columns `setting, learner, mean, low, high`, one row per cell.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("setting", "learner", "mean", "low", "high"))
    settings = list(dict.fromkeys(frame["setting"]))
    learners = list(dict.fromkeys(frame["learner"]))
    wide = {
        name: frame.pivot(index="setting", columns="learner", values=name).loc[settings, learners]
        for name in ("mean", "low", "high")
    }
    nearness = -np.log10(wide["mean"].to_numpy().clip(FLOOR, 1.0))
    figure = go.Figure(
        go.Heatmap(
            z=nearness,
            x=list(map(text, learners)),
            y=list(map(text, settings)),
            text=[[_short(value) for value in row] for row in wide["mean"].to_numpy()],
            texttemplate="%{text}",
            textfont={"color": "white", "size": 12},
            colorscale=SEQUENTIAL_UNDER_TEXT,
            showscale=False,
            customdata=np.stack([wide[name].to_numpy() for name in ("mean", "low", "high")], -1),
            hovertemplate=(
                "%{y}, %{x}: %{customdata[0]:.4f} [%{customdata[1]:.4f}, %{customdata[2]:.4f}]"
                "<extra></extra>"
            ),
        )
    )
    for row, place in enumerate(wide["mean"].to_numpy().argmin(axis=1)):
        figure.add_shape(
            type="rect", x0=place - 0.5, x1=place + 0.5, y0=row - 0.5, y1=row + 0.5,
            line={"color": COLOURS[1], "width": 2.5},
        )  # fmt: skip
    figure.update_xaxes(showgrid=False, tickangle=-35)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return themed(figure, title, subtitle, height=230 + 34 * len(settings))


def attention_weights(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """The matrices of a layer side by side, every weight with its number.

    Args:
        frame: Columns `matrix, row, column, weight`, one row per entry, in order.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("matrix", "row", "column", "weight"))
    matrices = list(dict.fromkeys(frame["matrix"]))
    names = list(dict.fromkeys(frame["row"]))
    figure = make_subplots(
        cols=len(matrices), subplot_titles=matrices, horizontal_spacing=0.05, shared_yaxes=True
    )
    for number, matrix in enumerate(matrices, start=1):
        rows = frame[frame["matrix"] == matrix]
        weights = rows.pivot(index="row", columns="column", values="weight").loc[names, names]
        z = weights.to_numpy()
        figure.add_heatmap(
            z=z,
            x=names,
            y=names,
            zmin=-2,  # so that dark letters can be read on 1 and -1
            zmax=2,
            colorscale=DIVERGING,
            showscale=False,
            text=[["" if value == 0 else f"{value:.2g}" for value in row] for row in z],
            texttemplate="%{text}",
            textfont={"color": "#111111", "size": 11},
            hovertemplate=f"{matrix}[%{{y}}, %{{x}}] = %{{z:.3g}}<extra></extra>",
            row=1,
            col=number,
        )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    return themed(figure, title, subtitle, height=320)


def reading_by_depth(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """What a linear map reads from the states, by depth: one panel per target, one line per source.

    Args:
        frame: Columns `target, reading` (a key of `READINGS`), `depth, mean, low, high` (R²), one
            row per point. Values below 0 are drawn as they are: worse than the mean.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("target", "reading", "depth", "mean", "low", "high"))
    targets = list(dict.fromkeys(frame["target"]))
    figure = make_subplots(
        cols=len(targets), subplot_titles=list(map(text, targets)), shared_yaxes=True,
        horizontal_spacing=0.04,
    )  # fmt: skip
    for number, target in enumerate(targets, start=1):
        for reading, (name, colour, symbol) in READINGS.items():
            rows = frame[(frame["target"] == target) & (frame["reading"] == reading)]
            if rows.empty:
                continue
            rows = rows.sort_values("depth")
            figure.add_scatter(
                x=rows["depth"],
                y=rows["mean"],
                name=name,
                legendgroup=reading,
                showlegend=number == 1,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 7, "symbol": symbol},
                error_y=interval_bars(rows, colour, thickness=1.5, width=0),
                customdata=rows[["low", "high"]].to_numpy(),
                hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
                row=1,
                col=number,
            )
    n_depths = int(frame["depth"].max()) + 1
    figure.update_xaxes(title_text="depth", **layer_axis(n_depths))
    figure.update_yaxes(title_text="R²", col=1)
    return themed(figure, title, subtitle, height=HEIGHT, legend=True)


def _short(value: float) -> str:
    """A distance in two digits, and no more where it is beyond all measure."""
    if value >= 10:
        return "> 10"
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}" if value >= FLOOR else "0"
