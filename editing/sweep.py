"""Which layer can be edited: the same edits, made at one layer after another.

Where a causal trace peaks is not where an edit succeeds (Hase et al. 2023), so the layer of
an edit is found by editing. Set beside locating methods by `labkit.locate.compare`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from editing.evaluate import evaluate
from editing.rome import ROME
from labkit.corpus import Progress
from labkit.errors import InputError
from labkit.facts import Case
from labkit.models import LabModel
from labkit.results import Result


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSweep(Result):
    """Edits of the same cases at several layers, each case alone.

    Attributes:
        table: One row a layer, reading, metric and state: mean, low, high, n (cases).
        method: Name of the method.
        n_layers: Number of layers of the model.
        n_cases: Number of cases.
        model: Name of the model.
        fingerprint: Fingerprint of the model.
    """

    table: pd.DataFrame
    method: str
    n_layers: int
    n_cases: int
    model: str
    fingerprint: str

    @property
    def title(self) -> str:
        """What was swept."""
        return f"{self.method} at every layer tried, {self.n_cases} cases, {self.model}"

    def to_frame(self) -> pd.DataFrame:
        """The table; see the class."""
        return self.table

    def by_layer(
        self, metric: str = "score", reading: str = "success"
    ) -> Float[np.ndarray, " layer"]:
        """One number a layer, NaN where the layer was left out.

        Args:
            metric: "efficacy", "paraphrase", "neighbourhood" or "score", their harmonic mean.
            reading: "success", "argmax accuracy" or "generation".

        Raises:
            InputError: If nothing was measured under these names.
        """
        rows = self._edited(reading)
        rows = rows[rows["metric"] == metric]
        if rows.empty:
            raise InputError(f"no {metric!r} under the reading {reading!r} in this sweep")
        found = np.full(self.n_layers, np.nan)
        found[rows["layer"].to_numpy(int)] = rows["mean"]
        return found

    def figure(self) -> Any:
        """Success of the edited model by layer, a line a metric, with bands over cases."""
        from labkit.plots import profile_curves

        frame = self._edited("success").rename(columns={"metric": "method"})
        return profile_curves(frame, title=self.title, score="success", over="cases")

    def _edited(self, reading: str) -> pd.DataFrame:
        edited, read = self.table["state"] == "edited", self.table["reading"] == reading
        return self.table[edited & read]


def sweep_layers(
    model: LabModel,
    cases: Sequence[Case],
    layers: Sequence[int],
    method: ROME | None = None,
    *,
    progress: Progress | None = None,
) -> LayerSweep:
    """Edit every case at every one of some layers.

    Args:
        model: The model; afterwards it is what it was.
        cases: The cases; about 20 tell layers apart.
        layers: Which layers.
        method: The editor, whose own layer is overruled; ROME by default.
        progress: Called before each edit.

    Raises:
        InputError: If there are no cases or no layers.
        LayerOutOfRange: For a layer that the model does not have.
    """
    layers = sorted({model.layer(layer) for layer in layers})
    if not layers:
        raise InputError("a sweep needs at least one layer")
    method = ROME() if method is None else method
    if method.covariance:  # one pass for all layers; each edit then finds its own in the cache
        method.moments(model, layers, progress=progress)
    frames = []
    for number, layer in enumerate(layers):

        def told(stage: str, share: float, number: int = number, layer: int = layer) -> None:
            if progress is not None:
                progress(f"layer {layer}, {stage}", (number + share) / len(layers))

        found = evaluate(model, replace(method, layer=layer), cases, n_tokens=0, progress=told)
        frames.append(found.to_frame().assign(layer=layer))
    return LayerSweep(
        table=pd.concat(frames, ignore_index=True),
        method=type(method).__name__,
        n_layers=model.n_layers,
        n_cases=len(cases),
        model=model.name,
        fingerprint=model.fingerprint,
    )
