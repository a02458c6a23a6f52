"""The viewer shows every weight where it belongs and stays small; grids and curves likewise."""

import numpy as np
import pandas as pd
import plotly.io as pio
import pytest
from plotly import graph_objects as go

from labkit import plots
from labkit.errors import InputError
from labkit.plots.locate.attention import MAX_CELLS

TOKENS = ["the", " cat", " <b>", " the", "the"]  # a token twice, and one that looks like a tag


def patterns(n_layers=2, n_heads=3, n_tokens=5):
    shape = (n_layers, n_heads, n_tokens, n_tokens)
    weights = np.tril(np.random.default_rng(0).random(shape))
    return weights / weights.sum(axis=-1, keepdims=True)


def view(figure, **steps):
    """The axis settings of a slider's step, by the slider's name."""
    found = []
    for name, label in steps.items():
        (slider,) = (s for s in figure.layout.sliders if s.currentvalue.prefix == f"{name}: ")
        (step,) = (s for s in slider.steps if s.label == label)
        assert step.method == "relayout"
        found.append(step.args[0])
    return found[0]


def test_every_weight_is_in_its_tile_in_whole_percents():
    weights = patterns()
    (data,) = plots.attention_viewer(weights, TOKENS).data
    for layer, head, query, key in [(0, 0, 0, 0), (1, 2, 4, 1), (0, 1, 3, 3), (1, 0, 1, 4)]:
        row = list(data.y).index(f"layer {layer}, query {query} {label(query)}")
        column = list(data.x).index(f"head {head}, key {key} {label(key)}")
        assert data.z[row][column] == round(100 * weights[layer, head, query, key])
    assert data.z.shape == (2 * 5, 3 * 5) and data.z.dtype == np.uint8
    assert len(set(data.x)) == 15 and len(set(data.y)) == 10


def label(pos):
    return TOKENS[pos].replace(" ", "·").replace("<", "&lt;").replace(">", "&gt;")


def test_the_sliders_show_one_tile_with_its_tokens_or_all():
    figure = plots.attention_viewer(patterns(), TOKENS)
    one = view(figure, layer="1")
    assert one["yaxis.range"] == [9.5, 4.5]  # the first query on top
    assert one["yaxis.tickvals"] == [5, 6, 7, 8, 9]
    assert one["yaxis.ticktext"][2] == "2 ·&lt;b&gt;"
    across = view(figure, head="2")
    assert across["xaxis.range"] == [9.5, 14.5] and across["xaxis.tickvals"][0] == 10
    everything = view(figure, head="all")
    assert everything["xaxis.range"] == [-0.5, 14.5]
    assert everything["xaxis.tickvals"] == [2, 7, 12]
    assert everything["xaxis.ticktext"] == ["head 0", "head 1", "head 2"]
    shown = figure.layout.xaxis
    assert (tuple(shown.range), tuple(shown.ticktext)) == (
        (-0.5, 14.5),
        ("head 0", "head 1", "head 2"),
    )


def test_layers_keep_their_numbers():
    figure = plots.attention_viewer(patterns(), TOKENS, layers=[4, 9])
    assert [step.label for step in figure.layout.sliders[0].steps] == ["all", "4", "9"]
    assert figure.data[0].y[5].startswith("layer 9, query 0")


@pytest.mark.parametrize("shape", [(12, 12, 100), (30, 9, 113)], ids=["gpt2", "smollm2"])
def test_a_page_of_all_heads_stays_small(shape):
    n_layers, n_heads, n_tokens = shape
    figure = plots.attention_viewer(patterns(*shape), [f" token{i}" for i in range(n_tokens)])
    assert len(figure.data) == 1  # nothing is stored twice
    assert len(plots.to_html(figure)) < min(5_000_000, 1.6 * n_layers * n_heads * n_tokens**2)


def test_what_would_be_too_large_is_refused_with_what_would_fit():
    weights = np.broadcast_to(np.float32(0), (30, 9, 200, 200))
    with pytest.raises(InputError, match="to 113 tokens, or choose at most 9 layers"):
        plots.attention_viewer(weights, ["a"] * 200)
    assert 30 * 9 * 113**2 <= MAX_CELLS < 30 * 9 * 114**2
    assert 9 * 9 * 200**2 <= MAX_CELLS < 10 * 9 * 200**2
    with pytest.raises(InputError, match="do not fit"):
        plots.attention_viewer(patterns(), TOKENS[:-1])
    with pytest.raises(InputError, match="do not fit"):
        plots.attention_viewer(patterns(), TOKENS, layers=[1])


