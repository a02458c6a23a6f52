"""Pictures of knowledge neurons: where they sit, and what switching them does."""

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    interval_bars,
    layer_axis,
    require_columns,
    text,
    themed,
    translucent,
)


def neurons_by_layer(
    frame: pd.DataFrame,
    *,
    n_layers: int,
    n_prompts: int,
    title: str = "Knowledge neurons",
    subtitle: str | None = None,
) -> go.Figure:
    """One dot per neuron: its layer across, its attribution up.

    Args:
        frame: Columns `layer, neuron, mean, low, high` (attribution, in units of
            probability), `share` (of the prompts in which it reaches the threshold, 0..1),
            `knowledge` (whether that is enough).
        n_layers: Number of layers of the model.
        n_prompts: Number of prompts behind the shares.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("layer", "neuron", "mean", "low", "high", "share", "knowledge")
    require_columns(frame, columns)
    figure = go.Figure()
    groups = (
        ("in too few prompts", False, INK, "circle-open", 7),
        ("knowledge neurons", True, COLOURS[1], "circle", 10),
    )
    for name, passed, colour, symbol, size in groups:
        rows = frame[frame["knowledge"] == passed]
        if rows.empty:
            continue
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            error_y=interval_bars(rows, colour, thickness=1.5, width=3) if passed else None,
            name=name,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": size},
            customdata=rows[["neuron", "low", "high", "share"]].to_numpy(),
            hovertemplate=(
                "L%{x} N%{customdata[0]}: %{y:.4f} [%{customdata[1]:.4f}, %{customdata[2]:.4f}]"
                f"<br>%{{customdata[3]:.0%}} of {n_prompts} prompts<extra></extra>"
            ),
        )
    figure.update_xaxes(title_text="layer", **layer_axis(n_layers))
    figure.update_yaxes(title_text="attribution to P(answer)", rangemode="tozero")
    return themed(figure, title, subtitle, legend=True)


def neuron_test_bars(frame: pd.DataFrame, *, title: str = "Switching neurons") -> go.Figure:
    """Relative change of P(answer), one panel per intervention, one bar per group, with intervals.

    Args:
        frame: Columns `intervention`, `group`, `mean, low, high` (relative change: -1 takes
            all of P(answer) away, 1 doubles it), `n`, `unit`, `kept` (share of unchanged
            top tokens, 0..1), one row per bar.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("intervention", "group", "mean", "low", "high", "n", "unit", "kept")
    require_columns(frame, columns)
    interventions = list(dict.fromkeys(frame["intervention"]))
    figure = make_subplots(
        rows=1,
        cols=len(interventions),
        subplot_titles=[text(name) for name in interventions],
        horizontal_spacing=0.12,
    )
    groups = list(dict.fromkeys(frame["group"]))
    # What is tested in orange, its controls in blue and teal.
    colours = dict(zip(groups, (COLOURS[1], COLOURS[0], COLOURS[2]), strict=False))
    for column, intervention in enumerate(interventions, start=1):
        rows = frame[frame["intervention"] == intervention]
        figure.add_bar(
            x=[text(group) for group in rows["group"]],
            y=rows["mean"],
            marker={
                "color": [translucent(colours[group], 0.4) for group in rows["group"]],
                "line": {"color": [colours[group] for group in rows["group"]], "width": 1.5},
            },
            error_y=interval_bars(rows, INK),
            customdata=rows[["low", "high", "n", "unit", "kept"]].to_numpy(),
            hovertemplate=(
                "%{x}: %{y:+.1%} [%{customdata[0]:+.1%}, %{customdata[1]:+.1%}], "
                "n=%{customdata[2]} (%{customdata[3]}s)<br>top token kept: %{customdata[4]:.0%}"
                "<extra></extra>"
            ),
            row=1,
            col=column,
        )
    figure.add_hline(0, line={"color": INK, "width": 1})
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(tickformat="+.2~p")
    figure.update_yaxes(title_text="change of P(answer)", col=1)
    figure.update_layout(bargap=0.35)
    return themed(
        figure,
        title,
        "95 % intervals over prompts, draws of random neurons, and facts",
        height=HEIGHT,
    )


def neuron_tests_scatter(frame: pd.DataFrame, *, title: str = "Many facts") -> go.Figure:
    """One point per fact: what it loses without its neurons, and what others of its relation lose.

    Args:
        frame: Columns `subject, relation, n_neurons`, and relative changes of P(answer) in
            `this fact`, `random neurons`, `other facts`.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("subject", "relation", "n_neurons", "this fact", "random neurons", "other facts")
    rows = require_columns(frame, columns)
    figure = go.Figure()
    low = min(-1.0, float(rows[["this fact", "other facts"]].min().min()))
    high = max(0.0, float(rows[["this fact", "other facts"]].max().max()))
    figure.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        name="others lose as much",
        line={"color": INK, "width": 1, "dash": "dash"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=rows["this fact"],
        y=rows["other facts"],
        mode="markers",
        name="facts",
        marker={"color": COLOURS[1], "size": 10},
        customdata=[
            [text(subject), text(relation), n, random]
            for subject, relation, n, random in zip(
                rows["subject"],
                rows["relation"].fillna(""),
                rows["n_neurons"],
                rows["random neurons"],
                strict=True,
            )
        ],
        hovertemplate=(
            "%{customdata[0]} (%{customdata[1]}), %{customdata[2]} neurons: own %{x:+.0%}, others "
            "%{y:+.0%}, random neurons %{customdata[3]:+.0%}<extra></extra>"
        ),
    )
    figure.update_xaxes(title_text="change of its own P(answer)", tickformat="+.0%")
    figure.update_yaxes(title_text="of other facts of its relation", tickformat="+.0%")
    return themed(figure, title, "on the line: neurons of the relation; below 0 on the left alone: "
                  "of the fact", height=HEIGHT, legend=True)  # fmt: skip
