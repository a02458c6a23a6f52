"""Pictures of vectors from demonstrations, answers by layer, and what a demonstration is worth."""

import math
from collections.abc import Mapping

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.icl.demonstrations import DASHES
from labkit.plots.locate.tracing import SYMBOLS, add_curve
from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    SEQUENTIAL,
    interval_bars,
    layer_axis,
    require_columns,
    text,
    themed,
    translucent,
)
from labkit.stats import Estimate

PANELS_ACROSS = 2
WORTH_SYMBOLS = ("circle", "diamond", "square")


def vector_curves(
    frame: pd.DataFrame,
    *,
    reading: str,
    levels: Mapping[str, Estimate],
    chosen: int,
    title: str,
    subtitle: str | None = None,
) -> go.Figure:
    """A reading by the layer that a vector stands after, one curve per vector, with intervals.

    Args:
        frame: Columns `vector, layer, mean, low, high`, one row per point.
        reading: What is drawn, in words.
        levels: What there is without a vector, as level lines; intervals on hover.
        chosen: The layer that was chosen, marked.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("vector", "layer", "mean", "low", "high"))
    figure = go.Figure()
    ends = [-0.5, float(frame["layer"].max()) + 0.5]
    for (name, level), dash in zip(levels.items(), DASHES[1:], strict=True):
        figure.add_scatter(
            x=ends,
            y=[level.mean, level.mean],
            name=text(name),
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": dash},
            hovertemplate=f"{level}",
        )
    for number, vector in enumerate(dict.fromkeys(frame["vector"])):
        add_curve(
            figure,
            frame[frame["vector"] == vector].sort_values("layer"),
            name=vector,
            colour=COLOURS[number % len(COLOURS)],
            symbol=SYMBOLS[number % len(SYMBOLS)],
        )
    figure.add_vline(x=chosen, line={"color": INK, "width": 1})
    figure.add_annotation(
        x=chosen, y=1, yref="paper", yanchor="bottom", text="chosen", showarrow=False
    )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(
        title_text="layer that the vector stands after", **layer_axis(int(ends[1]) + 1)
    )
    figure.update_yaxes(title_text=text(reading), zerolinecolor=INK)
    return themed(figure, title, subtitle, height=HEIGHT + 80, legend=True)


def scale_map(
    frame: pd.DataFrame, *, reading: str, title: str, subtitle: str | None = None
) -> go.Figure:
    """A reading by scale and layer, intervals on hover.

    Args:
        frame: Columns `scale, layer, mean, low, high`, one row per cell.
        reading: What is drawn, in words.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("scale", "layer", "mean", "low", "high"))
    mean, low, high = (
        frame.pivot(index="scale", columns="layer", values=name) for name in ("mean", "low", "high")
    )
    figure = go.Figure(
        go.Heatmap(
            z=mean.to_numpy(),
            x=list(mean.columns),
            y=[f"× {scale:g}" for scale in mean.index],
            customdata=[
                [list(cell) for cell in zip(*row, strict=True)]
                for row in zip(low.to_numpy(), high.to_numpy(), strict=True)
            ],
            colorscale=SEQUENTIAL,
            hovertemplate=(
                "layer %{x}, %{y}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
                "<extra></extra>"
            ),
        )
    )
    figure.update_xaxes(
        title_text="layer that the vector stands after",
        showgrid=False,
        type="category",
        nticks=20,
    )
    figure.update_yaxes(title_text="scale", showgrid=False, type="category")
    return themed(
        figure, title, subtitle or reading, height=max(300, 190 + 36 * len(mean)), legend=False
    )


