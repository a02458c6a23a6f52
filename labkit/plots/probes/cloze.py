"""Pictures of cloze probing by layer: what can be read at which depth, and with which lens."""

from dataclasses import dataclass

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    add_band,
    interval_bars,
    layer_axis,
    of_rows,
    require_columns,
    text,
    themed,
)

SYMBOLS = ("circle", "square", "diamond", "cross")
DASHES = ("solid", "dot", "dash", "dashdot")
DEPTH = "blocks passed through"


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """How a line is drawn.

    Attributes:
        colour: Of line and markers.
        symbol: The marker.
        dash: The line; a dotted one has no markers.
    """

    colour: str
    symbol: str = "circle"
    dash: str = "solid"


def cloze_precision(
    frame: pd.DataFrame,
    *,
    title: str = "Precision at k by depth",
    answer: str = "the answer",
    control: str = "another object",
) -> go.Figure:
    """Share of facts with the answer among the top k, by depth; the control dotted.

    Args:
        frame: Columns `reading, k, depth, mean, low, high` (shares in 0..1), `n`.
        title: Title of the figure.
        answer: The reading that is drawn in full.
        control: The reading that is drawn dotted, where there is one.

    Raises:
        InputError: If a column is missing, or there is no row of the answer.
    """
    require_columns(frame, ("reading", "k", "depth", "mean", "low", "high", "n"))
    rows = require_columns(frame[frame["reading"] == answer], ("k",))
    figure = go.Figure()
    for index, k in enumerate(sorted(rows["k"].unique())):
        colour = COLOURS[index % len(COLOURS)]
        curve = rows[rows["k"] == k].sort_values("depth")
        add_band(
            figure, curve["depth"], curve["low"], curve["high"], colour, alpha=0.18, group=f"{k}"
        )
        stroke = Stroke(colour=colour, symbol=SYMBOLS[index % len(SYMBOLS)])
        _line(figure, curve, f"top {k}", stroke, group=f"{k}")
        other = frame[(frame["reading"] == control) & (frame["k"] == k)].sort_values("depth")
        if len(other):
            name = f"{control}, top {k}"
            dotted = Stroke(colour=colour, dash="dot")
            _line(figure, other, name, dotted, group=f"{k}", legend=False)
    figure.update_layout(hovermode="x unified")
    _depths_across(figure, int(frame["depth"].max()))
    figure.update_yaxes(title_text="share of facts", range=[-0.02, 1.02])
    subtitle = f"full: {answer}, bands: 95 % over {int(rows['n'].max())} facts; dotted: {control}"
    return themed(figure, title, subtitle, height=HEIGHT + 60, legend=True)


