"""Pictures of the logit lens: what each layer would say if it were the last."""

from collections.abc import Sequence

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.theme import (
    COLOURS,
    INK,
    SEQUENTIAL_UNDER_TEXT,
    layer_axis,
    of_rows,
    require_columns,
    themed,
    token_label,
)

_ROW = 21  # pixels per layer


def lens_table(
    frame: pd.DataFrame, *, title: str = "Logit lens: the top token of every layer"
) -> go.Figure:
    """The top token at every layer (up) and position (across), coloured by its probability.

    Args:
        frame: Columns `pos, token` (the prompt's token there), `layer, top` (the most
            probable next token), `probability` (of that token, in 0..1).
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    columns = ("pos", "token", "layer", "top", "probability")
    tokens = require_columns(frame, columns).drop_duplicates("pos").set_index("pos")["token"]
    height, letters = of_rows(frame["layer"].nunique(), _ROW, 170)
    width = min(14, max(5, 90 // len(tokens)))  # letters that fit into a cell
    shown = frame.assign(top=frame["top"].map(lambda top: token_label(top, width)))
    z = shown.pivot(index="layer", columns="pos", values="probability")
    tops = shown.pivot(index="layer", columns="pos", values="top")
    figure = go.Figure(
        go.Heatmap(
            z=z.to_numpy(),
            x=list(z.columns),
            y=list(z.index),
            text=tops.to_numpy(),
            texttemplate="%{text}",
            textfont={"size": min(11, letters), "color": "white"},
            customdata=[[token_label(tokens[pos]) for pos in z.columns]] * len(z),
            zmin=0,
            zmax=1,
            colorscale=SEQUENTIAL_UNDER_TEXT,
            colorbar={"title": {"text": "P(top)"}},
            hovertemplate=("after %{customdata}, layer %{y}<br>%{text}: %{z:.3f}<extra></extra>"),
        )
    )
    figure.update_xaxes(
        tickvals=list(z.columns),
        ticktext=[token_label(tokens[pos]) for pos in z.columns],
        tickangle=-35,
        showgrid=False,
    )
    figure.update_yaxes(title_text="layer", showgrid=False, **layer_axis(len(z)))
    return themed(figure, title, height=height)


def lens_at_last(
    frame: pd.DataFrame, *, answer: str, title: str | None = None, n_tokens: int = 5
) -> go.Figure:
    """P(answer) and the top tokens of every layer at the last position, side by side.

    Layers run down, as the forward pass does.

    Args:
        frame: Columns `layer`, `answer_probability` (0..1), `top_tokens` (a sequence of
            token texts, most probable first), one row per layer.
        answer: The token whose probability is drawn.
        title: Replaces the default title.
        n_tokens: Number of top tokens shown.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("layer", "answer_probability", "top_tokens"))
    rows = rows.sort_values("layer")
    height, letters = of_rows(len(rows), _ROW, 170)
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.03, column_widths=[0.4, 0.6]
    )
    figure.add_scatter(
        x=rows["answer_probability"],
        y=rows["layer"],
        mode="lines+markers",
        line={"color": COLOURS[0], "width": 2},
        marker={"size": 6},
        hovertemplate="layer %{y}: %{x:.4f}<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=[0] * len(rows),
        y=rows["layer"],
        mode="text",
        text=[_listed(tokens[:n_tokens]) for tokens in rows["top_tokens"]],
        textposition="middle right",
        textfont={"size": min(12, letters), "color": INK},
        hoverinfo="skip",
        cliponaxis=False,
        row=1,
        col=2,
    )
    figure.update_xaxes(title_text=f"P({token_label(answer)})", range=[-0.02, 1.02], col=1)
    figure.update_xaxes(
        title_text="top tokens",
        range=[0, 1],
        showgrid=False,
        showticklabels=False,
        ticks="",
        zeroline=False,
        col=2,
    )
    axis = layer_axis(len(rows))
    figure.update_yaxes(dtick=axis["dtick"], range=axis["range"])
    figure.update_yaxes(title_text="layer", col=1)
    figure.update_yaxes(ticks="", showgrid=False, zeroline=False, col=2)
    heading = title or f"Logit lens at the last token: P({answer.strip()}) by layer"
    return themed(figure, heading, height=height)


def _listed(tokens: Sequence[str]) -> str:
    return "   ".join(token_label(token, 12) for token in tokens)
