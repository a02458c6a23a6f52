"""Effects of a vector on queries without demonstrations, by layer and scale; with placebos."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.errors import InputError
from labkit.icl.asking.measures import tested
from labkit.icl.asking.task_result import QueriesResult
from labkit.icl.inside.vectors import READINGS
from labkit.stats import Estimate, average, share
from labkit.stats.intervals import over_units, shares_over_units


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorResult(QueriesResult):
    """Answers to queries with a vector in them, with none, and after demonstrations.

    Layer and scale are chosen on the first `development` queries; every number shown is of the
    others. Its unit is the query, draws of demonstrations averaged first.

    Attributes:
        method: What kind of vector it is.
        k: Number of demonstrations that the vector was taken from.
        form: Whether the vector takes the place of the state, or is added to it.
        vectors: The vector, then its placebos, in words.
        scales: How many times a vector is added.
        layers: The blocks after which it is added.
        development: How many of them, the first, serve to choose layer and scale.
        seed: Seed of the draws.
        readings: `READINGS` of every answer, in their order.
        zero_shot: The same without a vector.
        k_shot: The same after `k` demonstrations, without a vector.
        directions: The vectors themselves; one where it is the same for all draws and layers.
        words: By layer of `directions`, what the vector (of the first draw) reads as.
    """

    method: str
    k: int
    form: str
    vectors: tuple[str, ...]
    scales: tuple[float, ...]
    layers: tuple[int, ...]
    development: int
    seed: int
    readings: Float[np.ndarray, "reading vector scale layer draw query"]
    zero_shot: Float[np.ndarray, "reading query"]
    k_shot: Float[np.ndarray, "reading draw query"]
    directions: Float[np.ndarray, "own vector_layer d_model"]
    words: tuple[tuple[str, ...], ...]

    @property
    def chosen(self) -> tuple[float, int]:
        """Scale and layer of the highest mean log-probability on the development queries."""
        own = self.readings[_reading("log_prob"), 0, ..., : self.development].mean(axis=(-2, -1))
        scale, layer = np.unravel_index(own.argmax(), own.shape)
        return self.scales[scale], self.layers[layer]

    @property
    def n_measured(self) -> int:
        """Queries that the effect is read on."""
        return len(self.queries) - self.development

    @property
    def title(self) -> str:
        """The effect of the vector, at the layer chosen on other queries."""
        _, layer = self.chosen
        none = self.estimate("said", "zero-shot").mean
        with_it = self.estimate("said", self.vectors[0]).mean
        shown = self.estimate("said", "k-shot").mean
        return (
            f"{self.method.capitalize()} of {self.task} in {self.model}: right label said to "
            f"{none:.0%} of {self.n_measured} queries by itself, {with_it:.0%} with the vector at "
            f"layer {layer}, {shown:.0%} after {self.k} demonstrations"
        )

    def values(
        self,
        reading: str,
        vector: str,
        *,
        layer: int | None = None,
        scale: float | None = None,
    ) -> Float[np.ndarray, " query"]:
        """A reading of the queries that were not chosen on, draws averaged.

        Args:
            reading: One of `READINGS`.
            vector: One of `vectors`, "zero-shot" or "k-shot".
            layer: By default the one chosen.
            scale: By default the one chosen.

        Raises:
            InputError: If that was not measured.
        """
        number = _reading(reading)
        if vector == "zero-shot":
            return self.zero_shot[number, self.development :]
        if vector == "k-shot":
            return self.k_shot[number, :, self.development :].mean(axis=0)
        best_scale, best_layer = self.chosen
        place = (scale if scale is not None else best_scale, best_layer if layer is None else layer)
        if vector not in self.vectors or place[0] not in self.scales or place[1] not in self.layers:
            raise InputError(
                f"{vector!r} x {place[0]:g} at layer {place[1]} was not measured; there are "
                f"{', '.join(self.vectors)}, scales {self.scales}, layers {self.layers}"
            )
        at = (self.vectors.index(vector), self.scales.index(place[0]), self.layers.index(place[1]))
        return self.readings[number][at][:, self.development :].mean(axis=0)

    def estimate(
        self, reading: str, vector: str, *, layer: int | None = None, scale: float | None = None
    ) -> Estimate:
        """`values` as an estimate over queries."""
        values = self.values(reading, vector, layer=layer, scale=scale)
        return average(values) if reading == "log_prob" else share(values)

    def to_frame(self) -> pd.DataFrame:
        """One row per reading, vector, scale and layer, with intervals over queries.

        Columns `reading, vector, scale, layer, mean, low, high, n`.
        """
        held_out = self.readings[..., self.development :].mean(axis=-2)
        logs = np.array([name == "log_prob" for name in READINGS])[:, None, None, None]
        cells = np.moveaxis(held_out, -1, 0)  # query, reading, vector, scale, layer
        mean, low, high, n = (
            np.where(logs, nats, shares)
            for nats, shares in zip(over_units(cells), shares_over_units(cells), strict=True)
        )
        index = pd.MultiIndex.from_product(
            [READINGS, self.vectors, self.scales, self.layers],
            names=["reading", "vector", "scale", "layer"],
        )
        columns = {"mean": mean, "low": low, "high": high, "n": n}
        flat = {name: values.ravel() for name, values in columns.items()}
        return pd.DataFrame(flat, index=index).reset_index()

    def summary(self) -> pd.DataFrame:
        """Every reading at the layer and scale chosen: `reading, what, mean, low, high, n`."""
        return pd.DataFrame(
            {"reading": reading, "what": what} | self.estimate(reading, what).to_dict()
            for reading in READINGS
            for what in ("zero-shot", *self.vectors, "k-shot")
        )

    def comparisons(self, reading: str = "log_prob") -> pd.DataFrame:
        """The vector less each placebo, none, and demonstrations, at the place chosen.

        Columns `against, mean, low, high, n`, `p` of a sign-flip test over queries, and
        `p_holm`, corrected for the number of rows.
        """
        own = self.values(reading, self.vectors[0])
        others = ("zero-shot", *self.vectors[1:], "k-shot")
        pairs = (({"against": other}, own, self.values(reading, other)) for other in others)
        return tested(pairs, ("against",), seed=self.seed)

    def vocabulary(self) -> pd.DataFrame:
        """What the vector reads as through the final norm and unembedding: `layer, tokens`."""
        layers = self.layers if len(self.words) == len(self.layers) else (self.chosen[1],)
        return pd.DataFrame({"layer": layers, "tokens": [list(row) for row in self.words]})

    def figure(self, reading: str = "said") -> Any:
        """A reading by layer at the scale chosen, the vector beside its placebos.

        Raises:
            InputError: If there is no such reading.
        """
        from labkit.plots.icl.vectors import vector_curves

        _reading(reading)
        scale, layer = self.chosen
        frame = self.to_frame()
        frame = frame[(frame["reading"] == reading) & (frame["scale"] == scale)]
        how = "in place of the state" if self.form == "replace" else f"added {scale:g} times"
        return vector_curves(
            frame,
            reading=READINGS[reading],
            levels={
                "no vector": self.estimate(reading, "zero-shot"),
                f"{self.k} demonstrations": self.estimate(reading, "k-shot"),
            },
            chosen=layer,
            title=self.title,
            subtitle=f"{how}; 95 % over {self.n_measured} queries, layer chosen on others",
        )

    def figure_scales(self, reading: str = "said") -> Any:
        """A reading of the vector by scale and layer.

        Raises:
            InputError: If there is no such reading.
        """
        from labkit.plots.icl.vectors import scale_map

        _reading(reading)
        frame = self.to_frame()
        frame = frame[(frame["reading"] == reading) & (frame["vector"] == self.vectors[0])]
        return scale_map(frame, reading=READINGS[reading], title=self.title)


def _reading(name: str) -> int:
    """The place of a reading in the arrays."""
    if name not in READINGS:
        raise InputError(f"no reading {name!r}; there are {', '.join(READINGS)}")
    return list(READINGS).index(name)