def cloze_ranks(frame: pd.DataFrame, *, title: str = "Rank of the answer by depth") -> go.Figure:
    """Mean rank by depth on a logarithmic axis, best on top: the answer and its controls.

    Args:
        frame: Columns `reading, depth, mean, low, high` (1 is the top of the vocabulary), `n`.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("reading", "depth", "mean", "low", "high", "n"))
    figure = go.Figure()
    for index, (reading, rows) in enumerate(frame.groupby("reading", sort=False)):
        curve, colour = rows.sort_values("depth"), COLOURS[index % len(COLOURS)]
        group = str(reading)
        add_band(
            figure, curve["depth"], curve["low"], curve["high"], colour, alpha=0.18, group=group
        )
        stroke = Stroke(colour=colour, dash=DASHES[index % len(DASHES)])
        _line(figure, curve, group, stroke, group=group, digits=1)
    figure.update_layout(hovermode="x unified")
    _depths_across(figure, int(frame["depth"].max()))
    figure.update_yaxes(title_text="rank (1 is the top)", type="log", autorange="reversed", dtick=1)
    n = int(frame["n"].max())
    subtitle = f"geometric mean, bands: 95 % over {n} facts"
    return themed(figure, title, subtitle, height=HEIGHT + 40, legend=True)


def cloze_depths(
    frame: pd.DataFrame, *, n_layers: int, title: str = "From which depth on", relations: int = 24
) -> go.Figure:
    """By relation, the mean depth from which facts stay among the top k, with its interval.

    Args:
        frame: Columns `relation, k, facts, reach, mean, low, high` (depths), one row per relation
            and k. Relations where no fact reaches any k are left out.
        n_layers: Number of blocks.
        title: Title of the figure.
        relations: How many are drawn at most: those with most facts that reach the lowest k.

    Raises:
        InputError: If a column is missing, or no fact reaches any k.
    """
    rows = require_columns(frame, ("relation", "k", "facts", "reach", "mean", "low", "high"))
    rows = require_columns(rows[rows["reach"] > 0], ("relation",))
    ks = sorted(rows["k"].unique())
    said = rows[rows["k"] == ks[0]].sort_values("reach", ascending=False)["relation"]
    names = list(dict.fromkeys([*said, *rows["relation"]]))[:relations]
    order = rows[rows["relation"].isin(names)].groupby("relation")["mean"].mean().sort_values()
    names = [name for name in order.index if name != "all"]
    names += ["all"] * ("all" in order.index)
    figure = go.Figure()
    for index, k in enumerate(ks):
        own = rows[(rows["k"] == k) & rows["relation"].isin(names)]
        colour = COLOURS[index % len(COLOURS)]
        shift = 0.2 * (index - (len(ks) - 1) / 2)
        figure.add_scatter(
            x=own["mean"],
            y=[names.index(name) + shift for name in own["relation"]],
            name="the answer" if k == 1 else f"among the top {k}",
            mode="markers",
            marker={"color": colour, "size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            error_x=interval_bars(own, colour, width=0),
            customdata=own[["low", "high", "reach", "facts"]].to_numpy(),
            hovertemplate=(
                "%{x:.1f} [%{customdata[0]:.1f}, %{customdata[1]:.1f}], "
                "%{customdata[2]} of %{customdata[3]} facts<extra></extra>"
            ),
        )
    _depths_across(figure, n_layers)
    height, letters = of_rows(len(names), 24, 190, least=0)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[text(name) for name in names],
        tickfont={"size": letters},
        range=[-0.6, len(names) - 0.4],
    )
    subtitle = "mean over the facts that end there, 95 % intervals"
    return themed(figure, title, subtitle, height=height, legend=True)


def cloze_popularity(
    frame: pd.DataFrame, *, title: str = "Precision against popularity"
) -> go.Figure:
    """Share of facts with the answer among the top k, against the subject's popularity.

    Args:
        frame: Columns `popularity` (above 0), `k, mean, low, high, n`, one row per bin and k.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("popularity", "k", "mean", "low", "high", "n"))
    figure = go.Figure()
    for index, k in enumerate(sorted(frame["k"].unique())):
        rows = frame[frame["k"] == k].sort_values("popularity")
        colour = COLOURS[index % len(COLOURS)]
        figure.add_scatter(
            x=rows["popularity"],
            y=rows["mean"],
            name=f"top {k}",
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 7, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            error_y=interval_bars(rows, colour),
            customdata=rows[["low", "high", "n"]].to_numpy(),
            hovertemplate=(
                "%{x:.3s} views: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
                "n=%{customdata[2]}<extra></extra>"
            ),
        )
    figure.update_xaxes(title_text="page views of the subject, a month", type="log", dtick=1)
    figure.update_yaxes(title_text="share of facts", range=[-0.02, 1.02])
    subtitle = f"bins of about {int(frame['n'].median())} facts, 95 % intervals"
    return themed(figure, title, subtitle, height=HEIGHT + 20, legend=True)


def lens_quality_curves(
    frame: pd.DataFrame, *, title: str = "What a lens is worth, by depth"
) -> go.Figure:
    """KL from the model's next-token distribution to that of each lens, by depth.

    Args:
        frame: Columns `lens, depth, mean, low, high` (nats), `n` (texts).
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("lens", "depth", "mean", "low", "high", "n"))
    figure = go.Figure()
    for index, (lens, rows) in enumerate(frame.groupby("lens", sort=False)):
        curve, colour = rows.sort_values("depth"), COLOURS[index % len(COLOURS)]
        group = f"{lens} lens"
        add_band(
            figure, curve["depth"], curve["low"], curve["high"], colour, alpha=0.18, group=group
        )
        stroke = Stroke(colour=colour, symbol=SYMBOLS[index % len(SYMBOLS)])
        _line(figure, curve, group, stroke, group=group)
    figure.update_layout(hovermode="x unified")
    _depths_across(figure, int(frame["depth"].max()))
    figure.update_yaxes(title_text="KL(model || lens), nats", rangemode="tozero", zerolinecolor=INK)
    subtitle = f"held-out text, bands: 95 % over {int(frame['n'].max())} texts"
    return themed(figure, title, subtitle, height=HEIGHT + 20, legend=True)


def _line(
    figure: go.Figure,
    rows: pd.DataFrame,
    name: str,
    stroke: Stroke,
    *,
    group: str,
    digits: int = 3,
    legend: bool = True,
) -> None:
    """A line of means by depth, as one entry of the legend."""
    number = f".{digits}f"
    figure.add_scatter(
        x=rows["depth"],
        y=rows["mean"],
        name=text(name),
        legendgroup=group,
        showlegend=legend,
        mode="lines" if stroke.dash == "dot" else "lines+markers",
        line={"color": stroke.colour, "width": 2, "dash": stroke.dash},
        marker={"size": 5, "symbol": stroke.symbol},
        customdata=rows[["low", "high"]].to_numpy(),
        hovertemplate=(
            f"%{{y:{number}}} [%{{customdata[0]:{number}}}, %{{customdata[1]:{number}}}]"
        ),
    )


def _depths_across(figure: go.Figure, n_layers: int) -> None:
    """Whole depths, from the embedding to the last block."""
    figure.update_xaxes(title_text=DEPTH, **layer_axis(n_layers + 1))
