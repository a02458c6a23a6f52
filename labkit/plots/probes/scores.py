"""Pictures of probes: score and controls by depth, the map of tasks, what a removal does."""

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    SEQUENTIAL,
    add_band,
    interval_bars,
    layer_axis,
    of_rows,
    require_columns,
    text,
    themed,
    translucent,
)

READINGS = {
    "score": ("the probe", COLOURS[0], "circle"),
    "twin": ("random weights", COLOURS[3], "diamond"),
    "control": ("control task", COLOURS[1], "square"),
    "shuffled": ("shuffled labels", COLOURS[4], "x"),
}
"""What is measured at every depth: its name, colour and marker."""

BASELINES = {
    "majority": ("majority", "dot"),
    "form": ("word form", "dash"),
    "bag": ("bag of words", "dashdot"),
    "chain": ("each word on the one before", "dash"),
}
"""What has one value for all depths: its name and line."""


def probe_curves(
    frame: pd.DataFrame, *, measure: str, title: str, subtitle: str | None = None
) -> go.Figure:
    """Score by depth with its interval, the controls, and the baselines as level lines.

    Args:
        frame: Columns `depth, reading, mean, low, high`; readings are keys of `READINGS` and
            `BASELINES`.
        measure: What a score is: "accuracy" or "R²".
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("depth", "reading", "mean", "low", "high"))
    figure = go.Figure()
    for reading, (name, colour, symbol) in READINGS.items():
        rows = frame[frame["reading"] == reading].sort_values("depth")
        if rows.empty:
            continue
        add_band(figure, rows["depth"], rows["low"], rows["high"], colour, group=reading)
        figure.add_scatter(
            x=rows["depth"],
            y=rows["mean"],
            name=name,
            legendgroup=reading,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5, "symbol": symbol},
            customdata=rows[["low", "high"]].to_numpy(),
            hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        )
    for reading, (name, dash) in BASELINES.items():
        rows = frame[frame["reading"] == reading].sort_values("depth")
        if rows.empty:
            continue
        figure.add_scatter(
            x=rows["depth"],
            y=rows["mean"],
            name=name,
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": dash},
            hovertemplate="%{y:.3f}",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="depth", **_depth_axis(frame["depth"]))
    figure.update_yaxes(title_text=measure)
    return themed(figure, title, subtitle, height=HEIGHT + 60, legend=True)


def probe_map_heatmap(
    frame: pd.DataFrame,
    centres: pd.DataFrame,
    *,
    title: str,
    subtitle: str | None = None,
) -> go.Figure:
    """Tasks down, depths across: how much of what the majority leaves open the probe reads.

    The colour is (score - majority) / (1 - majority), so that tasks of different numbers of
    classes compare: 1 is perfect, 0 the majority or below. A diamond marks each task's arrival,
    or another centre, a bar its interval. Families are set apart by their names.

    Args:
        frame: Columns `task, family, depth, share` (the colour), `score, low, high, baseline`
            (the strongest), `selectivity, compression`, one row per cell, tasks in the order in
            which they are drawn.
        centres: Columns `task, mean, low, high` (depths), one row for each task that has one.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("share", "score", "low", "high", "baseline", "selectivity", "compression")
    require_columns(frame, ("task", "family", "depth", *columns))
    tasks = list(dict.fromkeys(frame["task"]))
    wide = {
        column: frame.pivot(index="task", columns="depth", values=column).loc[tasks]
        for column in columns
    }
    share = wide["share"].clip(lower=0.0)
    family = frame.drop_duplicates("task").set_index("task")["family"]
    labels = [f"{text(task)} <i>({text(family[task])})</i>" for task in tasks]
    hover = np.stack([wide[column].to_numpy(dtype=float) for column in columns[1:]], axis=-1)
    depths = [int(depth) for depth in share.columns]
    figure = go.Figure(
        go.Heatmap(
            z=share.to_numpy(),
            x=depths,
            y=labels,
            customdata=hover,
            zmin=0,
            zmax=1,
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "read"}},
            hovertemplate=(
                "%{y}, depth %{x}<br>score %{customdata[0]:.3f} "
                "[%{customdata[1]:.3f}, %{customdata[2]:.3f}], baseline %{customdata[3]:.3f}<br>"
                "selectivity %{customdata[4]:.3f}, compression %{customdata[5]:.2f}<extra></extra>"
            ),
        )
    )
    if not centres.empty:
        require_columns(centres, ("task", "mean", "low", "high"))
        figure.add_scatter(
            x=centres["mean"],
            y=[labels[tasks.index(task)] for task in centres["task"]],
            error_x=interval_bars(centres, COLOURS[1], thickness=2.5, width=4),
            mode="markers",
            marker={
                "symbol": "diamond",
                "size": 11,
                "color": COLOURS[1],
                "line": {"color": "#ffffff", "width": 1.5},
            },
            customdata=centres[["low", "high"]].to_numpy(),
            hovertemplate=("%{x:.1f} [%{customdata[0]:.1f}, %{customdata[1]:.1f}]<extra></extra>"),
        )
    figure.update_xaxes(title_text="depth", showgrid=False, **_depth_axis(frame["depth"]))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return themed(figure, title, subtitle, height=of_rows(len(tasks), 30, 150, least=320)[0])


def removal_bars(
    frame: pd.DataFrame, *, measures: dict[str, str], title: str, subtitle: str | None = None
) -> go.Figure:
    """What an intervention does beside its placebo, with intervals, one group per measure.

    Args:
        frame: Columns `intervention, measure, mean, low, high, n`, one row per bar.
        measures: What each measure is called, in the order in which they are drawn.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("intervention", "measure", "mean", "low", "high", "n"))
    figure = go.Figure()
    shown = [measure for measure in measures if measure in set(frame["measure"])]
    for place, intervention in enumerate(dict.fromkeys(frame["intervention"])):
        rows = frame[frame["intervention"] == intervention].set_index("measure").loc[shown]
        colour = (COLOURS[1], COLOURS[0], COLOURS[2])[place % 3]
        figure.add_bar(
            x=[text(measures[measure]) for measure in shown],
            y=rows["mean"],
            name=text(intervention),
            marker={
                "color": translucent(colour, 0.4),
                "line": {"color": colour, "width": 1.5},
            },
            error_y=interval_bars(rows, INK),
            customdata=rows[["low", "high", "n"]].to_numpy(),
            hovertemplate=(
                "%{x}: %{y:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}], n=%{customdata[2]}"
            ),
        )
    figure.add_hline(0, line={"color": INK, "width": 1})
    figure.update_layout(barmode="group", bargap=0.35)
    figure.update_xaxes(showgrid=False)
    return themed(figure, title, subtitle, legend=True)


def _depth_axis(depths: pd.Series) -> dict[str, object]:
    """Ticks on whole depths."""
    return layer_axis(int(depths.max()) + 1)