def test_jupyterlab_gets_the_weights_as_bytes_and_the_sliders():
    figure = plots.attention_viewer(patterns(), TOKENS)
    bundle = pio.renderers["plotly_mimetype"].to_mimebundle(figure.to_dict())
    shown = bundle["application/vnd.plotly.v1+json"]
    assert shown["data"][0]["z"]["dtype"] == "u1" and shown["data"][0]["z"]["shape"] == "10, 15"
    assert [len(slider["steps"]) for slider in shown["layout"]["sliders"]] == [3, 4]
    assert "updatemenus" not in shown["layout"]  # their white menus are not for dark pages


def grid():
    rows = [(layer, head, 10 * layer + head - 5.0) for layer in range(3) for head in range(4)]
    frame = pd.DataFrame(rows, columns=["layer", "head", "effect"]).assign(other=0.5)
    frame["effect_low"], frame["effect_high"] = frame["effect"] - 1, frame["effect"] + 2
    return frame.sample(frac=1, random_state=0)


def test_a_grid_has_every_head_in_its_cell_and_zero_in_the_middle():
    figure = plots.head_grids(grid(), {"effect": "<effect>", "other": "other"}, title="heads")
    effect, other = figure.data
    assert effect.z[list(effect.y).index(2)][list(effect.x).index(3)] == 18
    assert tuple(effect.customdata[2][3]) == (17, 20) and other.customdata is None
    assert (effect.zmin, effect.zmax, other.zmin, other.zmax) == (-18, 18, -0.5, 0.5)
    assert [a.text for a in figure.layout.annotations] == ["&lt;effect&gt;", "other"]
    shared = plots.head_grids(
        grid(), {"effect": "a", "other": "b"}, title="heads", shared=True, percent=["effect"]
    )
    assert {data.zmax for data in shared.data} == {18}
    assert [data.showscale for data in shared.data] == [False, True]
    assert "%}" in shared.data[0].hovertemplate and "%}" not in shared.data[1].hovertemplate
    empty = plots.head_grids(grid().assign(other=np.nan), {"other": "b"}, title="heads")
    assert empty.data[0].zmax > 0
    with pytest.raises(InputError, match="'missing'"):
        plots.head_grids(grid(), {"missing": "a"}, title="heads")


def curves():
    rows = [
        (source, layer, -0.1 * layer, -0.1 * layer - 0.05, -0.1 * layer + 0.1, 7)
        for source in ("subject", "<other>", "random other tokens")
        for layer in range(4)
    ]
    frame = pd.DataFrame(rows, columns=["source", "layer", "mean", "low", "high", "n"])
    missing = frame[frame["source"] == "subject"].assign(source="first token", mean=np.nan)
    return pd.concat([frame.sample(frac=1, random_state=0).sort_values("source"), missing])


def test_knock_out_curves_carry_their_bands_and_leave_out_what_is_missing():
    figure = plots.knockout_curves(curves(), title="heads", window=3)
    lines = {data.name: data for data in figure.data if data.name}
    assert set(lines) == {"subject", "&lt;other&gt;", "random other tokens"}
    np.testing.assert_allclose(lines["subject"].y, [0, -0.1, -0.2, -0.3])
    bands = [data for data in figure.data if data.fill == "toself"]
    np.testing.assert_allclose(bands[0].y[:4], np.array([0.1, 0, -0.1, -0.2]))
    np.testing.assert_allclose(bands[0].y[4:], np.array([-0.35, -0.25, -0.15, -0.05]))
    assert all(data.mode == "lines" for data in figure.data)
    assert lines["random other tokens"].line.dash == "dot"
    assert len({data.line.color for data in lines.values()}) == 3
    assert "3 blocked layers" in figure.layout.xaxis.title.text
    with pytest.raises(InputError, match="no rows"):
        plots.knockout_curves(curves().assign(mean=np.nan), title="heads", window=3)


def test_every_figure_is_plain_and_transparent():
    for figure in (
        plots.attention_viewer(patterns(), TOKENS, title="<i>"),
        plots.head_grids(grid(), {"effect": "a"}, title="<i>"),
        plots.knockout_curves(curves(), title="<i>", window=1),
    ):
        assert type(figure) is go.Figure
        assert figure.layout.title.text == "&lt;i&gt;" and figure.layout.height >= 380
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
