"""How every figure looks: readable on white and on black, and by colour-blind readers.

Backgrounds are transparent and ink is a mid-grey with a contrast of about 4.3 on both white
and #111, so that one figure serves light and dark pages. Colours of states (before, after)
are blue and orange, which no common colour blindness confuses.
"""

import textwrap
import unicodedata
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from labkit.errors import InputError
from labkit.plots.hover import hover_without_interval

INK = "#7b7b7b"
GRID = "rgba(128, 128, 128, 0.25)"
# Blue, orange, teal, purple, brown: at least 3:1 on white and on #111.
COLOURS = ("#4c83b8", "#d9730d", "#26967f", "#a066c2", "#a07040")
# Dark to light in even steps of lightness, whatever the reader's colour vision.
SEQUENTIAL = "Cividis"
# For cells that carry text: grey to vivid blue, all dark enough for white letters.
SEQUENTIAL_UNDER_TEXT = ((0.0, "#3a3f47"), (0.33, "#2e4f72"), (0.67, "#22659f"), (1.0, "#1278d0"))
# Blue below, grey at zero, orange above; the grey is no colour of either page.
DIVERGING = (
    (0.0, "#1f5fa8"),
    (0.25, "#7fa6cf"),
    (0.5, "#d0d0d0"),
    (0.75, "#e0a06a"),
    (1.0, "#b4520a"),
)
HEIGHT = 380
MOST_HEIGHT = 700  # pixels: what a window shows at once
TITLE_WIDTH, SUBTITLE_WIDTH, PANELS_WIDTH = 50, 56, 48  # letters: 420 pixels, a narrow window
X_TITLE_WIDTH, Y_TITLE_WIDTH = 40, 24  # letters
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

_TITLE_LINE, _SUBTITLE_LINE = 20, 17  # pixels
_LEGEND = 26  # pixels
_LEAST_ROW = 11  # pixels: letters of eight
_AXIS = go.layout.XAxis(
    gridcolor=GRID, zerolinecolor=GRID, linecolor=INK, ticks="outside", tickcolor=GRID
).to_plotly_json() | {"automargin": True, "title": {"standoff": 10}}
_COLORBAR = {"thickness": 12, "outlinewidth": 0, "ticks": "outside", "tickcolor": GRID}
TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {
            "x": 0.0,
            "xanchor": "left",
            "xref": "container",
            "pad": {"l": 12, "t": 14},
            "y": 1.0,
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 16},
            "subtitle": {"font": {"size": 13}},
        },
        "colorway": COLOURS,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"bgcolor": "#222222", "font": {"color": "#f2f2f2", "family": FONT}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": COLOURS[0]},
        # At the foot of the figure: what wraps there takes room from the plot, and hides nothing.
        "legend": {
            "orientation": "h",
            "x": 0,
            "xref": "paper",
            "y": 0.0,
            "yref": "container",
            "yanchor": "bottom",
        },
        "margin": {"l": 20, "r": 20, "b": 20},
        "annotationdefaults": {"font": {"size": 13, "color": INK}},
    },
    data={"heatmap": [{"colorbar": _COLORBAR, "xgap": 1, "ygap": 1}]},
)


