"""Hover texts of points whose interval is missing."""

import re

import numpy as np
import pandas as pd
from plotly import graph_objects as go

_ENDS = re.compile(
    r"\[%\{customdata\[(?P<low>\d+)\](?::(?P<spec>[^}]*))?\}, "
    r"%\{customdata\[(?P<high>\d+)\](?::[^}]*)?\}\]"
)
"""An interval in a hover text."""


def hover_without_interval(figure: go.Figure) -> None:
    """Say "no interval" where a point's ends are NaN, which plotly would show as numbers."""
    for trace in figure.data:
        template = trace.hovertemplate if "hovertemplate" in trace else None
        pairs = list(_ENDS.finditer(template)) if isinstance(template, str) else []
        if template is None or not pairs or trace.customdata is None:
            continue
        cells = np.array(trace.customdata, dtype=object)
        if not cells.size:
            continue
        shown = template
        for pair in pairs:
            low, high = cells[..., int(pair["low"])], cells[..., int(pair["high"])]
            if not pd.isna(low).any():
                continue
            spec = pair["spec"] or ""
            told = np.empty(low.shape, dtype=object)
            for place in np.ndindex(low.shape):
                ends = (low[place], high[place])
                missing = any(map(pd.isna, ends))
                told[place] = (
                    "(no interval)" if missing else f"[{ends[0]:{spec}}, {ends[1]:{spec}}]"
                )
            shown = shown.replace(pair[0], f"%{{customdata[{cells.shape[-1]}]}}")
            cells = np.concatenate([cells, told[..., None]], axis=-1)
        if shown != template:
            trace.update(customdata=cells, hovertemplate=shown)
