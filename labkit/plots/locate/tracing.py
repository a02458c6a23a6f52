"""Pictures of one causal trace: where restoring a state brings the answer back."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import (
    COLOURS,
    SEQUENTIAL,
    add_band,
    layer_axis,
    of_rows,
    require_columns,
    text,
    themed,
    token_label,
)

CELL = ("pos", "token", "layer", "mean", "low", "high")
SYMBOLS = ("circle", "square", "diamond")
STATES = {"resid": "residual stream", "ffn": "FFN output", "attn": "attention output"}


@dataclass(frozen=True, kw_only=True)
class Traced:
    """What the heatmaps of one prompt share: whose probability, between what, with which noise.

    Attributes:
        answer: The token whose probability is shown.
        clean: P(answer) of the intact prompt, 0..1.
        corrupted: Mean P(answer) with the subject corrupted and nothing restored, 0..1.
        subject_positions: Values of `pos` that belong to the subject.
        n_draws: Number of noise draws, for the hover text; by default not said.
    """

    answer: str
    clean: float
    corrupted: float
    subject_positions: Collection[int]
    n_draws: int | None = None


def trace_heatmap(
    frame: pd.DataFrame,
    traced: Traced,
    *,
    kind: str = "resid",
    window: int = 1,
    severed: str | None = None,
    warning: str | None = None,
    title: str | None = None,
) -> go.Figure:
    """P(answer) after restoring one state, for every token (down) and layer (across).

    Colours run from the corrupted to the clean probability; values beyond keep the end
    colour. Tokens of the subject carry a star.

    Args:
        frame: Columns `pos, token, layer, mean, low, high`, one row per cell; probabilities
            in 0..1, the interval over noise draws.
        traced: What was traced: answer, probabilities, positions of the subject.
        kind: What is restored: a key of `STATES`, or words of your own.
        window: Number of layers restored together, where outputs are restored.
        severed: Whose outputs were held at their corrupted values, likewise.
        warning: A remark, put after the second line.
        title: Replaces the default title.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    held = f", {STATES.get(severed, severed)}s held" if severed else ""
    grid, labels = cell_grid(frame, traced)
    bottom, top = sorted((traced.clean, traced.corrupted))
    heatmap = go.Heatmap(
        **grid,
        zmin=bottom,
        zmax=max(top, bottom + 1e-6),
        colorscale=SEQUENTIAL,
        colorbar={"title": {"text": f"P({token_label(traced.answer)})"}},
    )
    figure = go.Figure(heatmap)
    across = "layer that is restored"
    if kind != "resid" and window > 1:
        across = f"layer, middle of the {window} restored"
    figure.update_xaxes(title_text=across, **layers_across(frame))
    height, letters = of_rows(len(labels), 26, 150)
    figure.update_yaxes(**token_axis(grid["y"], labels, letters))
    return themed(
        figure,
        title or f"P({traced.answer.strip()}) after restoring the {STATES.get(kind, kind)}{held}",
        f"clean {traced.clean:.3f}, corrupted {traced.corrupted:.3f};  * subject"
        + (f";  {warning}" if warning else ""),
        height=height,
    )


