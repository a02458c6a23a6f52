"""Methods side by side: what they reach and spare, and every metric with its interval."""

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.errors import InputError
from labkit.plots.theme import COLOURS, INK, interval_bars, require_columns, text, themed

SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "star")
SHARES = ("score", "efficacy", "paraphrase", "neighbourhood", "attribute", "distractor")
COLUMNS = ("method", "reading", "metric", "mean", "low", "high")


def reach_and_spare(
    frame: pd.DataFrame, *, title: str = "Methods", unedited: str = "unedited"
) -> go.Figure:
    """Neighbourhood success against paraphrase success, one point per method, with intervals.

    The best place is the upper right: other words give the new object too, and other subjects
    keep theirs. Where no case has a paraphrase, the rewrite itself stands for it, and the axis
    says so. A dotted line marks what the unedited model does with the neighbours.

    Args:
        frame: Columns `method, reading, metric, mean, low, high`; shares in 0..1.
        title: Title of the figure.
        unedited: The row that is no method.

    Raises:
        InputError: If a column is missing, or no method has two metrics to show.
    """
    rows = require_columns(frame, COLUMNS)
    rows = rows[rows["reading"] == "success"].set_index(["method", "metric"])
    figure = go.Figure()
    reached = "paraphrase" if "paraphrase" in rows.index.get_level_values(1) else "efficacy"
    methods = [
        name
        for name in dict.fromkeys(frame["method"])
        if all((name, metric) in rows.index for metric in (reached, "neighbourhood"))
    ]
    if not set(methods) - {unedited}:
        raise InputError("no method has a neighbour: give the cases neighbours=[...]")
    for number, name in enumerate(name for name in methods if name != unedited):
        x, y = (rows.loc[[(name, metric)]] for metric in (reached, "neighbourhood"))
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(
            x=x["mean"],
            y=y["mean"],
            name=text(name),
            mode="markers",
            marker={
                "color": colour,
                "size": 11,
                "symbol": SYMBOLS[number // len(COLOURS) % len(SYMBOLS)],
            },
            error_x=interval_bars(x, colour, thickness=1.5, width=4),
            error_y=interval_bars(y, colour, thickness=1.5, width=4),
            customdata=[[*x[["low", "high"]].iloc[0], *y[["low", "high"]].iloc[0]]],
            hovertemplate=(
                f"{text(name)}<br>"
                f"{reached} "
                "%{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>"
                "neighbourhood %{y:.3f} [%{customdata[2]:.3f}, %{customdata[3]:.3f}]"
                "<extra></extra>"
            ),
        )
    if unedited in methods:
        figure.add_hline(
            rows.loc[(unedited, "neighbourhood"), "mean"],
            line={"dash": "dot", "color": INK, "width": 1.5},
            annotation_text=text(unedited),
            annotation_position="top right",
        )
    # Points in a corner of 0..1 could not be told apart: the axes fit what is shown.
    for update, metric in (
        (figure.update_xaxes, reached),
        (figure.update_yaxes, "neighbourhood"),
    ):
        shown = rows.xs(metric, level="metric")[["mean", "low", "high"]]
        line = shown.loc[shown.index == unedited, ["mean"]] if metric == "neighbourhood" else None
        shown = pd.concat([shown.drop(index=unedited, errors="ignore"), line])
        low = max(0.0, float(shown.min(axis=None)))
        high = min(1.0, float(shown.max(axis=None)))
        room = 0.05 * max(high - low, 0.05)
        remark = " (the cases have no paraphrases)" if metric == "efficacy" else ""
        update(title_text=f"{metric} success{remark}", range=[low - room, high + 2 * room])
    return themed(figure, title, height=460, legend=True)


def method_intervals(frame: pd.DataFrame, *, title: str = "Methods") -> go.Figure:
    """Every share of every method with its interval: one panel per metric, one row per method.

    Args:
        frame: Columns `method, reading, metric, mean, low, high`. Readings share a panel, and
            are told apart by colour; what is no share is left out.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or no row is a share.
    """
    rows = require_columns(frame, COLUMNS)
    rows = require_columns(rows[rows["metric"].isin(SHARES)], COLUMNS)
    metrics = [metric for metric in SHARES if metric in set(rows["metric"])]
    methods = list(dict.fromkeys(rows["method"]))
    readings = list(dict.fromkeys(rows["reading"]))
    n_columns = min(3, len(metrics))
    n_rows = -(-len(metrics) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        shared_yaxes=True,
        subplot_titles=[text(metric) for metric in metrics],
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / n_rows if n_rows > 1 else 0,
    )
    step = 0.22
    for number, reading in enumerate(readings):
        shift = (number - (len(readings) - 1) / 2) * step
        colour = COLOURS[number % len(COLOURS)]
        for place, metric in enumerate(metrics):
            own = rows[(rows["reading"] == reading) & (rows["metric"] == metric)]
            figure.add_scatter(
                x=own["mean"],
                y=[methods.index(name) + shift for name in own["method"]],
                name=text(reading),
                legendgroup=reading,
                showlegend=place == 0,
                mode="markers",
                marker={"color": colour, "size": 7},
                error_x=interval_bars(own, colour, width=0),
                customdata=list(zip(own["method"].map(text), own["low"], own["high"], strict=True)),
                hovertemplate=(
                    f"%{{customdata[0]}}, {text(metric)}, {text(reading)}: %{{x:.3f}} "
                    "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>"
                ),
                row=place // n_columns + 1,
                col=place % n_columns + 1,
            )
    figure.update_xaxes(range=[-0.03, 1.03], tickvals=[0, 0.5, 1])
    figure.update_yaxes(
        range=[len(methods) - 0.5, -0.5],
        tickvals=list(range(len(methods))),
        ticktext=[text(name) for name in methods],
    )
    height = 150 + n_rows * (70 + 26 * len(methods))
    return themed(figure, title, height=height, legend=True)
