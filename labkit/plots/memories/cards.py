"""A neuron as a card: triggers with the firing token marked, words, and a coloured text."""

from typing import Any

import pandas as pd
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from labkit.plots.memories.words import add_words
from labkit.plots.theme import COLOURS, INK, require_columns, text, themed, token_label, visible

_LINE, _BAR = 19, 13  # pixels per line of text, per word of a value
_WIDE = 84  # letters a line of coloured text
_BEFORE, _AFTER = 46, 26  # letters of a trigger around its firing token
_MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
# Under white letters: zero is grey, positive blue, negative brown; see the theme.
_ZERO, _POSITIVE, _NEGATIVE = (58, 63, 71), (18, 120, 208), (168, 84, 16)


def neuron_card(
    triggers: pd.DataFrame,
    words: pd.DataFrame,
    fires: pd.DataFrame,
    *,
    title: str,
    subtitle: str | None = None,
    sign: int = 1,
) -> go.Figure:
    """What a neuron detects (above), writes (below), and where it fires in a text (last).

    Args:
        triggers: Columns `place, activation, before, token, after`; may be empty.
        words: Columns `direction, token, logit`.
        fires: Columns `pos, token, activation`; empty if there is no text to show.
        title: Title of the figure.
        subtitle: A second line.
        sign: -1 where the neuron fires with a negative activation.

    Raises:
        InputError: If a column is missing, or there are no words.
    """
    columns = ("place", "activation", "before", "token", "after")
    lines = _lines(fires) if len(fires) else []
    heights = [_LINE * max(1, len(triggers)) + 10, _BAR * len(words) + 10]
    heights += [_LINE * len(lines) + 10] if lines else []
    turned = "; it fires negative, so what it promotes is the lower end" if sign < 0 else ""
    words_of_value = f"words of its value, logit from the vocabulary's mean{turned}"
    titles = ["triggers, strongest first", words_of_value, "activation on a text"]
    gap = 56
    plot = sum(heights) + gap * (len(heights) - 1)
    figure = make_subplots(
        rows=len(heights),
        cols=1,
        row_heights=heights,
        vertical_spacing=gap / plot,
        subplot_titles=titles[: len(heights)],
    )
    if len(triggers):
        _add_triggers(figure, require_columns(triggers, columns), row=1)
    else:
        figure.update_xaxes(visible=False, row=1, col=1)
        figure.update_yaxes(visible=False, row=1, col=1)
    add_words(figure, require_columns(words, ("direction", "token", "logit")), row=2, col=1)
    figure.update_yaxes(tickfont={"size": _BAR - 2}, row=2, col=1)
    figure.update_xaxes(title_text=None, row=2, col=1)
    if lines:
        _add_text(figure, lines, fires["activation"].abs().max(), row=3)
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": INK})
    return themed(figure, title, subtitle, height=plot + 140)


