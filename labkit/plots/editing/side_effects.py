"""Pictures of side effects: changes with their intervals, and minimal pairs by phenomenon."""

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import (
    COLOURS,
    INK,
    interval_bars,
    require_columns,
    text,
    themed,
    translucent,
)

_ROW = 32  # pixels of a metric's row
_AXIS = 64  # and of the ticks and the title below a panel


def change_intervals(frame: pd.DataFrame, *, title: str = "Side effects") -> go.Figure:
    """What changed, edited minus unedited: a dot with interval per metric, one panel per measure.

    Args:
        frame: Columns `metric`, `measure` ("share", "nats per token"...: metrics of one
            measure share an axis), `change, low, high`, and for hovering `unedited, edited,
            n, unit`.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("metric", "measure", "change", "low", "high", "unedited", "edited", "n", "unit")
    require_columns(frame, columns)
    measures = list(dict.fromkeys(frame["measure"]))
    counts = [int((frame["measure"] == measure).sum()) for measure in measures]
    plotted = sum(_ROW * count for count in counts) + _AXIS * (len(measures) - 1)
    figure = make_subplots(
        rows=len(measures),
        cols=1,
        row_heights=[float(count) for count in counts],
        vertical_spacing=_AXIS / plotted if len(measures) > 1 else 0.0,
    )
    for row, measure in enumerate(measures, start=1):
        rows = frame[frame["measure"] == measure]
        figure.add_scatter(
            x=rows["change"],
            y=[text(metric) for metric in rows["metric"]],
            mode="markers",
            marker={"color": COLOURS[1], "size": 9},
            error_x=interval_bars(rows, COLOURS[1], centre="change"),
            customdata=rows[["low", "high", "unedited", "edited", "n", "unit"]].to_numpy(),
            hovertemplate=(
                "%{y}: %{x:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]<br>"
                "unedited %{customdata[2]:.4f}, edited %{customdata[3]:.4f}<br>"
                "n=%{customdata[4]} (%{customdata[5]})<extra></extra>"
            ),
            row=row,
            col=1,
        )
        reach = max(1e-3, float(rows[["change", "low", "high"]].abs().max(axis=None)))
        figure.update_xaxes(
            title_text=f"change, {text(measure)}",
            range=[-1.15 * reach, 1.15 * reach],
            zeroline=True,
            zerolinecolor=INK,
            nticks=7,
            row=row,
            col=1,
        )
        figure.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=False, row=row, col=1)
    return themed(
        figure, title, "edited minus unedited; 95 % intervals", height=plotted + 80 + _AXIS
    )


def phenomena_bars(frame: pd.DataFrame, *, title: str = "Minimal pairs") -> go.Figure:
    """Accuracy on minimal pairs by phenomenon with intervals; chance is 1/2.

    Args:
        frame: Columns `phenomenon, share, low, high, n`; and `state` for more than one.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("phenomenon", "share", "low", "high", "n"))
    if "state" not in frame:
        frame = frame.assign(state="")
    states = list(dict.fromkeys(frame["state"]))
    figure = go.Figure()
    for index, state in enumerate(states):
        rows = frame[frame["state"] == state]
        colour = COLOURS[index % len(COLOURS)]
        figure.add_bar(
            x=rows["share"],
            y=[text(name) for name in rows["phenomenon"]],
            orientation="h",
            name=text(state),
            marker={"color": translucent(colour, 0.4), "line": {"color": colour, "width": 1.5}},
            error_x=interval_bars(rows, colour, centre="share", width=4),
            customdata=rows[["low", "high", "n"]].to_numpy(),
            hovertemplate=(
                "%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
                "n=%{customdata[2]}<extra></extra>"
            ),
        )
    figure.add_vline(
        0.5,
        line={"dash": "dot", "color": INK, "width": 1.5},
        annotation_text="chance",
        annotation_position="top",
    )
    figure.update_xaxes(
        title_text="share of pairs whose good sentence is likelier", range=[0, 1.02]
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(barmode="group", bargap=0.25)
    n_rows = frame["phenomenon"].nunique() * len(states)
    return themed(figure, title, height=150 + 24 * n_rows, legend=len(states) > 1)
