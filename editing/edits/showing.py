"""How a change of weights is displayed: which layers, of which rank and norm."""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from editing.edits.change import Change

_NUMBER = re.compile(r"\.(\d+)\.")


class ShownChange:
    """How a `WeightDelta` is shown in a notebook; it needs `changes` and `rewrites`."""

    changes: Mapping[str, Change]

    @property
    def rewrites(self) -> tuple[dict[str, Any], ...]:
        """The rewrites that it was asked for, as JSON records."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers with a changed weight, ascending."""
        return tuple(sorted({layer for layer in map(_layer, self.changes) if layer is not None}))

    @property
    def title(self) -> str:
        """What changes, in one line."""
        weights = "1 weight" if len(self.changes) == 1 else f"{len(self.changes)} weights"
        where = f" in layers {', '.join(map(str, self.layers))}" if self.layers else ""
        asked = f", made for {len(self.rewrites)} rewrites" if len(self.rewrites) > 1 else ""
        if len(self.rewrites) == 1:
            row = self.rewrites[0]
            asked = f": {row['subject']} -> {row.get('target_new') or 'forgotten'}"
        return f"Change of {weights}{where}{asked}"

    def to_frame(self) -> pd.DataFrame:
        """One row per changed weight: `weight`, `layer`, `shape`, `rank` and `norm`.

        `rank` is that of the factors (of the matrix, where the change is dense), `norm` the
        Frobenius norm of the change.
        """
        rows = [
            {
                "weight": name,
                "layer": _layer(name),
                "shape": " x ".join(map(str, change.shape)),
                "rank": change.rank,
                "norm": float(change.dense().norm()),
            }
            for name, change in self.changes.items()
        ]
        return pd.DataFrame(rows, columns=["weight", "layer", "shape", "rank", "norm"])

    def figure(self) -> Any:
        """The norm of each weight's change."""
        from labkit.plots import change_bars

        return change_bars(self.to_frame(), title=self.title)

    def _repr_html_(self) -> str:
        """Title and table."""
        table = self.to_frame().to_html(index=False, border=0, float_format="{:.3g}".format)
        return f"<p><strong>{escape(self.title)}</strong></p>{table}"


def _layer(name: str) -> int | None:
    """The layer that a parameter belongs to; None for one outside of the blocks."""
    found = _NUMBER.search(name)
    return int(found[1]) if found else None
