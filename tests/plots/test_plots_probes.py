"""Figures of probes show every reading where it belongs, and refuse tables that lack it."""

import pandas as pd
import pytest

from labkit import plots
from labkit.errors import InputError


def curves():
    rows = [
        {"depth": d, "reading": r, "mean": m + d / 10, "low": m - 0.1, "high": m + 0.3}
        for r, m in {"score": 0.5, "control": 0.3, "form": 0.4}.items()
        for d in range(3)
    ]
    return pd.DataFrame(rows)


def test_a_probe_has_a_line_a_reading_and_level_baselines():
    figure = plots.probe_curves(curves(), measure="accuracy", title="t")
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert set(lines) == {"the probe", "control task", "word form"}
    assert list(lines["the probe"].y) == [0.5, 0.6, 0.7]
    assert lines["word form"].line.dash == "dash"
    assert figure.layout.yaxis.title.text == "accuracy"
    with pytest.raises(InputError, match="reading"):
        plots.probe_curves(curves().drop(columns="reading"), measure="accuracy", title="t")


def cells():
    columns = ("score", "low", "high", "baseline", "selectivity", "compression")
    return pd.DataFrame(
        {"task": task, "family": "lexical", "depth": depth, "share": share}
        | dict.fromkeys(columns, 0.5)
        for task, shares in {"<b>": (0.1, 0.9), "upos": (-0.2, 0.4)}.items()
        for depth, share in enumerate(shares)
    )


def test_the_map_has_a_row_a_task_and_a_diamond_at_its_centre():
    centres = pd.DataFrame({"task": ["upos"], "mean": [0.6], "low": [0.4], "high": [0.9]})
    heatmap, centre = plots.probe_map_heatmap(cells(), centres, title="t").data
    assert heatmap.z.tolist() == [[0.1, 0.9], [0.0, 0.4]]  # below the majority is nothing
    assert heatmap.y[0].startswith("&lt;b&gt;") and "lexical" in heatmap.y[0]
    assert list(centre.x) == [0.6] and centre.y[0] == heatmap.y[1]
    assert centre.error_x.array[0] == pytest.approx(0.3)
    (alone,) = plots.probe_map_heatmap(cells(), centres.iloc[:0], title="t").data
    assert alone.type == "heatmap"


def test_an_intervention_stands_beside_its_placebo():
    frame = pd.DataFrame(
        {"intervention": name, "measure": m, "mean": v, "low": v - 1, "high": v + 1, "n": 9}
        for name, v in {"real": 2.0, "random": 0.1}.items()
        for m in ("kl", "norm")
    )
    figure = plots.removal_bars(frame, measures={"kl": "KL"}, title="t")
    assert {bar.name: list(bar.y) for bar in figure.data} == {"real": [2.0], "random": [0.1]}
