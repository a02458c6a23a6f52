"""Pictures of causal traces: where restoring a state brings the answer back."""

from collections.abc import Collection, Mapping

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import (
    COLOURS,
    HEIGHT,
    SEQUENTIAL,
    layer_axis,
    require_columns,
    text,
    themed,
    token_label,
    translucent,
)

CELL = ("pos", "token", "layer", "mean", "low", "high")
STATES = {"resid": "residual stream", "ffn": "FFN output", "attn": "attention output"}


def trace_heatmap(
    frame: pd.DataFrame,
    *,
    answer: str,
    clean: float,
    corrupted: float,
    subject_positions: Collection[int],
    kind: str = "resid",
    severed: str | None = None,
    n_draws: int | None = None,
    title: str | None = None,
) -> go.Figure:
    """P(answer) after restoring one state, for every token (down) and layer (across).

    Colours run from the corrupted to the clean probability; values beyond keep the end
    colour. Tokens of the subject carry a star.

    Args:
        frame: Columns `pos, token, layer, mean, low, high`, one row a cell; probabilities
            in 0..1, the interval over noise draws.
        answer: The token whose probability is shown.
        clean: P(answer) of the intact prompt.
        corrupted: Mean P(answer) with the subject corrupted and nothing restored.
        subject_positions: Values of `pos` that belong to the subject.
        kind: What is restored: a key of `STATES`, or words of your own.
        severed: Whose outputs were held at their corrupted values, likewise.
        n_draws: Number of noise draws, for the hover text.
        title: Replaces the default title.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    tokens = require_columns(frame, CELL).drop_duplicates("pos").set_index("pos")["token"]
    mean, low, high = (frame.pivot(index="pos", columns="layer", values=v) for v in CELL[3:])
    labels = [
        token_label(tokens[pos]) + (" *" if pos in subject_positions else "") for pos in mean.index
    ]
    bottom, top = sorted((clean, corrupted))
    held = f", {STATES.get(severed, severed)}s held" if severed else ""
    draws = f" over {n_draws} noise draws" if n_draws else ""
    heatmap = go.Heatmap(
        z=mean.to_numpy(),
        x=mean.columns.to_numpy(),
        y=mean.index.to_numpy(),
        # One label a cell: hover shows the token, although the axis counts positions.
        text=[[label] * mean.shape[1] for label in labels],
        customdata=pd.concat([low, high]).to_numpy().reshape(2, *low.shape).transpose(1, 2, 0),
        zmin=bottom,
        zmax=max(top, bottom + 1e-6),
        colorscale=SEQUENTIAL,
        colorbar={"title": {"text": f"P({token_label(answer)})"}},
        hovertemplate=(
            "%{text}, layer %{x}<br>%{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            f"{draws}<extra></extra>"
        ),
    )
    figure = go.Figure(heatmap)
    figure.update_xaxes(
        title_text="layer whose state is restored", showgrid=False, **layer_axis(mean.shape[1])
    )
    figure.update_yaxes(
        autorange="reversed", tickvals=list(mean.index), ticktext=labels, showgrid=False
    )
    return themed(
        figure,
        title or f"P({answer.strip()}) after restoring the {STATES.get(kind, kind)}{held}",
        f"clean {clean:.3f}, corrupted {corrupted:.3f};  * subject",
        height=max(HEIGHT, 150 + 26 * len(labels)),
    )


def trace_curves(
    frames: Mapping[str, pd.DataFrame],
    *,
    positions: Mapping[str, int] | int,
    title: str = "P(answer) after restoring the last subject token",
    subtitle: str | None = None,
) -> go.Figure:
    """P(answer) by layer at one position, with its interval, one curve a trace.

    Args:
        frames: Name of the trace (`"before"`, `"after"`) -> its table, as in
            `trace_heatmap`. A name may say which answer is meant.
        positions: The `pos` to show, one for all traces or one each: usually the last
            token of the subject.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing, or a table has no row at its position.
    """
    figure = go.Figure()
    for index, (name, frame) in enumerate(frames.items()):
        pos = positions if isinstance(positions, int) else positions[name]
        rows = require_columns(frame, CELL)
        rows = require_columns(rows[rows["pos"] == pos], CELL).sort_values("layer")
        colour = COLOURS[index % len(COLOURS)]
        outline = pd.concat([rows["high"], rows["low"][::-1]])
        figure.add_scatter(
            x=pd.concat([rows["layer"], rows["layer"][::-1]]),
            y=outline,
            fill="toself",
            fillcolor=translucent(colour, 0.22),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            name=text(name),
            legendgroup=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5, "symbol": ("circle", "square", "diamond")[index % 3]},
            customdata=rows[["low", "high"]].to_numpy(),
            hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        )
    figure.update_layout(hovermode="x unified")
    n_layers = max(frame["layer"].nunique() for frame in frames.values())
    figure.update_xaxes(title_text="layer", **layer_axis(n_layers))
    figure.update_yaxes(title_text="P(answer)", rangemode="tozero")
    return themed(figure, title, subtitle, legend=len(frames) > 1)