def trajectory_curves(
    frame: pd.DataFrame,
    panels: Mapping[str, str],
    *,
    title: str,
    subtitle: str | None = None,
) -> go.Figure:
    """Readings of the lens by layer, one panel per reading, one curve per number of demonstrations.

    Args:
        frame: Columns `reading, k, layer, mean, low, high`, one row per point.
        panels: Reading -> what its panel is called.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("reading", "k", "layer", "mean", "low", "high"))
    n_rows = -(-len(panels) // PANELS_ACROSS)
    figure = make_subplots(
        rows=n_rows,
        cols=min(PANELS_ACROSS, len(panels)),
        subplot_titles=[text(name) for name in panels.values()],
        horizontal_spacing=0.1,
        vertical_spacing=0.28 / n_rows,
    )
    ks = sorted(frame["k"].unique())
    for place, reading in enumerate(panels):
        row, column = divmod(place, PANELS_ACROSS)
        for number, k in enumerate(ks):
            own = frame[(frame["reading"] == reading) & (frame["k"] == k)].sort_values("layer")
            add_curve(
                figure,
                own,
                name=f"k = {k}",
                colour=COLOURS[number % len(COLOURS)],
                symbol=SYMBOLS[number % len(SYMBOLS)],
                row=row + 1,
                col=column + 1,
            )
            figure.data[-1].showlegend = place == 0
        if reading == "rank":
            figure.update_yaxes(
                type="log", dtick=1, autorange="reversed", row=row + 1, col=column + 1
            )
    axis = layer_axis(int(frame["layer"].max()) + 1)
    figure.update_xaxes(**axis | {"dtick": axis["dtick"] * 2})
    figure.update_xaxes(title_text="layer", row=n_rows)
    return themed(figure, title, subtitle, height=170 + 220 * n_rows, legend=True)


def worth_by_position(
    frame: pd.DataFrame, panels: Mapping[str, str], *, title: str, subtitle: str | None = None
) -> go.Figure:
    """What demonstrations are worth by where they stand, one panel per measure, with intervals.

    The line is the mean over sets; each point is one demonstration.

    Args:
        frame: Columns `set, position, demonstration`, and for every measure of `panels` its
            name, `NAME_low` and `NAME_high`, one row per demonstration.
        panels: Measure -> what its panel is called, in one line or two.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    ends = [f"{name}_{end}" for name in panels for end in ("low", "high")]
    require_columns(frame, ("set", "position", "demonstration", *panels, *ends))
    figure = make_subplots(
        rows=1,
        cols=len(panels),
        subplot_titles=[text(name).replace("\n", "<br>") for name in panels.values()],
        horizontal_spacing=0.09,
    )
    sets = sorted(frame["set"].unique())
    for column, (name, words) in enumerate(panels.items(), start=1):
        called = text(words.partition("\n")[0])
        colour = COLOURS[(column - 1) % len(COLOURS)]
        for place, number in enumerate(sets):
            rows = frame[frame["set"] == number]
            own = rows.rename(columns={f"{name}_low": "low", f"{name}_high": "high"})
            aside = 0.5 * (place / max(1, len(sets) - 1) - 0.5) if len(sets) > 1 else 0.0
            figure.add_scatter(
                x=rows["position"] + aside,
                y=rows[name],
                mode="markers",
                marker={
                    "size": 6,
                    "color": translucent(colour, 0.55),
                    "symbol": WORTH_SYMBOLS[(column - 1) % len(WORTH_SYMBOLS)],
                },
                error_y=interval_bars(
                    own, translucent(colour, 0.35), centre=name, thickness=1, width=0
                ),
                customdata=own[["demonstration", "low", "high"]].map(_shown).to_numpy(),
                hovertemplate=(
                    f"set {number}: %{{customdata[0]}}<br>%{{y:+.3f}} "
                    "[%{customdata[1]}, %{customdata[2]}]<extra></extra>"
                ),
                showlegend=False,
                row=1,
                col=column,
            )
        means = frame.groupby("position")[name].mean()
        figure.add_scatter(
            x=means.index,
            y=means,
            mode="lines",
            line={"color": colour, "width": 2},
            hovertemplate=f"mean {called} at %{{x}}: %{{y:+.3f}}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
    figure.update_xaxes(title_text="position", dtick=1, showgrid=False)
    figure.update_yaxes(zeroline=True, zerolinecolor=INK)
    figure = themed(figure, title, subtitle, height=HEIGHT + 20)
    return figure.update_layout(margin={"t": figure.layout.margin.t + 20})


def _shown(value: object) -> str:
    """A cell as hover text; a dash for an interval that there is not."""
    if isinstance(value, float) and math.isnan(value):
        return "–"
    return f"{value:+.3f}" if isinstance(value, float) else text(str(value))
