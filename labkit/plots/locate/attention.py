"""A viewer of attention patterns: every head as a tile of one picture, and two sliders.

All patterns of a model are one heatmap, `layers * queries` high and `heads * keys` wide. The
sliders for layer and head move its axes: both at "all" show every head as a thumbnail, one
of them chosen a row or a column of thumbnails, both chosen one pattern with its tokens. So
nothing is stored twice, and weights are whole percents in one byte per cell: 12 x 12 heads of
100 tokens are 2 MB, and `MAX_CELLS` keeps every viewer below 5 MB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float
from plotly import graph_objects as go

from labkit.errors import InputError
from labkit.plots.theme import COLOURS, GRID, INK, themed, token_label, translucent

MAX_CELLS = 3_500_000
"""Most cells (layers x heads x tokens x tokens) of one viewer: 4.7 MB of its 5."""

_SCALE = (
    (0.0, translucent(COLOURS[0], 0.0)),  # no weight: the page shows through
    (0.1, translucent(COLOURS[0], 0.45)),
    (0.35, COLOURS[0]),
    (0.7, COLOURS[3]),
    (1.0, COLOURS[1]),
)
_PLOT = 540  # pixels of the picture, top to bottom
_TICKS = 76  # pixels of the key tokens below it
_SLIDER = 74  # pixels of each slider below them


def attention_viewer(
    patterns: Float[np.ndarray, "layer head query key"],
    tokens: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    title: str = "Attention patterns",
) -> go.Figure:
    """Every head's attention pattern: thumbnails of all, and sliders to look at one.

    Queries run down, keys across. Hover shows the query token, the key token and the weight
    in whole percents. An array and no table: a table would be a hundred times its size.

    Args:
        patterns: Attention weights in 0..1.
        tokens: The prompt's tokens.
        layers: The layers' numbers, where the array holds some layers only.
        title: Title of the figure.

    Raises:
        InputError: If the axes do not fit the tokens and layers, or the picture would be
            larger than `MAX_CELLS`.
    """
    n_layers, n_heads, n_queries, n_keys = patterns.shape
    names = list(range(n_layers)) if layers is None else list(layers)
    if not n_queries == n_keys == len(tokens) or len(names) != n_layers or not patterns.size:
        raise InputError(
            f"patterns of the shape {patterns.shape} do not fit {len(tokens)} tokens and "
            f"{len(names)} layers"
        )
    check_size(n_layers, n_heads, len(tokens))
    percent = (100 * np.nan_to_num(patterns)).round().clip(0, 100).astype(np.uint8)
    labels = [f"{pos} {token_label(token)}" for pos, token in enumerate(tokens)]
    down = _Axis("y", "layer", names, "query", labels)
    across = _Axis("x", "head", list(range(n_heads)), "key", labels)
    figure = go.Figure(
        go.Heatmap(
            z=rearrange(percent, "layer head query key -> (layer query) (head key)"),
            x=across.categories(),
            y=down.categories(),
            xgap=0,
            ygap=0,
            zmin=0,
            zmax=100,
            colorscale=_SCALE,
            colorbar={"title": {"text": "weight"}, "ticksuffix": " %"},
            hovertemplate="%{y}<br>%{x}<br>%{z} %<extra></extra>",
        )
    )
    figure.update_xaxes(type="category", showgrid=False, tickangle=-60, **across.view(None))
    figure.update_yaxes(type="category", showgrid=False, **down.view(None))
    for edge in range(1, n_layers):
        figure.add_hline(edge * n_queries - 0.5, line={"color": GRID, "width": 1})
    for edge in range(1, n_heads):
        figure.add_vline(edge * n_keys - 0.5, line={"color": GRID, "width": 1})
    below, plot = _TICKS + 2 * _SLIDER, max(_PLOT, 20 * n_layers)
    figure = themed(figure, title, "queries down, keys across", height=plot + below)
    plot = figure.layout.height - figure.layout.margin.t - below
    sliders = down.slider(-_TICKS / plot), across.slider(-(_TICKS + _SLIDER) / plot)
    return figure.update_layout(sliders=sliders, margin={"b": below, "l": 110})


@dataclass(frozen=True)
class _Axis:
    """One direction of the picture: tiles (layers or heads) of tokens (queries or keys)."""

    letter: str
    tile: str
    names: Sequence[int]
    token: str
    labels: Sequence[str]

    def categories(self) -> list[str]:
        """What hover says of each row or column; unique, although tokens repeat."""
        return [
            f"{self.tile} {name}, {self.token} {label}"
            for name in self.names
            for label in self.labels
        ]

    def view(self, index: int | None) -> dict[str, Any]:
        """Range and ticks of the axis: one tile with its tokens, or all with their names."""
        n = len(self.labels)
        if index is None:
            start, stop = 0, n * len(self.names)
            shown = range(0, len(self.names), -(-len(self.names) // 16))
            ticks = (
                [(i + 0.5) * n - 0.5 for i in shown],
                [f"{self.tile} {self.names[i]}" for i in shown],
            )
        else:
            start, stop = index * n, (index + 1) * n
            shown = range(0, n, -(-n // 40))
            ticks = [start + i for i in shown], [self.labels[i] for i in shown]
        ends = [start - 0.5, stop - 0.5]
        return {
            "range": ends if self.letter == "x" else ends[::-1],
            "tickvals": ticks[0],
            "ticktext": ticks[1],
        }

    def slider(self, y: float) -> dict[str, Any]:
        """A slider whose steps show all tiles, or one of them."""
        steps = []
        for index in [None, *range(len(self.names))]:
            view = {f"{self.letter}axis.{key}": value for key, value in self.view(index).items()}
            label = "all" if index is None else str(self.names[index])
            steps.append({"label": label, "method": "relayout", "args": [view]})
        return {
            "steps": steps,
            "y": y,
            "currentvalue": {"prefix": f"{self.tile}: "},
            "bgcolor": GRID,
            "activebgcolor": COLOURS[0],
            "bordercolor": INK,
            "tickcolor": INK,
            "pad": {"t": 0},
        }


def check_size(n_layers: int, n_heads: int, n_tokens: int) -> None:
    """Refuse a viewer that would be too large for a page.

    Raises:
        InputError: With the number of tokens and of layers that would fit.
    """
    cells = n_layers * n_heads * n_tokens**2
    if cells > MAX_CELLS:
        fit = int((MAX_CELLS / (n_layers * n_heads)) ** 0.5)
        few = MAX_CELLS // (n_heads * n_tokens**2)
        layers = f", or choose at most {few} layers" if few else ""
        raise InputError(
            f"{n_layers} x {n_heads} heads of {n_tokens} tokens are {cells} cells, and the viewer "
            f"shows at most {MAX_CELLS}: shorten the prompt to {fit} tokens{layers}"
        )
