"""Pictures of demonstrations in context beside fine-tuning on them."""

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.icl.demonstrations import DASHES, SYMBOLS
from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    INK,
    add_band,
    layer_axis,
    require_columns,
    text,
    themed,
)

WORDS = {
    "outputs": "cosine of the two updates",
    "maps": "cosine of attention maps",
    "map_gain": "cosine of maps, after less before",
}
"""What each likeness is called on the axis."""


def similarity_by_layer(
    frame: pd.DataFrame, *, reading: str, title: str, subtitle: str | None = None
) -> go.Figure:
    """Likeness of context and fine-tuning by layer, one curve per arm.

    The first arm is drawn broad and with its interval; the others' intervals are on hover.

    Args:
        frame: Columns `arm, layer, mean, low, high`, one row per point.
        reading: What is drawn, in words.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("arm", "layer", "mean", "low", "high"))
    figure = go.Figure()
    arms = list(dict.fromkeys(frame["arm"]))
    for number, arm in enumerate(arms):
        rows = frame[frame["arm"] == arm].sort_values("layer")
        colour = (*COLOURS, INK)[number % (len(COLOURS) + 1)]
        if number == 0:
            add_band(figure, rows["layer"], rows["low"], rows["high"], colour)
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            name=text(arm),
            mode="lines+markers",
            line={
                "color": colour,
                "width": 3 if number == 0 else 1.5,
                "dash": DASHES[min(number, 1)],
            },
            marker={"size": 7 if number == 0 else 6, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            customdata=rows[["low", "high"]].to_numpy(),
            hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="layer", **layer_axis(int(frame["layer"].max()) + 1))
    figure.update_yaxes(title_text=text(reading), zerolinecolor=INK)
    lines = -(-len(arms) // 3)  # of the legend
    return themed(figure, title, subtitle, height=HEIGHT + 40 + 20 * lines, legend=True)