def trace_panels(frames: Mapping[str, pd.DataFrame], traced: Traced) -> go.Figure:
    """Several traces of one prompt side by side, with one colour axis for all.

    Args:
        frames: Name of the panel -> its table, as in `trace_heatmap`.
        traced: What was traced, the same in all.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    figure = make_subplots(
        rows=1,
        cols=len(frames),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[text(name) for name in frames],
    )
    longest: list[str] = []
    height = 0
    for column, frame in enumerate(frames.values(), start=1):
        grid, labels = cell_grid(frame, traced)
        figure.add_heatmap(**grid, coloraxis="coloraxis", row=1, col=column)
        figure.update_xaxes(
            title_text="layer", **layers_across(frame, panels=len(frames)), col=column
        )
        if len(labels) > len(longest):
            longest = labels
            height, letters = of_rows(len(labels), 26, 170)
            figure.update_yaxes(**token_axis(grid["y"], labels, letters))
    bottom, top = sorted((traced.clean, traced.corrupted))
    figure = themed(
        figure,
        f"P({traced.answer.strip()}) after restoring one state",
        f"clean {traced.clean:.3f}, corrupted {traced.corrupted:.3f};  * subject",
        height=height,
    )
    label = f"P({token_label(traced.answer)})"
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"text": label}}
    return figure.update_layout(
        coloraxis={
            "cmin": bottom,
            "cmax": max(top, bottom + 1e-6),
            "colorscale": SEQUENTIAL,
            "colorbar": bar,
        }
    )


def cell_grid(
    frame: pd.DataFrame, traced: Traced, *, digits: int = 3
) -> tuple[dict[str, Any], list[str]]:
    """What a heatmap of a trace's table holds, and the labels of its rows."""
    tokens = require_columns(frame, CELL).drop_duplicates("pos").set_index("pos")["token"]
    mean, low, high = (frame.pivot(index="pos", columns="layer", values=v) for v in CELL[3:])
    labels = [
        token_label(tokens[pos]) + (" *" if pos in traced.subject_positions else "")
        for pos in mean.index
    ]
    draws = f" over {traced.n_draws} noise draws" if traced.n_draws else ""
    return {
        "z": mean.to_numpy(),
        "x": mean.columns.to_numpy(),
        "y": list(mean.index),
        # One label per cell: hover shows the token, although the axis counts positions.
        "text": [[label] * mean.shape[1] for label in labels],
        "customdata": np.stack([low.to_numpy(), high.to_numpy()], axis=-1),
        "hovertemplate": (
            f"%{{text}}, layer %{{x}}<br>%{{z:.{digits}f}} [%{{customdata[0]:.{digits}f}}, "
            f"%{{customdata[1]:.{digits}f}}]{draws}<extra></extra>"
        ),
    }, labels


def token_axis(positions: Collection[int], labels: list[str], letters: int = 13) -> dict[str, Any]:
    """Tokens from the top, by position, in letters of a size."""
    return {
        "tickfont": {"size": letters},
        "autorange": "reversed",
        "tickvals": list(positions),
        "ticktext": labels,
        "showgrid": False,
    }


def layers_across(frame: pd.DataFrame, panels: int = 1) -> dict[str, Any]:
    """The layers across, with fewer ticks where there are several panels."""
    n_layers = frame["layer"].nunique()
    return layer_axis(n_layers) | {"dtick": -(-n_layers * panels // 16), "showgrid": False}


def trace_curves(
    frames: Mapping[str, pd.DataFrame],
    *,
    positions: Mapping[str, int] | int,
    title: str = "P(answer) after restoring the last subject token",
    subtitle: str | None = None,
) -> go.Figure:
    """P(answer) by layer at one position, with its interval, one curve per trace.

    Args:
        frames: Name of the trace (`"before"`, `"after"`) -> its table, as in
            `trace_heatmap`. A name may say which answer is meant.
        positions: The `pos` to show, one for all traces or one each: usually the last
            token of the subject.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing, or a table has no row at its position.
    """
    figure = go.Figure()
    for index, (name, frame) in enumerate(frames.items()):
        pos = positions if isinstance(positions, int) else positions[name]
        rows = require_columns(frame, CELL)
        rows = require_columns(rows[rows["pos"] == pos], CELL).sort_values("layer")
        colour = COLOURS[index % len(COLOURS)]
        add_curve(figure, rows, name=name, colour=colour, symbol=SYMBOLS[index % 3])
    figure.update_layout(hovermode="x unified")
    n_layers = max(frame["layer"].nunique() for frame in frames.values())
    figure.update_xaxes(title_text="layer", **layer_axis(n_layers))
    figure.update_yaxes(title_text="P(answer)", rangemode="tozero")
    return themed(figure, title, subtitle, legend=len(frames) > 1)


def add_curve(
    figure: go.Figure,
    rows: pd.DataFrame,
    *,
    name: str,
    colour: str,
    symbol: str = "circle",
    **where: Any,
) -> None:
    """A line of means by layer with the band of its interval, as one entry of the legend.

    Args:
        figure: Changed in place.
        rows: Columns `layer, mean, low, high`, in the order of the layers.
        name: What the legend and the hover text call it.
        colour: Of the line, and lighter of the band.
        symbol: Of the markers.
        **where: `row` and `col` of the panel, where there are several.
    """
    add_band(figure, rows["layer"], rows["low"], rows["high"], colour, group=name, **where)
    figure.add_scatter(
        x=rows["layer"],
        y=rows["mean"],
        name=text(name),
        legendgroup=name,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5, "symbol": symbol},
        customdata=rows[["low", "high"]].to_numpy(),
        hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        **where,
    )
