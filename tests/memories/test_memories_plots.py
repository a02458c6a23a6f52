"""The figures of FFN memories hold their tables' numbers, and tokens are never markup."""

import numpy as np
import pandas as pd
import pytest
from plotly import graph_objects as go

from labkit import plots
from labkit.errors import InputError


def contributions():
    rows = [("embedding", -1, 0.1), ("bias", -1, -0.2)]
    for layer in range(4):
        rows += [("attention", layer, 0.5 * layer), ("FFN", layer, 1.0 - layer)]
    return pd.DataFrame(rows, columns=["component", "layer", "logit"]).sample(
        frac=1, random_state=0
    )


def triggers():
    columns = ["place", "activation", "before", "token", "after"]
    rows = [(0, -3.5, "in the <b>city", " of", " Rome\n"), (1, -2.0, "", "of", "")]
    return pd.DataFrame(rows, columns=columns)


def words():
    logits = [3.0, 2.0, -1.0, -4.0]
    return pd.DataFrame(
        {
            "direction": ["promoted", "promoted", "suppressed", "suppressed"],
            "token": [" Rome", "<i>", " a", " Rome"],
            "logit": logits,
        }
    )


def fires(n=40):
    tokens = [" word", "<b>", "\n", " a"] * (n // 4)
    values = np.linspace(-2, 4, len(tokens))
    return pd.DataFrame({"pos": range(len(tokens)), "token": tokens, "activation": values})


def shares():
    rows = [
        (layer, measure, source, mean, mean - 0.02, mean + 0.03, 64)
        for layer in (2, 3, 4)
        for measure, base in (("last token", 0.5), ("last two tokens", 0.2), ("shared words", 0.3))
        for source, mean in (("triggers", base + layer / 10), ("control", 0.1))
    ]
    columns = ["layer", "measure", "source", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


def rates():
    return pd.DataFrame(
        {
            "layer": [1, 0],
            "mean": [0.3, 0.1],
            "low": [0.25, 0.08],
            "high": [0.36, 0.13],
            "n": [64, 60],
            "chance": [0.01, 0.02],
        }
    )


def switches():
    rows = [
        ("predicted", "named", -2.0, -2.0, -2.0, 1),
        ("direct", "named", -2.0, -2.0, -2.0, 1),
        ("direct", "random", 0.1, -0.1, 0.4, 20),
    ]
    return pd.DataFrame(rows, columns=["effect", "neurons", "mean", "low", "high", "n"])


def writers():
    return pd.DataFrame({"layer": [3, 1], "neuron": [7, 9], "z": [5.0, 4.0], "rank": [2, 0]})


def card(**more):
    return plots.neuron_card(triggers(), words(), more.get("fires", fires()), title="a <card>")


def test_contributions_are_stacked_in_their_layer_and_the_rest_stands_beside():
    figure = plots.contribution_bars(contributions(), answer=" <b>")
    bars = {bar.name: bar for bar in figure.data}
    assert list(bars["FFN"].y) == [1.0, 0.0, -1.0, -2.0]
    assert list(bars["attention"].y) == [0.0, 0.5, 1.0, 1.5]
    assert dict(zip(bars[None].x, bars[None].y, strict=True)) == {"embedding": 0.1, "bias": -0.2}
    assert figure.layout.barmode == "relative"
    assert "0.90" in figure.layout.title.subtitle.text  # the sum of all
    assert "&lt;b&gt;" in figure.layout.yaxis.title.text


def test_words_run_from_promoted_to_suppressed_and_keep_equal_tokens_apart():
    figure = plots.words_bars(words().sample(frac=1, random_state=1), title="words")
    promoted, suppressed = figure.data
    assert (list(promoted.x), list(suppressed.x)) == ([3.0, 2.0], [-1.0, -4.0])
    assert (list(promoted.y), list(suppressed.y)) == ([0, 1], [2, 3])
    assert list(figure.layout.yaxis.ticktext) == ["·Rome", "&lt;i&gt;", "·a", "·Rome"]


def test_curves_have_their_bands_and_their_controls():
    figure = plots.patterns_curves(shares(), title="patterns")
    lines = [data for data in figure.data if data.fill is None]
    bands = [data for data in figure.data if data.fill == "toself"]
    assert len(lines) == len(bands) == 6
    np.testing.assert_allclose(lines[0].y, [0.7, 0.8, 0.9])
    np.testing.assert_allclose(bands[0].y, [0.73, 0.83, 0.93, 0.88, 0.78, 0.68])
    assert list(lines[0].x) == [2, 3, 4] and lines[1].line.dash == "dash"
    assert tuple(figure.layout.xaxis.range) == (1.5, 4.5)
    with pytest.raises(InputError, match="no rows"):
        plots.patterns_curves(shares(), title="patterns", measures=("luck",))


def test_agreement_is_drawn_against_its_chance():
    figure = plots.agreement_curve(rates(), title="agreement")
    rate, chance = [data for data in figure.data if data.fill is None]
    assert list(rate.y) == [0.1, 0.3] and list(chance.y) == [0.02, 0.01]
    assert sum(data.fill == "toself" for data in figure.data) == 1


def test_random_neurons_carry_their_interval():
    named, random = plots.switch_bars(switches(), title="off").data
    assert list(named.y) == [-2.0, -2.0] and named.error_y.array is None
    assert random.y[0] + random.error_y.array[0] == pytest.approx(0.4)
    assert random.y[0] - random.error_y.arrayminus[0] == pytest.approx(-0.1)
    assert "20 draws" in random.name


def test_writers_are_named_with_their_rank():
    figure = plots.writers_bars(writers(), token=" <b>", title="who")
    (bars,) = figure.data
    assert list(bars.x) == [5.0, 4.0] and list(bars.text) == ["rank 3", "rank 1"]
    assert list(figure.layout.yaxis.ticktext) == ["L3N7", "L1N9"]


def test_a_card_marks_the_firing_token_and_colours_every_token():
    figure = card()
    before, after = figure.data[:2]
    assert before.text[0] == "in the &lt;b&gt;city"
    assert after.text[0].startswith("<b><span") and "·of</span></b> Rome⏎" in after.text[0]
    boxes = next(data for data in figure.data if data.customdata is not None)
    np.testing.assert_array_equal(boxes.customdata, fires()["activation"])
    titles = [note.text for note in figure.layout.annotations]
    assert len(titles) == 3 and figure.layout.title.text == "a &lt;card&gt;"
    assert len(card(fires=fires().head(0)).layout.annotations) == 2
    turned = plots.neuron_card(triggers(), words(), fires(), title="t", sign=-1)
    assert any("negative" in note.text for note in turned.layout.annotations)
    silent = plots.neuron_card(triggers().head(0), words(), fires(), title="t")
    assert len(silent.data) == len(figure.data) - 2


def test_boxes_of_a_text_neither_overlap_nor_leave_a_hole():
    figure = plots.coloured_text(fires(200).sample(frac=1, random_state=2), title="text")
    boxes, letters = figure.data
    by_line = {}
    for line, start, width in zip(boxes.y, boxes.base, boxes.x, strict=True):
        by_line.setdefault(line, []).append((start, width))
    assert len(by_line) > 3
    for cells in by_line.values():
        ends = np.cumsum([0, *(width for _, width in cells)])
        assert [start for start, _ in cells] == list(ends[:-1]) and ends[-1] <= 84
    assert list(letters.text[:3]) == [" word", "&lt;b&gt;", "⏎"]
    largest, smallest = boxes.marker.color[-1], boxes.marker.color[0]
    assert largest == "rgb(18, 120, 208)" and smallest != largest


def test_control_characters_are_shown_as_such():
    frame = fires(4).assign(token=["a\x00b", "\x07", "\x1b", "c"])
    _, letters = plots.coloured_text(frame, title="text").data
    assert list(letters.text) == ["a�b", "�", "�", "c"]
    line = triggers().assign(token="\x07", before="\x00", after="\x1b")
    shown = [data.text[0] for data in plots.triggers_in_context(line, title="t").data]
    bars = plots.words_bars(words().assign(token="\x07"), title="t")
    assert set(bars.layout.yaxis.ticktext) == {"�"}
    assert shown[0] == "�" and not set("".join(shown)) & set("\x00\x07\x1b")


def contrast_with_white(colour):
    channels = np.array([int(part) / 255 for part in colour.strip("rgb()").split(",")])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_white_letters_are_read_on_every_box():
    frame = fires(40).assign(activation=np.linspace(-1, 1, 40))
    boxes, _ = plots.coloured_text(frame, title="text").data
    assert min(map(contrast_with_white, boxes.marker.color)) > 4.3


def all_figures():
    return [
        plots.contribution_bars(contributions(), answer="a"),
        plots.switch_bars(switches(), title="t"),
        plots.words_bars(words(), title="t"),
        plots.writers_bars(writers(), token="a", title="t"),
        plots.patterns_curves(shares(), title="t"),
        plots.agreement_curve(rates(), title="t"),
        plots.triggers_in_context(triggers(), title="t"),
        plots.coloured_text(fires(), title="t"),
        card(),
    ]


def test_every_figure_is_plain_transparent_and_has_a_height():
    for figure in all_figures():
        assert type(figure) is go.Figure
        assert figure.layout.height >= 280 and figure.layout.title.text
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_a_table_without_the_columns_is_refused_by_name():
    for draw, frame in (
        (plots.words_bars, words().drop(columns="logit")),
        (plots.coloured_text, fires().drop(columns="token")),
        (plots.triggers_in_context, triggers().drop(columns="after")),
        (plots.agreement_curve, rates().drop(columns="chance")),
    ):
        with pytest.raises(InputError, match="lacks the columns"):
            draw(frame, title="t")
