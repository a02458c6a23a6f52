"""Pictures of learning in context: what demonstrations do, by how many there are."""

import textwrap

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    interval_bars,
    of_rows,
    require_columns,
    text,
    themed,
)
from labkit.stats import numpy_generator

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
DASHES = ("solid", "dot", "dash")
SPREAD, APART = 0.3, 0.06
"""Side by side, in steps of the axis: the width of all conditions, the distance of two at most."""


def measure_by_k(
    frame: pd.DataFrame,
    *,
    measure: str,
    title: str,
    levels: dict[str, float] | None = None,
    subtitle: str | None = None,
) -> go.Figure:
    """A measure against the number of demonstrations, one line per condition, with intervals.

    Numbers stand at even steps, so that 0, 1, 2, 4, 8 are as far from each other.

    Args:
        frame: Columns `condition, k, mean, low, high` (the measure, 0..1), `least, most` (its
            range over draws), one row per point.
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
        apart = min(APART, SPREAD / max(1, len(conditions) - 1))
        shift = apart * (number - (len(conditions) - 1) / 2)
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
    highest = max(float(frame["high"].max()), *(levels or {}).values(), 1e-9)
    figure.update_yaxes(title_text=text(measure), range=[-0.03 * highest, 1.05 * highest])
    lines = -(-(len(conditions) + len(levels or {})) // 3)  # of the legend
    return themed(figure, title, subtitle, height=HEIGHT + 40 + 20 * lines, legend=True)


def measure_by_row(
    frame: pd.DataFrame, *, measure: str, title: str, subtitle: str | None = None
) -> go.Figure:
    """A measure of several things (down), by colour and shape where each has several.

    Args:
        frame: Columns `row, series, mean, low, high` (the measure, 0..1), `n`; rows in the order
            in which they are drawn, from the top.
        measure: What is drawn, in words.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("row", "series", "mean", "low", "high", "n"))
    names, series = (list(dict.fromkeys(frame[column])) for column in ("row", "series"))
    figure = go.Figure()
    for number, own in enumerate(series):
        rows = frame[frame["series"] == own]
        colour = COLOURS[number % len(COLOURS)]
        shift = 0.6 * (number - (len(series) - 1) / 2) / len(series)
        figure.add_scatter(
            x=rows["mean"],
            y=[names.index(name) + shift for name in rows["row"]],
            name=text(own),
            mode="markers",
            marker={"color": colour, "size": 8, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            error_x=interval_bars(rows, colour, thickness=1.5, width=0),
            customdata=rows[["row", "low", "high", "n"]].to_numpy(),
            hovertemplate=(
                "%{customdata[0]}: %{x:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}], "
                "n=%{customdata[3]}"
            ),
        )
    most = max(1e-9, float(frame[["mean", "high"]].max(axis=None)))
    figure.update_xaxes(title_text=text(measure), range=[-0.03 * most, 1.03 * most])
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[text(name) for name in names],
        range=[len(names) - 0.5, -0.5],
    )
    height, letters = of_rows(len(names), 10 * len(series) + 14, 190, least=0)
    figure.update_yaxes(tickfont={"size": letters})
    return themed(figure, title, subtitle, height=height, legend=len(series) > 1)


def candidate_scatter(
    frame: pd.DataFrame,
    *,
    title: str,
    levels: dict[str, float] | None = None,
    subtitle: str | None = None,
) -> go.Figure:
    """Instructions by accuracy on the items that they were chosen on, and on others.

    Ties are drawn a little aside; the bar is the interval of the one that was chosen.

    Args:
        frame: Columns `candidate, development, mean, low, high` (accuracies, 0..1); the first
            row is the one that was chosen.
        title: Title of the figure.
        levels: Level lines to compare with, by name.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("candidate", "development", "mean", "low", "high"))
    aside = numpy_generator(0, "candidates").uniform(-0.006, 0.006, size=len(frame))
    frame = frame.assign(x=frame["development"] + aside)  # many tie
    figure = go.Figure()
    for number, (name, rows) in enumerate(
        {"proposed": frame.iloc[1:], "chosen": frame.iloc[:1]}.items()
    ):
        colour = COLOURS[number]
        labels = [text(textwrap.shorten(said, 70)) for said in rows["candidate"]]
        figure.add_scatter(
            x=rows["x"],
            y=rows["mean"],
            name=name,
            mode="markers",
            marker={"color": colour, "size": 9, "symbol": SYMBOLS[number]},
            error_y=interval_bars(rows, colour, thickness=1.5, width=0) if number else None,
            customdata=list(zip(labels, rows["low"], rows["high"], strict=True)),
            hovertemplate=(
                "%{customdata[0]}<br>%{y:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
                "<extra></extra>"
            ),
        )
    widest = (float(frame["development"].min()) - 0.02, float(frame["development"].max()) + 0.02)
    for dash, (name, level) in zip(DASHES[1:], (levels or {}).items(), strict=False):
        figure.add_scatter(
            x=widest,
            y=(level, level),
            name=text(name),
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": dash},
            hovertemplate="%{y:.3f}",
        )
    figure.update_xaxes(title_text="accuracy on the development items", range=widest)
    figure.update_yaxes(title_text="accuracy on the queries", rangemode="tozero")
    return themed(figure, title, subtitle, height=HEIGHT + 40, legend=True)


def order_strip(
    frame: pd.DataFrame, *, title: str, subtitle: str | None = None, seed: int = 0
) -> go.Figure:
    """Accuracy of every order of the same demonstrations, one column of points per set.

    Orders that an entropy criterion prefers are filled; the bar is the mean over orders.

    Args:
        frame: Columns `set, order, mean, low, high` (accuracy, 0..1), `preferred`; a row per point.
        title: Title of the figure.
        subtitle: A second line.
        seed: Seed of the sideways scatter, which means nothing.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("set", "order", "mean", "low", "high", "preferred"))
    sets = sorted(frame["set"].unique())
    aside = numpy_generator(seed, "strip").uniform(-0.25, 0.25, size=len(frame))
    placed = frame.assign(x=[sets.index(number) for number in frame["set"]] + aside)
    figure = go.Figure()
    for preferred, name, symbol in (
        (False, "an order", "circle-open"),
        (True, "preferred by entropy", "circle"),
    ):
        rows = placed[placed["preferred"] == preferred]
        figure.add_scatter(
            x=rows["x"],
            y=rows["mean"],
            name=name,
            mode="markers",
            marker={"color": COLOURS[int(preferred)], "size": 8, "symbol": symbol},
            customdata=rows[["order", "low", "high"]].to_numpy(),
            hovertemplate=(
                "order %{customdata[0]}: %{y:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
                "<extra></extra>"
            ),
        )
    for place, number in enumerate(sets):
        mean = frame.loc[frame["set"] == number, "mean"].mean()
        figure.add_scatter(
            x=[place - 0.32, place + 0.32],
            y=[mean, mean],
            name="mean over orders",
            mode="lines",
            line={"color": INK, "width": 2},
            showlegend=place == 0,
            hovertemplate="mean %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(
        title_text="set of demonstrations",
        tickvals=list(range(len(sets))),
        ticktext=[str(number + 1) for number in sets],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(title_text="accuracy")
    return themed(figure, title, subtitle, height=HEIGHT + 40, legend=True)
