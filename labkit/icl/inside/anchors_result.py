"""Results of `Anchors`: where attention goes among demonstrations, and what depends on it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.icl.asking.measures import measured
from labkit.icl.asking.task_result import LabelsResult
from labkit.icl.inside.anchor_edges import PARTS
from labkit.icl.inside.heads_result import named
from labkit.stats import average, holm, paired_difference, share
from labkit.stats.intervals import over_units

LABEL_PARTS = ("own input", "other inputs", "labels", "format", "first token")
"""What label words look at; *labels* are themselves and those before."""

FLOWS = ("before -> label (wp)", "label -> last token (pq)", "others (ww)")
"""Sets of edges whose mean saliency is compared, as Wang et al. name them."""

Source = Literal["query", "labels"]
"""Whose attention: the query's last token's, or that of label words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AnchorsResult(LabelsResult):
    """Attention, saliency and blocked edges of a task's prompts.

    The unit of every interval is the query, its sets of demonstrations averaged first; for what
    label words look at, which no query changes, the set.

    Attributes:
        config: The method's fields.
        edges: What was blocked.
        windows: Layers in which it was, `(start, stop)`; the last are all.
        n_edges: Edges that were blocked, and random ones in their place; mean over sets.
        clean: Log-probability of each label's first token with nothing blocked, in nats.
        blocked: The same with edges blocked (0), and with random ones (1); NaN without any.
        attention: Shares of the last token's attention, by `PARTS`; they sum to 1.
        label_attention: Shares of label words' attention, by `LABEL_PARTS`; they sum to 1.
        saliency: Mean |A * dL/dA| over edges, by `FLOWS`.
        tokens: Tokens of the first prompt.
        parts: The part of each.
        weights: Attention of its last token.
    """

    config: dict[str, Any]
    edges: tuple[str, ...]
    windows: tuple[tuple[int, int], ...]
    n_edges: Float[np.ndarray, "edge random"]
    clean: Float[np.ndarray, "set query label"]
    blocked: Float[np.ndarray, "set edge random window query label"]
    attention: Float[np.ndarray, "set read layer head part"]
    label_attention: Float[np.ndarray, "set read layer head label_part"]
    saliency: Float[np.ndarray, "set read layer flow"]
    tokens: tuple[str, ...]
    parts: tuple[str, ...]
    weights: Float[np.ndarray, "layer head pos"]

    @property
    def title(self) -> str:
        """The loss from blocking labels in all layers, or from the first edges blocked."""
        row = self.row("gold", self.edges[0], self.windows[-1])
        return (
            f"{self.task} in context, {self.model}: P(right label) {row['intact']:.2f}, "
            f"{row['mean']:.2f} with {self.edges[0]} blocked in all layers"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per measure, set of edges and window of layers, tested together.

        Measures are "accuracy" and "gold" (probability of the right label's first token), 0..1.
        Columns `measure, edges, layers, start, stop, n_edges, n_random` (edges per head), `intact`
        (nothing blocked), `mean, low, high` (these blocked), `change, change_low, change_high`
        (these - nothing, query by query), `random, random_low, random_high` (the same change
        with random edges; NaN where there are none), `beyond, beyond_low, beyond_high` (change -
        random), `p` of a sign-flip test of `beyond`, `p_holm`, `n`.
        """
        return self._frame.copy()

    @cached_property
    def _frame(self) -> pd.DataFrame:
        """The table, computed once: its tests are resampled."""
        rows = []
        for measure in ("accuracy", "gold"):
            intact = measured(self.clean, self.labels, self.gold, measure).mean(axis=0)
            values = measured(self.blocked, self.labels, self.gold, measure).mean(axis=0)
            for place, edges in enumerate(self.edges):
                for window, (start, stop) in enumerate(self.windows):
                    own = values[place, 0, window]
                    row: dict[str, Any] = {"measure": measure, "edges": edges}
                    row |= {"start": start, "stop": stop, "layers": self._layers(start, stop)}
                    row |= {"n_edges": self.n_edges[place, 0], "n_random": self.n_edges[place, 1]}
                    row |= {"intact": float(intact.mean()), "n": len(own)}
                    of = share if measure == "accuracy" else average
                    row |= named(of(own))
                    row |= named(average(own - intact), "change")
                    if self.n_edges[place, 1]:
                        random = values[place, 1, window]
                        beyond, p = paired_difference(own, random)
                        row |= named(average(random - intact), "random")
                        row |= named(beyond, "beyond") | {"p": p}
                    rows.append(row)
        frame = pd.DataFrame(rows)
        if "p" in frame:
            tested = frame["p"].notna()
            frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"].tolist())
        return frame

    def row(self, measure: str, edges: str, window: tuple[int, int] | None = None) -> pd.Series:
        """One row of the table, for all layers where no window is given.

        Raises:
            InputError: If that was not measured.
        """
        start, stop = self.windows[-1] if window is None else window
        frame = self._frame
        found = frame[(frame["measure"] == measure) & (frame["edges"] == edges)]
        found = found[(found["start"] == start) & (found["stop"] == stop)]
        if found.empty:
            raise InputError(
                f"{measure!r} with {edges!r} blocked in {start}..{stop - 1} was not measured"
            )
        return found.iloc[0]

    def attention_frame(self, source: Source = "query", *, by_head: bool = False) -> pd.DataFrame:
        """Shares of attention: `layer, part, mean, low, high`, and `head` if it is asked for.

        Intervals are over queries; those of label words, which no query comes before, over sets
        of demonstrations. Without `by_head`, heads are averaged first.

        Raises:
            InputError: If `source` is neither "query" nor "labels".
        """
        if source not in ("query", "labels"):
            raise InputError(f"attention of the 'query' or of 'labels', not of {source!r}")
        parts = PARTS if source == "query" else LABEL_PARTS
        own = self.label_attention.mean(axis=1)
        values = self.attention.mean(axis=0) if source == "query" else own
        cells = values if by_head else values.mean(axis=2, keepdims=True)
        mean, low, high, _ = over_units(cells, within=(0.0, 1.0))
        layers, heads, places = (axis.ravel() for axis in np.indices(mean.shape))
        frame = pd.DataFrame({"layer": layers, "head": heads, "part": [parts[i] for i in places]})
        frame = frame.assign(mean=mean.ravel(), low=low.ravel(), high=high.ravel())
        return frame if by_head else frame.drop(columns="head")

    def saliency_frame(self) -> pd.DataFrame:
        """Share of each flow in the saliency of a layer: `layer, part, mean, low, high`.

        Shares are those of the means over edges, S_flow / (S_wp + S_pq + S_ww).
        """
        shares = self.saliency / self.saliency.sum(axis=-1, keepdims=True)
        mean, low, high, _ = over_units(shares.mean(axis=0), within=(0.0, 1.0))
        layers, flows = (axis.ravel() for axis in np.indices(mean.shape))
        frame = pd.DataFrame({"layer": layers, "part": [FLOWS[flow] for flow in flows]})
        return frame.assign(mean=mean.ravel(), low=low.ravel(), high=high.ravel())

    def figure(self, measure: str = "gold") -> Any:
        """What blocking edges changes, one panel per window of layers, beside random edges."""
        from labkit.plots.icl.anchors import knockout_bars

        frame = self.to_frame()
        named = {"accuracy": "accuracy", "gold": "P(right label)"}
        if measure not in named:
            raise InputError(f"no measure {measure!r}; there are {', '.join(named)}")
        rows = frame[frame["measure"] == measure]
        return knockout_bars(
            rows.assign(panel=rows["layers"].map(_panel)),
            measure=f"change of {named[measure]}",
            title=self.title,
            subtitle=f"95 % intervals over {len(self.queries)} queries; {self.source}",
        )

    def figure_attention(self, source: Source = "query") -> Any:
        """Where attention goes, by layer, mean over heads."""
        from labkit.plots.icl.anchors import shares_by_layer

        whose = "the query's last token" if source == "query" else "label words"
        units = "queries" if source == "query" else "sets of demonstrations"
        return shares_by_layer(
            self.attention_frame(source),
            measure="share of attention",
            title=f"Where {whose} look{'s' if source == 'query' else ''}: {self._about}",
            subtitle=f"mean over heads; bands: 95 % over {units}",
        )

    def figure_saliency(self) -> Any:
        """Which edges the answer depends on, by layer, as shares of the three means."""
        from labkit.plots.icl.anchors import shares_by_layer

        return shares_by_layer(
            self.saliency_frame(),
            measure="share of the mean saliency",
            title=f"Attention x gradient: {self._about}",
            subtitle="mean over edges of each flow; bands: 95 % over queries",
        )

    def figure_heads(self) -> Any:
        """Which heads look from the query's last token at labels, and at inputs."""
        from labkit.plots import head_grids
        from labkit.plots.icl.heads import head_columns

        panels = {"labels": "labels", "inputs": "inputs"}
        return head_grids(
            head_columns(self.attention_frame(by_head=True), "part", list(panels)),
            panels,
            title=f"Attention of the last token, head by head: {self._about}",
            percent=list(panels),
        )

    def prompt_frame(self, layer: int | None = None) -> pd.DataFrame:
        """Attention of the first prompt's last token: `pos, token, part, attention`.

        Mean over heads, and over layers where none is named.

        Raises:
            InputError: If there is no such layer.
        """
        n_layers = len(self.weights)
        if layer is not None and not 0 <= layer < n_layers:
            raise InputError(f"layer {layer} of {self.model}: choose one of 0..{n_layers - 1}")
        chosen = self.weights if layer is None else self.weights[layer : layer + 1]
        columns = {"pos": range(len(self.tokens)), "token": self.tokens, "part": self.parts}
        return pd.DataFrame(columns | {"attention": chosen.mean(axis=(0, 1))})

    def figure_prompt(self, layer: int | None = None) -> Any:
        """The first prompt, every token coloured by the last one's attention; labels framed."""
        from labkit.plots.icl.anchors import attention_flow

        where = "all layers" if layer is None else f"layer {layer}"
        return attention_flow(
            self.prompt_frame(layer), title=f"Attention from the last token, {where}: {self._about}"
        )

    @property
    def _about(self) -> str:
        """Task and model."""
        return f"{self.task}, {self.model}"

    def _layers(self, start: int, stop: int) -> str:
        """A window in words."""
        if (start, stop) == self.windows[-1]:
            return "all"
        return str(start) if stop == start + 1 else f"{start}-{stop - 1}"


def _panel(layers: str) -> str:
    """The name of a window in the figure."""
    return "all layers" if layers == "all" else f"layer{'s' * ('-' in layers)} {layers}"
