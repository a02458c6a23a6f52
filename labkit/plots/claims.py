"""Pictures of claims: every difference with its interval, and which way it fell."""

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import COLOURS, INK, interval_bars, require_columns, text, themed

_ROW = 30  # pixels of a claim
_COLOURS = {
    "supports": COLOURS[2],
    "contradicts": COLOURS[1],
    "leaves open": INK,
    "too few": INK,
}


def claim_intervals(frame: pd.DataFrame, *, title: str = "Claims") -> go.Figure:
    """One row per claim: the difference with its interval, coloured by the verdict.

    Args:
        frame: Columns `claim, what, expects, mean, low, high, n, unit, p_holm, verdict`.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    needed = "claim what expects mean low high n unit p_holm verdict".split()
    rows = require_columns(frame, tuple(needed))
    names = [f"{c}: {w}" for c, w in zip(rows["claim"], rows["what"], strict=True)]
    rows = rows.assign(place=range(len(rows)))
    figure = go.Figure()
    for verdict, some in rows.groupby("verdict", sort=False):
        colour = _COLOURS.get(str(verdict), INK)
        bars = interval_bars(some, colour, thickness=1.5, width=3)
        figure.add_scatter(
            x=some["mean"],
            y=some["place"],
            error_x=bars,
            mode="markers",
            name=str(verdict),
            marker={"color": colour, "size": 9, "symbol": _symbol(str(verdict))},
            customdata=some[["low", "high", "n", "unit", "p_holm", "expects"]].to_numpy(),
            hovertemplate=(
                "%{x:+.3f} [%{customdata[0]:+.3f}, %{customdata[1]:+.3f}], n=%{customdata[2]} "
                "(%{customdata[3]})<br>expected: %{customdata[5]}; p = %{customdata[4]:.3g}, "
                "corrected<extra></extra>"
            ),
        )
    figure.add_vline(0, line={"color": INK, "width": 1})
    figure.update_xaxes(title_text="difference", tickformat="+.2~f")
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[text(name) for name in names],
        range=[len(rows) - 0.5, -0.5],
        automargin=True,
    )
    return themed(
        figure,
        title,
        "95 % intervals; verdicts by tests that are corrected for the number of claims",
        legend=True,
        height=170 + _ROW * len(rows),
    )


def _symbol(verdict: str) -> str:
    return "circle" if verdict in ("supports", "contradicts") else "circle-open"