def triggers_in_context(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """Triggers as lines of text, aligned at the firing token.

    Args:
        frame: Columns `activation, before, token, after`, and `label` for the left margin
            (the place by default).
        title: Title of the figure.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("activation", "before", "token", "after"))
    figure = go.Figure()
    _add_triggers(figure, rows)
    return themed(figure, title, height=max(300, 110 + 22 * len(rows)))


def coloured_text(frame: pd.DataFrame, *, title: str, subtitle: str | None = None) -> go.Figure:
    """A text whose tokens are coloured by a number each: blue above zero, brown below.

    Args:
        frame: Columns `pos, token, activation`, one row per token.
        title: Title of the figure.
        subtitle: A second line.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    rows = require_columns(frame, ("pos", "token", "activation"))
    lines = _lines(rows)
    figure = go.Figure()
    _add_text(figure, lines, rows["activation"].abs().max())
    return themed(figure, title, subtitle, height=max(280, 110 + _LINE * len(lines)))


def _add_triggers(figure: go.Figure, rows: pd.DataFrame, row: int | None = None) -> None:
    """Lines of text: what stands before ends at zero, the firing token begins there."""
    col = None if row is None else 1
    y = list(range(len(rows)))
    before = [visible(words)[-_BEFORE:] for words in rows["before"]]
    shown = [
        f"<b><span style='color:{COLOURS[1]}'>{token_label(token, 24)}</span></b>"
        f"{text(visible(after)[:_AFTER])}"
        for token, after in zip(rows["token"], rows["after"], strict=True)
    ]
    hover = [
        f"{activation:+.3f}<br>{text(visible(words))}<b>{token_label(token, 40)}</b>"
        for activation, words, token in zip(
            rows["activation"], rows["before"], rows["token"], strict=True
        )
    ]
    common: dict[str, Any] = {
        "mode": "text",
        "cliponaxis": False,
        "showlegend": False,
        "y": y,
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    font = {"family": _MONO, "size": 12, "color": INK}
    figure.add_scatter(
        x=[0.0] * len(y),
        text=list(map(text, before)),
        textposition="middle left",
        textfont=font,
        row=row,
        col=col,
        **common,
    )
    figure.add_scatter(
        x=[0.0] * len(y),
        text=shown,
        textposition="middle right",
        textfont=font,
        row=row,
        col=col,
        **common,
    )
    labels = rows["label"] if "label" in rows else [f"{value:+.2f}" for value in rows["activation"]]
    figure.update_xaxes(range=[-1.35, 1], visible=False, row=row, col=col)
    figure.update_yaxes(
        tickvals=y,
        ticktext=[text(str(label)) for label in labels],
        range=[len(y) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        ticks="",
        row=row,
        col=col,
    )


def _lines(rows: pd.DataFrame) -> list[list[tuple[int, str, float, int]]]:
    """Tokens in lines: position, text, number, and the column at which each begins."""
    lines: list[list[tuple[int, str, float, int]]] = [[]]
    column = 0
    ordered = rows.sort_values("pos")
    for pos, token, value in zip(
        ordered["pos"], ordered["token"], ordered["activation"], strict=True
    ):
        label = visible(token) or "∅"
        if column and column + len(label) > _WIDE:
            lines.append([])
            column = 0
        lines[-1].append((int(pos), label, float(value), column))
        column += len(label)
    return lines


def _add_text(
    figure: go.Figure,
    lines: list[list[tuple[int, str, float, int]]],
    largest: float,
    row: int | None = None,
) -> None:
    """One box per token, as wide as its letters, with the token in it."""
    col = None if row is None else 1
    tokens = [(y, *token) for y, line in enumerate(lines) for token in line]
    middle = [start + len(label) / 2 for _, _, label, _, start in tokens]
    figure.add_bar(
        y=[y for y, *_ in tokens],
        x=[len(label) for _, _, label, _, _ in tokens],
        base=[start for *_, start in tokens],
        orientation="h",
        width=0.86,
        marker={
            "color": [_colour(value / largest if largest else 0.0) for *_, value, _ in tokens],
            "line": {"width": 0},
        },
        customdata=[value for *_, value, _ in tokens],
        hovertext=[f"{pos}: {text(label)}" for _, pos, label, _, _ in tokens],
        hovertemplate="%{hovertext}<br>%{customdata:+.3f}<extra></extra>",
        showlegend=False,
        row=row,
        col=col,
    )
    figure.add_scatter(
        x=middle,
        y=[y for y, *_ in tokens],
        text=[text(label) for _, _, label, _, _ in tokens],
        mode="text",
        textfont={"family": _MONO, "size": 12, "color": "white"},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=col,
    )
    figure.update_layout(barmode="overlay")
    widest = max(start + len(label) for _, _, label, _, start in tokens)
    figure.update_xaxes(range=[0, max(widest, 0.7 * _WIDE)], visible=False, row=row, col=col)
    figure.update_yaxes(range=[len(lines) - 0.5, -0.5], visible=False, row=row, col=col)


def _colour(share: float) -> str:
    """A colour for a share of the largest number, -1..1, dark enough for white letters."""
    end = _POSITIVE if share > 0 else _NEGATIVE
    mixed = (round(a + (b - a) * min(1.0, abs(share))) for a, b in zip(_ZERO, end, strict=True))
    return "rgb({}, {}, {})".format(*mixed)
