"""Pictures of weight changes that were carried away or taken back."""

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.theme import COLOURS, INK, of_rows, require_columns, text, themed, visible

STATES = ("unedited", "edited", "exported")
SHOWN, ANSWERS = 20, 10


def export_bars(frame: pd.DataFrame, *, title: str = "What an export keeps") -> go.Figure:
    """Probability of each rewrite's target: unedited, edited in memory, read from the files.

    Args:
        frame: Columns `prompt`, `target`, and a probability (0..1) for each of `unedited`,
            `edited`, `exported`; one row per rewrite. The first 20 are drawn.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("prompt", "target", *STATES))
    rows = frame.head(ANSWERS)
    places = list(range(len(rows)))
    figure = go.Figure()
    for state, colour in zip(STATES, COLOURS, strict=False):
        figure.add_bar(
            x=rows[state],
            y=places,
            orientation="h",
            name=state,
            marker={"color": colour},
            text=[f"{p:.3f}" if p >= 0.0005 else "<0.001" for p in rows[state]],
            textposition="outside",
            textfont={"color": INK},
            cliponaxis=False,
            customdata=[text(prompt) for prompt in rows["prompt"]],
            hovertemplate=f"%{{customdata}}<br>{state}: %{{x:.5f}}<extra></extra>",
        )
    labels = [
        f"{_end(prompt, 24)}<br>→ {_end(target.strip(), 20)}"
        for prompt, target in zip(rows["prompt"], rows["target"], strict=True)
    ]
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=labels, showgrid=False)
    figure.update_xaxes(
        title_text="probability of the target, a token",
        range=[0, 1.12],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
    )
    figure.update_layout(barmode="group", bargap=0.25)
    return themed(figure, title, height=max(300, 190 + 51 * len(rows)), legend=True)


def share_bars(frame: pd.DataFrame, *, axis: str, title: str) -> go.Figure:
    """A share for each changed weight: how much of a change is kept, or exactly restored.

    Args:
        frame: Columns `weight`, `share` (about 0..1; missing where it is not known) and
            `note` (in words, seen on hovering). The first 20 are drawn.
        axis: What the share is of.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("weight", "share", "note"))
    rows = frame.head(SHOWN)
    places = list(range(len(rows)))
    figure = go.Figure(
        go.Bar(
            x=rows["share"].fillna(0.0),
            y=places,
            orientation="h",
            marker={"color": COLOURS[2]},
            text=["not known" if pd.isna(share) else f"{share:.2%}" for share in rows["share"]],
            textposition="outside",
            textfont={"color": INK},
            cliponaxis=False,
            customdata=[text(note) for note in rows["note"]],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    labels = [_end(name, 36) for name in rows["weight"]]
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=labels, showgrid=False)
    longest = max(1.0, float(rows["share"].fillna(0.0).max()))
    figure.update_xaxes(title_text=text(axis), range=[0, 1.18 * longest], tickformat=".0%")
    return themed(figure, title, height=of_rows(len(rows), 34, 160, least=260)[0])


def _end(words: str, width: int) -> str:
    """The end of a text, which tells weights and prompts apart, as a label."""
    shown = visible(words)
    return text(shown if len(shown) <= width else "…" + shown[1 - width :])


def change_bars(frame: pd.DataFrame, *, title: str = "Change of the weights") -> go.Figure:
    """The size of each weight's change.

    Args:
        frame: Columns `weight`, `rank` and `norm` (Frobenius norm of the change); one row per
            weight. The first 20 are drawn.
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("weight", "rank", "norm"))
    rows = frame.head(SHOWN)
    figure = go.Figure(
        go.Bar(
            x=rows["norm"],
            y=[_end(name, 40) for name in rows["weight"]],
            orientation="h",
            marker={"color": COLOURS[0]},
            text=[f"rank {rank}" for rank in rows["rank"]],
            textposition="auto",
            hovertemplate="%{y}<br>norm %{x:.4g}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="Frobenius norm of the change", rangemode="tozero")
    return themed(figure, title, height=of_rows(len(rows), 34, 160, least=260)[0])
