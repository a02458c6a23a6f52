"""Results of `FunctionVectors`: effects of the vector, and the heads it is summed from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.icl.inside.vector_result import VectorResult
from labkit.stats.intervals import over_units


@dataclass(frozen=True, kw_only=True, eq=False)
class FunctionVectorResult(VectorResult):
    """A `VectorResult`, with the indirect effect of every head.

    Attributes:
        effects: Change of P(right label) in prompts with permuted labels where a head's output
            is its mean after right ones, -1..1.
        heads: The (layer, head) that the vector is the sum of, the strongest first.
    """

    effects: Float[np.ndarray, "prompt every_layer head"]
    heads: tuple[tuple[int, int], ...]

    def heads_frame(self) -> pd.DataFrame:
        """One row per head, the strongest first: `layer, head, effect, ..., n, chosen`.

        `effect_low` and `effect_high` are 95 % intervals over prompts.
        """
        mean, low, high, n = over_units(self.effects, within=(-1.0, 1.0))
        layers, heads = (axis.ravel() for axis in np.indices(mean.shape))
        frame = pd.DataFrame(
            {
                "layer": layers,
                "head": heads,
                "effect": mean.ravel(),
                "effect_low": low.ravel(),
                "effect_high": high.ravel(),
                "n": n.ravel(),
                "chosen": [cell in self.heads for cell in zip(layers, heads, strict=True)],
            }
        )
        return frame.sort_values("effect", ascending=False, kind="stable", ignore_index=True)

    def figure_heads(self) -> Any:
        """The average indirect effect of every head, as a grid."""
        from labkit.plots import head_grids

        frame = self.heads_frame()
        best = ", ".join(f"L{layer}H{head}" for layer, head in self.heads[:3])
        return head_grids(
            frame,
            {"effect": "change of P(right label)"},
            title=f"Heads that carry {self.task} in {self.model}: {best}",
            subtitle=(
                f"one head as after right labels, in {len(self.effects)} prompts whose labels "
                "are permuted"
            ),
        )
