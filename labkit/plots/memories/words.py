"""Pictures of FFN memories: what a value promotes, who writes a word, what triggers share."""

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    add_band,
    layer_axis,
    of_rows,
    require_columns,
    text,
    themed,
    token_label,
)

INTERVAL = ("mean", "low", "high")
_ROW = 22  # pixels per bar


def words_bars(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """The words that a value row promotes (right) and suppresses (left).

    Args:
        frame: Columns `direction` ("promoted", "suppressed"), `token`, `logit`.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("direction", "token", "logit"))
    figure = go.Figure()
    add_words(figure, rows)
    height, letters = of_rows(len(rows), _ROW, 130, least=HEIGHT - 60)
    figure.update_yaxes(tickfont={"size": letters})
    return themed(figure, title, height=height, legend=True)


def add_words(
    figure: go.Figure, rows: pd.DataFrame, row: int | None = None, col: int | None = None
) -> None:
    """Bars of promoted and suppressed words, largest logit on top, into a panel."""
    rows = rows.sort_values("logit", ascending=False, kind="stable").reset_index(drop=True)
    for direction, colour in (("promoted", COLOURS[0]), ("suppressed", COLOURS[1])):
        some = rows[rows["direction"] == direction]
        figure.add_bar(
            y=some.index,
            x=some["logit"],
            orientation="h",
            name=direction,
            marker={"color": colour},
            text=[token_label(token) for token in some["token"]],
            textposition="none",
            hovertemplate="%{text}: %{x:+.3f}<extra></extra>",
            row=row,
            col=col,
        )
    figure.update_yaxes(
        tickvals=list(rows.index),
        ticktext=[token_label(token) for token in rows["token"]],
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
        row=row,
        col=col,
    )
    figure.update_xaxes(title_text="logit, from the vocabulary's mean", row=row, col=col)


def writers_bars(frame: pd.DataFrame, *, token: str, title: str) -> go.Figure:
    """The neurons that promote a token most, with the token's rank in each value.

    Args:
        frame: Columns `layer, neuron, z, rank`, best first.
        token: The token.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("layer", "neuron", "z", "rank")).reset_index(drop=True)
    ranks = [f"rank {rank + 1}" for rank in rows["rank"]]
    figure = go.Figure(
        go.Bar(
            y=rows.index,
            x=rows["z"],
            orientation="h",
            marker={"color": [COLOURS[0] if rank == 0 else COLOURS[2] for rank in rows["rank"]]},
            text=ranks,
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{x:.2f} SD, %{text}<extra></extra>",
        )
    )
    labels = [
        f"L{layer}N{neuron}" for layer, neuron in zip(rows["layer"], rows["neuron"], strict=True)
    ]
    figure.update_yaxes(
        tickvals=list(rows.index), ticktext=labels, range=[len(rows) - 0.5, -0.5], showgrid=False
    )
    ends = [min(0.0, rows["z"].min()), 1.12 * rows["z"].abs().max()]
    words = f"logit of {token_label(token)} in the value, in SD over the vocabulary"
    figure.update_xaxes(title_text=words, range=ends)
    note = "blue: no token ranks before it in that value"
    height, letters = of_rows(len(rows), _ROW, 150, least=HEIGHT - 60)
    figure.update_yaxes(tickfont={"size": letters})
    return themed(figure, title, note, height=height)


def patterns_curves(
    frame: pd.DataFrame,
    *,
    title: str,
    measures: tuple[str, ...] = ("last token", "last two tokens", "shared words"),
) -> go.Figure:
    """The share of triggers with a pattern, by layer, with bands; controls dashed.

    Args:
        frame: Columns `layer, measure, source` ("triggers", "control"), `mean, low, high, n`.
        title: Title of the figure.
        measures: Which measures to draw.

    Raises:
        InputError: If a column is missing, or a measure has no rows.
    """
    rows = require_columns(frame, ("layer", "measure", "source", *INTERVAL, "n"))
    figure = go.Figure()
    for index, measure in enumerate(measures):
        for source in ("triggers", "control"):
            some = rows[(rows["measure"] == measure) & (rows["source"] == source)]
            some = require_columns(some, INTERVAL).sort_values("layer")
            _curve(
                figure,
                some,
                measure if source == "triggers" else "random prefixes",
                index,
                dashed=source == "control",
                group=measure,
            )
    figure.update_xaxes(title_text="layer", **_layers(rows["layer"]))
    figure.update_yaxes(title_text="share of a neuron's triggers", rangemode="tozero")
    figure.update_layout(hovermode="x unified")
    n_neurons = int(rows["n"].max())
    note = f"mean over {n_neurons} neurons per layer, 95 % bands; dashed: random prefixes"
    return themed(figure, title, note, legend=True)


def agreement_curve(frame: pd.DataFrame, *, top: int = 1, title: str) -> go.Figure:
    """How often a value promotes what followed its key's strongest trigger, by layer.

    Args:
        frame: Columns `layer, mean, low, high, n, chance`.
        top: The next token is among so many that the value promotes most.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("layer", *INTERVAL, "n", "chance")).sort_values("layer")
    figure = go.Figure()
    _curve(figure, rows, "value and key", 0)
    chance = rows.assign(mean=rows["chance"], low=rows["chance"], high=rows["chance"])
    _curve(figure, chance, "paired at random", 1, dashed=True)
    figure.update_xaxes(title_text="layer", **_layers(rows["layer"]))
    what = "the top token" if top == 1 else f"among the top {top}"
    figure.update_yaxes(title_text=f"next token is {what}", rangemode="tozero", tickformat=".2~p")
    figure.update_layout(hovermode="x unified")
    note = f"share of {int(rows['n'].max())} neurons per layer, 95 % band"
    return themed(figure, title, note, legend=True)


def _curve(
    figure: go.Figure,
    rows: pd.DataFrame,
    name: str,
    index: int,
    *,
    dashed: bool = False,
    group: str | None = None,
) -> None:
    """A curve with its band; dashed ones are controls, and thinner."""
    colour = COLOURS[index % len(COLOURS)]
    if bool((rows["high"] > rows["low"]).any()):
        place = rows["layer"], rows["low"], rows["high"]
        add_band(figure, *place, colour, group=group or name)
    figure.add_scatter(
        x=rows["layer"],
        y=rows["mean"],
        name=text(name),
        legendgroup=group or name,
        showlegend=not dashed or group is None,
        mode="lines" if dashed else "lines+markers",
        line={
            "color": colour,
            "width": 1.5 if dashed else 2,
            "dash": "dash" if dashed else "solid",
        },
        marker={"size": 5, "symbol": ("circle", "square", "diamond")[index % 3]},
        customdata=rows[["low", "high"]].to_numpy(),
        hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
    )


def _layers(layers: pd.Series) -> dict:
    """The axis of the layers that there are."""
    first, last = int(layers.min()), int(layers.max())
    return layer_axis(last - first + 1) | {"range": [first - 0.5, last + 0.5]}