def themed(
    figure: go.Figure,
    title: str,
    subtitle: str | None = None,
    *,
    height: int = HEIGHT,
    legend: bool = False,
) -> go.Figure:
    """Give a figure the common look, its title, and a height in pixels.

    Args:
        figure: The figure, changed in place and returned.
        title: Plain text; escaped here, and wrapped where it would run under the buttons.
        subtitle: Plain text of a second, smaller line; wrapped too.
        height: Set on the figure itself: notebooks overlook a template's height.
        legend: Whether to show a legend, in a row of its own at the foot.
    """
    lines = textwrap.wrap(title, TITLE_WIDTH) or [""]
    more = _TITLE_LINE * (len(lines) - 1)
    heading: dict[str, Any] = {"text": "<br>".join(map(text, lines))}
    if more:  # plotly hangs a title by its middle
        heading["pad"] = {"l": 12, "t": 14 + more // 2}
    if subtitle:
        second = textwrap.wrap(subtitle, SUBTITLE_WIDTH)
        more += _SUBTITLE_LINE * (len(second) - 1)
        heading["subtitle"] = {"text": "<br>".join(map(text, second))}
    figure.update_annotations(font_size=13)
    panels = _wrap_panels(figure)
    figure.for_each_xaxis(lambda axis: _wrap_title(axis, X_TITLE_WIDTH))
    figure.for_each_yaxis(lambda axis: _wrap_title(axis, Y_TITLE_WIDTH))
    hover_without_interval(figure)
    return figure.update_layout(
        template=TEMPLATE,
        title=heading,
        height=height + more + _LEGEND * legend,
        margin={"t": 54 + more + 26 * bool(subtitle) + 20 * panels},
        showlegend=legend,
    )


def _wrap_title(axis: Any, width: int) -> None:
    """Wrap an axis' title to so many letters."""
    told = axis.title.text
    if told and "<" not in told:
        axis.title.text = "<br>".join(textwrap.wrap(told, width, break_long_words=False))


def _wrap_panels(figure: go.Figure) -> int:
    """Wrap what stands above panels to their width; the number of lines that it takes at most."""
    notes = figure.layout.annotations
    titles = [note for note in notes if (note.xanchor, note.yanchor) == ("center", "bottom")]
    across = len({title.x for title in titles})
    for title in titles:
        parts = title.text.split("<br>")
        if not any("<" in part for part in parts):
            width = PANELS_WIDTH // across
            wrapped = (textwrap.wrap(part, width, break_long_words=False) for part in parts)
            title.text = "<br>".join(line for lines in wrapped for line in lines)
    return max((title.text.count("<br>") + 1 for title in titles), default=int(len(notes) > 0))


def of_rows(n: int, usual: int, around: int, *, least: int = HEIGHT) -> tuple[int, int]:
    """Height of a figure whose rows are lines of text, and the size of letters that fit into one.

    Rows become lower before the figure becomes higher than a window; what is cut is said by hover.

    Args:
        n: Number of rows.
        usual: Pixels of a row where there is room.
        around: Pixels above and below them.
        least: Pixels of the figure at least.
    """
    row = min(usual, max(_LEAST_ROW, (MOST_HEIGHT - around) / max(1, n)))
    return max(least, round(around + row * n)), int(min(13, max(8, row - 4)))


def layer_axis(n_layers: int) -> dict[str, Any]:
    """Ticks on whole layers only (every layer up to 16, then every second...), no overhang."""
    return {"dtick": -(-n_layers // 16), "range": [-0.5, n_layers - 0.5]}


def text(plain: str) -> str:
    """Plain text for a place where plotly would read tags (`<b>`) and entities."""
    return escape(plain, quote=False)


def token_label(token: str, width: int = 16) -> str:
    """A token as a tick or cell label: white space made visible, cut to `width`, escaped.

    Spaces become `·`, the empty token `∅`; the rest is as in `visible`.
    """
    shown = visible(token).replace(" ", "·")
    cut = shown if len(shown) <= width else shown[: width - 1] + "…"
    return text(cut or "∅")


def visible(words: str) -> str:
    """White space that would break a line made visible (line ends `⏎`, tabs `⇥`); spaces stay.

    Control characters, which no SVG may hold, become replacement characters.
    """
    shown = words.replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥")
    return "".join(
        "�" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in shown
    )


def require_columns(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The frame, if it has rows and all of the columns.

    Raises:
        InputError: If a column is missing, or there is nothing to draw.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(f"the table lacks the columns {missing}; it has {list(frame.columns)}")
    if frame.empty:
        raise InputError("the table has no rows: there is nothing to draw")
    return frame


def translucent(colour: str, alpha: float) -> str:
    """A `#rrggbb` colour with an opacity in 0..1."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"


def interval_bars(
    rows: pd.DataFrame,
    colour: str,
    *,
    centre: str = "mean",
    thickness: float = 2,
    width: float = 5,
) -> dict[str, Any]:
    """Error bars of intervals: plotly's `error_x` or `error_y`.

    Args:
        rows: One row per point, its interval in `low` and `high`.
        colour: Of the bars.
        centre: The column that the point is drawn at.
        thickness: Of the bars' lines, in pixels.
        width: Of the lines across their ends, in pixels.
    """
    return {
        "array": rows["high"] - rows[centre],
        "arrayminus": rows[centre] - rows["low"],
        "color": colour,
        "thickness": thickness,
        "width": width,
    }


def add_band(
    figure: go.Figure,
    x: pd.Series,
    low: pd.Series,
    high: pd.Series,
    colour: str,
    *,
    alpha: float = 0.22,
    group: str | None = None,
    **where: Any,
) -> None:
    """Fill what lies between two curves, but for the places where one of them is missing.

    Args:
        figure: Changed in place.
        x: What both are drawn over, in order: layers, numbers of edits.
        low: The lower curve.
        high: The upper curve.
        colour: Of the band, before its opacity.
        alpha: Its opacity, 0..1.
        group: The curve with which it is shown and hidden.
        **where: `row` and `col` of the panel, where there are several.
    """
    there = (low.notna() & high.notna()).to_numpy()
    if not there.any():
        return
    xs: list[Any] = []
    ys: list[Any] = []
    starts = np.flatnonzero(np.diff(there, prepend=False, append=False))
    for start, stop in zip(starts[::2], starts[1::2], strict=True):
        at, least, most = (values.iloc[start:stop].tolist() for values in (x, low, high))
        gap = [None] if xs else []
        xs += [*gap, *at, *at[::-1]]
        ys += [*gap, *most, *least[::-1]]
    figure.add_scatter(
        x=xs,
        y=ys,
        fill="toself",
        fillcolor=translucent(colour, alpha),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
        **where,
    )
