"""Pictures of heads that are switched off: which they are, and what is lost with them."""

from collections.abc import Sequence

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.locate.heads import head_grids
from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    add_band,
    interval_bars,
    require_columns,
    text,
    themed,
)

FRAME = "#111111"
"""Of the squares around heads: read on every colour of a cell, whatever the page."""

ACROSS = 3
"""Panels side by side at most."""


def head_columns(frame: pd.DataFrame, column: str, names: Sequence[str]) -> pd.DataFrame:
    """One row per head, as `head_grids` takes it, of a table with one row per head and name.

    Args:
        frame: Columns `layer, head, mean, low, high` and the one that holds the names.
        column: That one.
        names: Those that are kept, each as `NAME, NAME_low, NAME_high`.
    """
    wide = frame.pivot(index=["layer", "head"], columns=column)
    columns = {name: wide["mean", name] for name in names}
    for name in names:
        columns |= {f"{name}_low": wide["low", name], f"{name}_high": wide["high", name]}
    return pd.DataFrame(columns).reset_index()


def ablated_heads(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """Every head of every layer, one panel per kind, the heads that were switched off framed.

    Args:
        frame: Columns `kind, layer, head, mean, low, high` (score, 0..1), `off`.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("kind", "layer", "head", "mean", "low", "high", "off"))
    kinds = list(dict.fromkeys(frame["kind"]))
    figure = head_grids(
        head_columns(frame, "kind", kinds),
        {kind: kind for kind in kinds},
        title=title,
        subtitle=subtitle,
        shared=True,
    )
    for column, kind in enumerate(kinds, start=1):
        off = frame[(frame["kind"] == kind) & frame["off"]]
        figure.add_scatter(
            x=off["head"],
            y=off["layer"],
            mode="markers",
            marker={"symbol": "square-open", "size": 11, "color": FRAME, "line": {"width": 2}},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=column,
        )
    return figure


def loss_by_position(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """Loss of every token by its position, one curve for each set of heads that is off.

    Args:
        frame: Columns `heads` (what is off), `random` (whether as many random heads were),
            `pos`, `mean`, `low`, `high` (nats).
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("heads", "random", "pos", "mean", "low", "high"))
    figure = go.Figure()
    names = list(dict.fromkeys(frame["heads"]))
    for name, colour in zip(names, (INK, *COLOURS), strict=False):
        for random in (True, False):
            rows = frame[(frame["heads"] == name) & (frame["random"] == random)].sort_values("pos")
            if rows.empty:
                continue
            called = f"random, for {name}" if random else f"{name} off"
            if not random:
                add_band(figure, rows["pos"], rows["low"], rows["high"], colour, group=called)
            figure.add_scatter(
                x=rows["pos"],
                y=rows["mean"],
                name=text(called),
                legendgroup=called,
                mode="lines",
                line={
                    "color": colour,
                    "width": 1.5 if random else 2,
                    "dash": "dot" if random else "solid",
                },
                customdata=rows[["low", "high"]].to_numpy(),
                hovertemplate="%{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}] nats",
            )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="position of the token", zeroline=False)
    figure.update_yaxes(title_text="loss in nats", rangemode="tozero")
    return themed(figure, title, subtitle, height=HEIGHT + 100, legend=True)


def ablation_intervals(
    frame: pd.DataFrame, *, title: str, subtitle: str | None = None
) -> go.Figure:
    """Measures with some heads off beside random heads, one panel per measure.

    Args:
        frame: Columns `panel, heads, intact` (nothing off), `change, change_low, change_high`
            (these off), `random, random_low, random_high` (random heads off), one row per measure
            and what is off.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    own, random = ["change", "change_low", "change_high"], ["random", "random_low", "random_high"]
    require_columns(frame, ("panel", "heads", "intact", *own, *random))
    panels, sets = list(dict.fromkeys(frame["panel"])), list(dict.fromkeys(frame["heads"]))
    down = -(-len(panels) // ACROSS)
    tall = 34 * len(sets) + 40
    gap = 90
    plot = down * tall + (down - 1) * gap
    figure = make_subplots(
        rows=down,
        cols=min(ACROSS, len(panels)),
        shared_yaxes=True,
        subplot_titles=[text(panel).replace(": ", "<br>") for panel in panels],
        horizontal_spacing=0.05,
        vertical_spacing=gap / plot if down > 1 else 0,
    )
    for number, panel in enumerate(panels):
        where = {"row": number // ACROSS + 1, "col": number % ACROSS + 1}
        rows = frame[frame["panel"] == panel].set_index("heads").loc[sets]
        for columns, name, colour, symbol, up in (
            (own, "these heads off", COLOURS[1], "circle", -0.14),
            (random, "as many random heads off", INK, "diamond", 0.14),
        ):
            changes = rows[columns].set_axis(["mean", "low", "high"], axis=1)
            points = changes.add(rows["intact"], axis=0)
            figure.add_scatter(
                x=points["mean"],
                y=[place + up for place in range(len(sets))],
                name=name,
                mode="markers",
                marker={"color": colour, "size": 9, "symbol": symbol},
                error_x=interval_bars(points, colour, width=0),
                customdata=changes.to_numpy(),
                hovertemplate=(
                    "%{x:.3f}, change %{customdata[0]:+.3f} "
                    "[%{customdata[1]:+.3f}, %{customdata[2]:+.3f}]"
                ),
                legendgroup=name,
                showlegend=number == 0,
                **where,
            )
        intact = float(rows["intact"].iloc[0])
        figure.add_scatter(
            x=[intact, intact],
            y=[-0.5, len(sets) - 0.5],
            name="nothing off",
            mode="lines",
            line={"color": COLOURS[0], "width": 2},
            hovertemplate="nothing off: %{x:.3f}<extra></extra>",
            legendgroup="nothing off",
            showlegend=number == 0,
            **where,
        )
        figure.update_yaxes(
            tickvals=list(range(len(sets))),
            ticktext=[text(name) for name in sets],
            range=[len(sets) - 0.5, -0.5],
            showgrid=False,
            zeroline=False,
            **where,
        )
        if "accuracy" in panel:
            figure.update_xaxes(range=[-0.03, 1.03], **where)
    figure.update_xaxes(nticks=5, zeroline=False)
    return themed(figure, title, subtitle, height=plot + 190, legend=True)
