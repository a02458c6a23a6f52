"""The picture of patching from one prompt into another."""

from collections.abc import Collection

import pandas as pd
from plotly import graph_objects as go

from labkit.plots.locate.tracing import STATES, layers_across, token_axis
from labkit.plots.theme import (
    DIVERGING,
    SEQUENTIAL,
    of_rows,
    require_columns,
    text,
    themed,
    token_label,
)


def pair_heatmap(
    frame: pd.DataFrame,
    *,
    reading: str,
    answers: tuple[str, str],
    clean: float,
    corrupted: float,
    subject_positions: Collection[int],
    kind: str = "resid",
) -> go.Figure:
    """What patching each state of one prompt into another gives, by token and layer.

    Args:
        frame: Columns `pos, token, other_token, layer, share` and the reading's.
        reading: "probability" (of the clean prompt's answer; colours run from corrupted to
            clean) or "logit_difference" (colours are centred between the answers).
        answers: The clean and the corrupted prompt's answer.
        clean: The reading of the clean run.
        corrupted: The reading of the corrupted run.
        subject_positions: Values of `pos` that belong to the subject.
        kind: What is patched: a key of `STATES`, or words of your own.

    Raises:
        InputError: If a column is missing or there are no rows.
    """
    require_columns(frame, ("pos", "token", "other_token", "layer", "share", reading))
    right, wrong = (answer.strip() for answer in answers)
    values, shares = (
        frame.pivot(index="pos", columns="layer", values=v) for v in (reading, "share")
    )
    named = frame.drop_duplicates("pos").set_index("pos").loc[values.index]
    labels = [
        token_label(new if new == old else f"{old}/{new}", width=24)
        + (" *" if pos in subject_positions else "")
        for pos, new, old in zip(named.index, named["token"], named["other_token"], strict=True)
    ]
    difference = reading == "logit_difference"
    limit = max(abs(clean), abs(corrupted), 1e-6)
    low, high = sorted((clean, corrupted))
    name = f"logit({right}) - logit({wrong})" if difference else f"P({right})"
    heatmap = go.Heatmap(
        z=values.to_numpy(),
        x=list(values.columns),
        y=list(values.index),
        text=[[label] * values.shape[1] for label in labels],
        customdata=shares.to_numpy(),
        zmin=-limit if difference else low,
        zmax=limit if difference else max(high, low + 1e-6),
        colorscale=DIVERGING if difference else SEQUENTIAL,
        colorbar={"title": {"text": "logits" if difference else text(name)}},
        hovertemplate=(
            "%{text}, layer %{x}<br>%{z:.3f}; share of the logit difference "
            "%{customdata:.0%}<extra></extra>"
        ),
    )
    figure = go.Figure(heatmap)
    figure.update_xaxes(title_text="layer whose state is patched", **layers_across(frame))
    height, letters = of_rows(len(labels), 26, 150)
    figure.update_yaxes(**token_axis(list(values.index), labels, letters))
    return themed(
        figure,
        f"{name} after patching the {STATES.get(kind, kind)}",
        f"clean {clean:.3f}, corrupted {corrupted:.3f};  * subject, corrupted/clean token",
        height=height,
    )
