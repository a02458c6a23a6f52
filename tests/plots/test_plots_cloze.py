"""Figures of cloze probing carry their numbers, intervals and controls."""

import numpy as np
import pandas as pd
import pytest
from plotly import graph_objects as go

from labkit import plots
from labkit.errors import InputError


def precision():
    rows = [
        (reading, k, depth, base * depth / 3, base * depth / 3 - 0.1, base * depth / 3 + 0.1, 7)
        for reading, base in (("the answer", 0.8), ("another object", 0.2), ("unrelated", 0.1))
        for k in (1, 10)
        for depth in range(4)
    ]
    frame = pd.DataFrame(rows, columns=["reading", "k", "depth", "mean", "low", "high", "n"])
    return frame.sample(frac=1, random_state=0)


def test_precision_is_drawn_for_every_k_with_its_band_and_its_control():
    figure = plots.cloze_precision(precision(), title="<i>")
    lines = {data.name: data for data in figure.data if data.name}
    assert set(lines) == {f"{who}top {k}" for who in ("", "another object, ") for k in (1, 10)}
    np.testing.assert_allclose(lines["top 10"].y, [0, 0.8 / 3, 1.6 / 3, 0.8])
    np.testing.assert_allclose(lines["another object, top 1"].y[-1], 0.2)
    assert lines["another object, top 1"].line.dash == "dot"
    assert lines["another object, top 1"].line.color == lines["top 1"].line.color
    bands = [data for data in figure.data if data.fill == "toself"]
    assert len(bands) == 2 and max(bands[0].y) == pytest.approx(0.9)
    assert figure.layout.title.text == "&lt;i&gt;"
    with pytest.raises(InputError, match="no rows"):
        plots.cloze_precision(precision().query("reading == 'unrelated'"))


def test_ranks_are_logarithmic_with_the_best_on_top():
    frame = precision().query("k == 1").assign(mean=[10.0] * 12, low=5.0, high=20.0)
    figure = plots.cloze_ranks(frame)
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis.autorange == "reversed"
    assert len([data for data in figure.data if data.name]) == 3


def test_relations_show_where_they_become_readable_and_said():
    rows = [
        (name, k, 9, reach, at, at - 1, at + 1)
        for name, at in (("<r>", 5.0), ("all", 3.0), ("s", 2.0))
        for k, reach in ((1, 4 if name != "s" else 0), (10, 8))
    ]
    columns = ["relation", "k", "facts", "reach", "mean", "low", "high"]
    figure = plots.cloze_depths(pd.DataFrame(rows, columns=columns), n_layers=6)
    said, readable = figure.data
    assert said.name == "the answer" and readable.name == "among the top 10"
    assert list(figure.layout.yaxis.ticktext) == ["s", "&lt;r&gt;", "all"]
    assert sorted(said.x) == [3, 5] and sorted(readable.x) == [2, 3, 5]
    assert list(said.error_x.array) == [1, 1]
    with pytest.raises(InputError, match="no rows"):
        plots.cloze_depths(pd.DataFrame(rows, columns=columns).assign(reach=0), n_layers=6)


def test_popularity_is_logarithmic_with_intervals():
    frame = pd.DataFrame(
        {"popularity": [1e4, 1e2], "k": 1, "mean": [0.5, 0.1], "low": 0.0, "high": 0.6, "n": 20}
    )
    (line,) = plots.cloze_popularity(frame).data
    assert list(line.x) == [1e2, 1e4] and list(line.y) == [0.1, 0.5]
    assert list(line.error_y.array) == pytest.approx([0.5, 0.1])


def test_every_figure_is_plain():
    frame = precision().query("k == 1").rename(columns={"reading": "lens"})
    for figure in (plots.lens_quality_curves(frame), plots.cloze_precision(precision())):
        assert type(figure) is go.Figure
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
