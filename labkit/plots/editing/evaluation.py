"""Pictures of what an edit did: next tokens and metrics, before and after."""

from collections.abc import Mapping

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    interval_bars,
    require_columns,
    text,
    themed,
    token_label,
    translucent,
)


def predictions_bar(frame: pd.DataFrame, *, title: str = "Next token") -> go.Figure:
    """The most probable next tokens, one panel per state of the model, side by side.

    Args:
        frame: Columns `token, probability` (0..1) and, for more than one panel, `state`
            (`"before"`, `"after"`). Rows of a state are drawn in descending probability.
        title: Title of the figure; usually the prompt.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("token", "probability"))
    if "state" not in frame:
        frame = frame.assign(state="")
    states = list(dict.fromkeys(frame["state"]))
    figure = make_subplots(
        rows=1,
        cols=len(states),
        shared_xaxes="all",
        subplot_titles=[text(state) for state in states],
        horizontal_spacing=0.2,
    )
    for column, state in enumerate(states, start=1):
        rows = frame[frame["state"] == state].sort_values("probability", ascending=False)
        places = list(range(len(rows)))
        figure.add_bar(
            x=rows["probability"],
            y=places,
            orientation="h",
            marker={"color": COLOURS[(column - 1) % len(COLOURS)]},
            text=[f"{p:.3f}" if p >= 0.0005 else "<0.001" for p in rows["probability"]],
            textposition="outside",
            textfont={"color": INK},
            cliponaxis=False,
            customdata=[token_label(token, 60) for token in rows["token"]],
            hovertemplate="%{customdata}: %{x:.4f}<extra></extra>",
            row=1,
            col=column,
        )
        labels = [token_label(token) for token in rows["token"]]
        figure.update_yaxes(
            autorange="reversed",
            tickvals=places,
            ticktext=labels,
            showgrid=False,
            row=1,
            col=column,
        )
    figure.update_xaxes(title_text="probability", range=[0, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_layout(bargap=0.25)
    deepest = frame["state"].value_counts().max()
    return themed(figure, title, height=max(280, 160 + 26 * int(deepest)))


def metrics_bars(
    frame: pd.DataFrame,
    *,
    title: str = "Audit of the edit",
    subtitle: str | None = None,
    chance: Mapping[str, float] | None = None,
) -> go.Figure:
    """Metrics of the unedited and the edited model with their intervals, one panel per reading.

    Args:
        frame: Columns `reading` (`"success"`, `"argmax accuracy"`, `"generation"`),
            `metric` (`"efficacy"`, `"paraphrase"`...), `state` (`"unedited"`, `"edited"`),
            `mean, low, high`, all in 0..1; optional `n`, the number of cases.
        title: Title of the figure.
        subtitle: Replaces the second line, which says what the intervals are over.
        chance: Reading -> the level of a model that knows nothing, drawn as a dotted line.

    Raises:
        InputError: If a column is missing, there are no rows, or `chance` names a reading
            that is not in the table.
    """
    require_columns(frame, ("reading", "metric", "state", "mean", "low", "high"))
    readings, states = (list(dict.fromkeys(frame[column])) for column in ("reading", "state"))
    widths = [frame[frame["reading"] == reading]["metric"].nunique() for reading in readings]
    figure = make_subplots(
        rows=1,
        cols=len(readings),
        shared_yaxes=True,
        subplot_titles=[text(reading) for reading in readings],
        column_widths=[width / sum(widths) for width in widths],
        horizontal_spacing=0.04,
    )
    for column, reading in enumerate(readings, start=1):
        for index, state in enumerate(states):
            rows = frame[(frame["reading"] == reading) & (frame["state"] == state)]
            colour = COLOURS[index % len(COLOURS)]
            n = rows["n"] if "n" in rows else pd.Series(["?"] * len(rows))
            figure.add_bar(
                x=[text(metric) for metric in rows["metric"]],
                y=rows["mean"],
                name=text(state),
                legendgroup=state,
                showlegend=column == 1,
                # A pale bar: its interval, in the full colour, is seen in front of it.
                marker={
                    "color": translucent(colour, 0.4),
                    "line": {"color": colour, "width": 1.5},
                },
                error_y=interval_bars(rows, colour),
                customdata=list(zip(rows["low"], rows["high"], n, strict=True)),
                hovertemplate=(
                    f"{text(state)} %{{x}}: %{{y:.3f}} [%{{customdata[0]:.3f}}, "
                    "%{customdata[1]:.3f}], n=%{customdata[2]}<extra></extra>"
                ),
                row=1,
                col=column,
            )
    for reading, level in (chance or {}).items():
        column = _place(reading, readings)
        figure.add_hline(
            level,
            line={"dash": "dot", "color": INK, "width": 1.5},
            annotation_text="chance",
            annotation_position="top left",
            row=1,
            col=column,
        )
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.06)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(range=[0, 1.04], tickvals=[0, 0.25, 0.5, 0.75, 1])
    return themed(figure, title, subtitle, height=HEIGHT, legend=True)


def _place(reading: str, readings: list[str]) -> int:
    require_columns(pd.DataFrame(columns=readings, index=[0]), [reading])
    return readings.index(reading) + 1
