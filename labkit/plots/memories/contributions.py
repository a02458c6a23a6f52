"""Pictures of composition: what adds to a logit, and what is lost without it."""

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.memories.words import INTERVAL
from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    layer_axis,
    require_columns,
    text,
    themed,
    token_label,
)


def contribution_bars(frame: pd.DataFrame, *, answer: str, title: str | None = None) -> go.Figure:
    """What FFN and attention of every layer add to a logit, stacked; rest beside them.

    Args:
        frame: Columns `component` ("attention", "FFN", and others for the rest), `layer`
            (-1 for the rest), `logit`, one row per component.
        answer: The token whose logit is shared out.
        title: Replaces the default title.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("component", "layer", "logit"))
    layers, rest = rows[rows["layer"] >= 0], rows[rows["layer"] < 0]
    n_layers = int(layers["layer"].max()) + 1
    beside = 0.1 * max(1, len(rest))  # share of the width
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        column_widths=[1 - beside, beside],
    )
    for name, colour in (("FFN", COLOURS[0]), ("attention", COLOURS[1])):
        some = layers[layers["component"] == name].sort_values("layer")
        figure.add_bar(
            x=some["layer"],
            y=some["logit"],
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"{name} of layer %{{x}}: %{{y:+.3f}}<extra></extra>",
            row=1,
            col=1,
        )
    figure.add_bar(
        x=list(map(text, rest["component"])),
        y=rest["logit"],
        marker={"color": COLOURS[4]},
        text=[f"{logit:+.2f}" for logit in rest["logit"]],
        textposition="outside",
        cliponaxis=False,
        showlegend=False,
        hovertemplate="%{x}: %{y:+.3f}<extra></extra>",
        row=1,
        col=2,
    )
    figure.update_layout(barmode="relative", bargap=0.15)
    figure.update_xaxes(title_text="layer", col=1, **layer_axis(n_layers))
    figure.update_yaxes(title_text=f"added to the logit of {token_label(answer)}", col=1)
    return themed(
        figure,
        title or f"What adds to the logit of {answer.strip()}",
        f"all bars sum to the logit, {rows['logit'].sum():.2f}",
        height=HEIGHT + 60,
        legend=True,
    )


def switch_bars(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """Predicted, direct and total change of a logit, for named and for random neurons.

    Args:
        frame: Columns `effect, neurons` ("named", "random"), `mean, low, high, n`.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("effect", "neurons", *INTERVAL, "n"))
    figure = go.Figure()
    for index, (which, some) in enumerate(rows.groupby("neurons", sort=False)):
        many = int(some["n"].max())
        up, down = some["high"] - some["mean"], some["mean"] - some["low"]
        spread = {"type": "data", "array": up, "arrayminus": down}
        figure.add_bar(
            x=some["effect"],
            y=some["mean"],
            name=f"{which}, {many} draws" if many > 1 else f"{which}",
            error_y=spread if many > 1 else None,
            marker={"color": COLOURS[index % len(COLOURS)]},
            hovertemplate="%{x}: %{y:+.3f}",
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_yaxes(title_text="change of the logit")
    return themed(figure, title, legend=True)
