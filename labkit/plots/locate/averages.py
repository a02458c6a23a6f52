"""Pictures of the causal traces of many facts, and of what severing a path takes away."""

import math
from typing import Any

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.locate.tracing import SYMBOLS, add_curve
from labkit.plots.theme import (
    COLOURS,
    DIVERGING,
    HEIGHT,
    INK,
    add_band,
    layer_axis,
    require_columns,
    text,
    themed,
)

CURVE = ("role", "layer", "n", "mean", "low", "high")
PATHS = {"plain": "nothing severed", "ffn": "FFN severed", "attn": "attention severed"}
PANELS_ACROSS = 3


def role_curves(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """Mean indirect effect by layer, one panel per role: interval of the mean, quartiles of facts.

    Args:
        frame: Columns `role, layer, n` (facts), `mean, low, high` and `q25, q75` (quartiles
            of the facts' own effects), effects as differences of probabilities.
        title: Title of the figure.
        subtitle: A second line; by default what the two bands are.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, (*CURVE, "q25", "q75"))
    roles = list(dict.fromkeys(frame["role"]))
    n_rows = math.ceil(len(roles) / PANELS_ACROSS)
    counts = frame.drop_duplicates("role").set_index("role")["n"]
    figure = make_subplots(
        rows=n_rows,
        cols=min(PANELS_ACROSS, len(roles)),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.32 / max(n_rows, 1),
        subplot_titles=[f"{text(role)} (n={counts[role]})" for role in roles],
    )
    for index, role in enumerate(roles):
        rows = frame[frame["role"] == role].sort_values("layer")
        row, column = divmod(index, PANELS_ACROSS)
        where: dict[str, Any] = {"row": row + 1, "col": column + 1}
        add_band(figure, rows["layer"], rows["q25"], rows["q75"], INK, alpha=0.18, **where)
        add_curve(figure, rows, name=role, colour=COLOURS[0], **where)
    n_layers = int(frame["layer"].max()) + 1
    axis = layer_axis(n_layers)
    figure.update_xaxes(**axis | {"dtick": axis["dtick"] * 2})
    figure.update_xaxes(title_text="layer", row=n_rows)
    figure.update_yaxes(zeroline=True, zerolinecolor=INK)
    figure.update_yaxes(title_text="indirect effect", col=1)
    return themed(
        figure,
        title,
        subtitle or "blue: mean with its 95 % interval over facts; grey: middle half of the facts",
        height=150 + 226 * n_rows,
    )


def role_heatmap(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """Mean indirect effect, roles down and layers across, with intervals on hover.

    Args:
        frame: Columns `role, layer, n, mean, low, high`, one row per cell.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, CURVE)
    roles = list(dict.fromkeys(frame["role"]))
    mean, low, high, n = (
        frame.pivot(index="role", columns="layer", values=v).loc[roles]
        for v in ("mean", "low", "high", "n")
    )
    interval = [
        [list(cell) for cell in zip(*row, strict=True)]
        for row in zip(low.to_numpy(), high.to_numpy(), n.to_numpy(), strict=True)
    ]
    limit = max(float(mean.abs().to_numpy().max()), 1e-6)
    figure = go.Figure(
        go.Heatmap(
            z=mean.to_numpy(),
            x=list(mean.columns),
            y=[text(role) for role in roles],
            customdata=interval,
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            colorbar={"title": {"text": "effect"}},
            hovertemplate=(
                "%{y}, layer %{x}<br>%{z:+.3f} [%{customdata[0]:+.3f}, %{customdata[1]:+.3f}], "
                "n=%{customdata[2]}<extra></extra>"
            ),
        )
    )
    figure.update_xaxes(title_text="layer", showgrid=False, **layer_axis(mean.shape[1]))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return themed(figure, title, subtitle, height=max(300, 150 + 30 * len(roles)))


def severed_curves(
    frame: pd.DataFrame, *, role: str, unit: str, title: str, subtitle: str | None = None
) -> go.Figure:
    """Indirect effect by layer at one role with nothing severed, and with each path severed.

    Args:
        frame: Columns `path` (a key of `PATHS`), `role, layer, n, mean, low, high`.
        role: Which role is drawn.
        unit: What the bands are over: "fact" or "noise draw".
        title: Title of the figure.
        subtitle: A second line; by default the role, and what the bands are.

    Raises:
        InputError: If a column is missing, or there is no row of this role.
    """
    rows = require_columns(frame, ("path", *CURVE))
    rows = require_columns(rows[rows["role"] == role], CURVE)
    figure = go.Figure()
    for index, path in enumerate(path for path in PATHS if path in set(rows["path"])):
        add_curve(
            figure,
            rows[rows["path"] == path].sort_values("layer"),
            name=PATHS[path],
            colour=COLOURS[index % len(COLOURS)],
            symbol=SYMBOLS[index % len(SYMBOLS)],
        )
    figure.update_layout(hovermode="x unified")
    n = int(rows["n"].max())
    figure.update_xaxes(
        title_text="layer whose state is restored", **layer_axis(int(rows["layer"].max()) + 1)
    )
    figure.update_yaxes(title_text="indirect effect on P(answer)", zerolinecolor=INK)
    return themed(
        figure,
        title,
        subtitle or f"{role}; bands: 95 % interval over {n} {unit}s",
        height=HEIGHT + 40,
        legend=True,
    )
