"""The figure holds the table's numbers, in the table's order, and nothing is taken as markup."""

import os
import shutil
from html import unescape

import numpy as np
import pandas as pd
import plotly.io as pio
import pytest
from plotly import graph_objects as go

from labkit import plots
from labkit.errors import InputError, OutputError
from labkit.plots import theme

TOKENS = ["the", " Tower", " of", " the", " <b>"]
N_LAYERS = 20


def trace(shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for pos, token in enumerate(TOKENS):
        for layer in range(N_LAYERS):
            mean = rng.uniform(0.1, 0.8) + shift
            low, high = mean - 0.05, mean + 0.1
            rows.append((pos, token, layer, mean, low, high))
    frame = pd.DataFrame(rows, columns=["pos", "token", "layer", "mean", "low", "high"])
    return frame.sample(frac=1, random_state=0)  # no figure may rely on the order of rows


def cell(frame, pos, layer):
    return frame[(frame["pos"] == pos) & (frame["layer"] == layer)].iloc[0]


def heatmap(frame):
    traced = plots.Traced(
        answer=" Paris", clean=0.77, corrupted=0.03, subject_positions={1, 4}, n_draws=10
    )
    return plots.trace_heatmap(frame, traced)


def test_a_trace_shows_every_cell_where_it_belongs():
    frame, (data,) = trace(), heatmap(trace()).data
    for pos, layer in [(0, 0), (4, 19), (2, 7)]:
        row, column = list(data.y).index(pos), list(data.x).index(layer)
        expected = cell(frame, pos, layer)
        assert data.z[row][column] == expected["mean"]
        assert tuple(data.customdata[row][column]) == (expected["low"], expected["high"])
    assert (data.zmin, data.zmax) == (0.03, 0.77)
    assert "10 noise draws" in data.hovertemplate


def test_a_trace_lists_tokens_from_the_top_with_the_subject_starred():
    axis = heatmap(trace()).layout.yaxis
    assert axis.autorange == "reversed"
    assert list(axis.tickvals) == [0, 1, 2, 3, 4]
    assert list(axis.ticktext) == ["the", "·Tower *", "·of", "·the", "·&lt;b&gt; *"]


def test_a_trace_says_what_the_clean_and_the_corrupted_run_gave():
    subtitle = heatmap(trace()).layout.title.subtitle.text
    assert "clean 0.770" in subtitle and "corrupted 0.030" in subtitle


def test_curves_overlay_two_traces_at_one_position():
    frames = {"before": trace(), "after": trace(0.1)}
    figure = plots.trace_curves(frames, positions={"before": 1, "after": 2})
    curves = {data.name: data for data in figure.data if data.name}
    bands = [data for data in figure.data if data.fill == "toself"]
    assert list(curves) == ["before", "after"] and len(bands) == 2
    for (name, frame), pos, band in zip(frames.items(), (1, 2), bands, strict=True):
        rows = frame[frame["pos"] == pos].sort_values("layer")
        np.testing.assert_array_equal(curves[name].y, rows["mean"])
        np.testing.assert_array_equal(band.y, [*rows["high"], *rows["low"][::-1]])
    assert curves["before"].line.color != curves["after"].line.color
    with pytest.raises(InputError, match="no rows"):
        plots.trace_curves(frames, positions=99)


def test_the_lens_table_puts_each_top_token_in_its_cell():
    frame = trace().rename(columns={"mean": "probability"})
    frame["top"] = [
        f"t{pos}{layer}" for pos, layer in zip(frame["pos"], frame["layer"], strict=True)
    ]
    figure = plots.lens_table(frame)
    (data,) = figure.data
    assert data.text[list(data.y).index(13)][list(data.x).index(3)] == "t313"
    assert data.z[13][3] == cell(frame, 3, 13)["probability"]
    assert len(set(figure.layout.xaxis.tickvals)) == len(TOKENS)


def test_the_lens_at_the_last_token_aligns_probabilities_and_tokens():
    frame = pd.DataFrame(
        {
            "layer": [1, 0],
            "answer_probability": [0.9, 0.1],
            "top_tokens": [(" Paris", "<i>"), (" a", "b")],
        }
    )
    line, words = plots.lens_at_last(frame, answer=" Paris").data
    assert list(line.y) == list(words.y) == [0, 1]
    assert list(line.x) == [0.1, 0.9]
    assert words.text[0].split() == ["·a", "b"] and "&lt;i&gt;" in words.text[1]


def test_predictions_keep_tokens_apart_that_look_alike():
    tokens = [" Paris", " Paris", "Paris"]
    frame = pd.DataFrame({"token": tokens, "probability": [0.1, 0.2, 0.3]})
    both = pd.concat([frame.assign(state="before"), frame.assign(state="after")])
    figure = plots.predictions_bar(both, title="<b>")
    assert len(figure.data) == 2 and len(plots.predictions_bar(frame).data) == 1
    for bars in figure.data:
        assert list(bars.y) == [0, 1, 2] and list(bars.x) == [0.3, 0.2, 0.1]
    assert list(figure.layout.yaxis.ticktext) == ["Paris", "·Paris", "·Paris"]
    assert figure.layout.title.text == "&lt;b&gt;"


def metrics():
    rows = [
        ("success", "efficacy", "unedited", 0.1, 0.05, 0.2, 30),
        ("success", "efficacy", "edited", 0.97, 0.9, 1.0, 30),
        ("success", "paraphrase", "edited", 0.9, 0.8, 0.95, 30),
        ("generation", "efficacy", "edited", 0.7, 0.6, 0.8, 30),
    ]
    columns = ["reading", "metric", "state", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def test_metrics_carry_their_intervals_in_the_panel_of_their_reading():
    figure = plots.metrics_bars(metrics(), chance={"success": 0.5})
    edited = [data for data in figure.data if data.name == "edited"]
    assert [list(data.x) for data in edited] == [["efficacy", "paraphrase"], ["efficacy"]]
    assert list(edited[0].y) == [0.97, 0.9]
    np.testing.assert_allclose(edited[0].y + edited[0].error_y.array, [1.0, 0.95])
    np.testing.assert_allclose(edited[0].y - edited[0].error_y.arrayminus, [0.9, 0.8])
    assert {data.xaxis for data in edited} == {"x", "x2"}
    assert [(line.y0, line.xref) for line in figure.layout.shapes] == [(0.5, "x domain")]
    with pytest.raises(InputError, match="luck"):
        plots.metrics_bars(metrics(), chance={"luck": 0.5})


def test_what_has_no_interval_has_no_bar_no_band_and_says_so():
    frame = metrics()
    frame.loc[1, ["low", "high"]] = np.nan
    bars = next(data for data in plots.metrics_bars(frame).data if data.name == "edited")
    assert "%{customdata[0]" not in bars.hovertemplate and "[" not in bars.customdata[0][-1]
    assert [row[-1] for row in bars.customdata] == ["(no interval)", "[0.800, 0.950]"]
    assert np.isnan(bars.error_y.array[0]) and bars.error_y.array[1] > 0
    single = heatmap(trace().assign(low=np.nan, high=np.nan)).data[0]
    assert {cell[-1] for row in single.customdata for cell in row} == {"(no interval)"}


def test_a_band_has_gaps_where_there_is_no_interval():
    x = pd.Series(range(6))
    low = pd.Series([0.0, 0.1, np.nan, 0.3, 0.4, 0.5])
    high = low + 1
    figure = go.Figure()
    theme.add_band(figure, x, low, high, theme.INK)
    (band,) = figure.data
    assert list(band.x) == [0, 1, 1, 0, None, 3, 4, 5, 5, 4, 3]
    assert list(band.y) == [1.0, 1.1, 0.1, 0.0, None, 1.3, 1.4, 1.5, 0.5, 0.4, 0.3]
    theme.add_band(figure, x, low * np.nan, high, theme.INK)
    assert len(figure.data) == 1


def all_figures():
    lens = trace().rename(columns={"mean": "probability"}).assign(top="x")
    at_last = pd.DataFrame(
        {"layer": [0], "answer_probability": [0.5], "top_tokens": [["a"]]},
    )
    return [
        heatmap(trace()),
        plots.trace_curves({"one": trace()}, positions=0),
        plots.lens_table(lens),
        plots.lens_at_last(at_last, answer="a"),
        plots.predictions_bar(pd.DataFrame({"token": ["a"], "probability": [0.5]})),
        plots.metrics_bars(metrics()),
    ]


def test_every_figure_is_plain_transparent_and_has_a_height():
    for figure in all_figures():
        assert type(figure) is go.Figure
        assert figure.layout.height >= 280 and figure.layout.title.text
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_a_long_title_is_wrapped_and_the_plot_keeps_its_height():
    frame = pd.DataFrame({"token": ["a"], "probability": [0.5]})
    title = "to see the <Tower>, tourists " * 4
    long, short = (plots.predictions_bar(frame, title=words) for words in (title, "short"))
    lines = long.layout.title.text.split("<br>")
    assert " ".join(lines) == title.strip().replace("<", "&lt;").replace(">", "&gt;")
    assert max(map(len, lines)) < 80 < len(title)
    plot = [figure.layout.height - figure.layout.margin.t for figure in (long, short)]
    assert plot[0] == plot[1] and long.layout.height > short.layout.height


def widest(title) -> int:
    """The letters of a title's longest line, as they are shown."""
    return max(len(unescape(line)) for line in (title.text or "").split("<br>"))


def test_no_line_of_a_title_is_wider_than_a_narrow_window():
    words = "a title of many words " * 8
    frame = pd.DataFrame({"x": [0, 1]})
    figure = go.Figure(go.Scatter(x=frame["x"], y=frame["x"], name="curve"))
    figure.update_layout(xaxis_title_text=words, yaxis_title_text=words)
    figures = [*all_figures(), theme.themed(figure, words, words, legend=True)]
    for each in figures:
        title = each.layout.title
        assert widest(title) <= theme.TITLE_WIDTH
        assert widest(title.subtitle) <= theme.SUBTITLE_WIDTH
        each.for_each_xaxis(lambda axis: widest(axis.title) <= theme.X_TITLE_WIDTH or pytest.fail())
        each.for_each_yaxis(lambda axis: widest(axis.title) <= theme.Y_TITLE_WIDTH or pytest.fail())
    for part in (title, title.subtitle, figure.layout.xaxis.title, figure.layout.yaxis.title):
        assert part.text.replace("<br>", " ") == words.strip()


def test_a_legend_stands_at_the_foot_where_it_hides_nothing():
    legend = theme.TEMPLATE.layout.legend
    assert (legend.yref, legend.y, legend.yanchor) == ("container", 0, "bottom")
    one = go.Figure(go.Scatter(x=[0], y=[0], name="one"))
    with_one = theme.themed(go.Figure(one), "t", legend=True).layout
    without = theme.themed(go.Figure(one), "t").layout
    assert with_one.height > without.height and with_one.margin.t == without.margin.t


@pytest.mark.parametrize("n_layers", [6, 30, 48])
def test_a_figure_of_many_layers_is_no_higher_than_a_window(n_layers):
    """And its letters are no higher than its rows."""
    layers = range(n_layers)
    table = pd.DataFrame({"pos": 0, "token": "a", "layer": layers, "top": "b", "probability": 0.5})
    at_last = pd.DataFrame(
        {"layer": layers, "answer_probability": 0.5, "top_tokens": [["a", "b"]] * n_layers}
    )
    for figure in (plots.lens_table(table), plots.lens_at_last(at_last, answer="a")):
        height = figure.layout.height
        assert theme.HEIGHT <= height <= theme.MOST_HEIGHT + 40
        row = (height - figure.layout.margin.t - 80) / n_layers
        assert figure.data[-1].textfont.size <= row


def contrast(one: str, other: str) -> float:
    """Contrast ratio as defined by WCAG 2.1."""

    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_ink_and_colours_are_seen_on_light_and_dark_pages(page):
    assert contrast(theme.INK, page) > 4.1
    assert all(contrast(colour, page) >= 3 for colour in theme.COLOURS)


def test_white_letters_are_read_on_every_cell():
    assert all(contrast("#ffffff", colour) > 4.3 for _, colour in theme.SEQUENTIAL_UNDER_TEXT)


def test_a_table_without_the_columns_is_refused_by_name():
    with pytest.raises(InputError, match="'low'"):
        heatmap(trace().drop(columns="low"))
    with pytest.raises(InputError, match="no rows"):
        heatmap(trace().head(0))


def test_a_fragment_brings_no_script_of_plotlys_and_no_share_button():
    html = plots.to_html(heatmap(trace()), div_id="one")
    assert 'id="one"' in html and len(html) < 60_000
    assert "<script src" not in html and "http" not in html
    assert '"showSendToCloud": false' in html


def test_a_notebook_gets_both_renderers_without_the_share_button(monkeypatch):
    before = pio.renderers.default
    for name in ("plotly_mimetype", "notebook"):
        monkeypatch.setattr(pio.renderers[name], "config", {})
    try:
        plots.use_in_notebooks()
        assert pio.renderers.default == "plotly_mimetype"
        bundle = pio.renderers["plotly_mimetype"].to_mimebundle(heatmap(trace()).to_dict())
        figure = bundle["application/vnd.plotly.v1+json"]
        assert figure["config"]["showSendToCloud"] is False
    finally:
        pio.renderers.default = before


def test_without_a_browser_a_png_says_what_to_install(tmp_path, monkeypatch):
    def no_chrome(*_, **__):
        raise RuntimeError("Kaleido requires Google Chrome to be installed.")

    monkeypatch.setattr(go.Figure, "to_image", no_chrome)
    with pytest.raises(OutputError, match="install chromium"):
        plots.to_png(heatmap(trace()), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


BROWSER = (
    os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
)


@pytest.mark.skipif(BROWSER is None, reason="no Chrome or Chromium here")
def test_a_png_is_written_where_there_is_a_browser(tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(BROWSER))
    path = plots.to_png(heatmap(trace()), tmp_path / "a.png", width=300, scale=1.0)
    assert path.read_bytes().startswith(b"\x89PNG")
