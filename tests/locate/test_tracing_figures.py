"""The pictures of traces hold the tables' numbers where they belong."""

import numpy as np
import pandas as pd
import pytest
from plotly import graph_objects as go

from labkit import plots
from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.locate import CausalTrace, PairTrace, average_traces, compare_severed

FACT = Fact(subject="cat", template="the {} is in", object=" of")
OTHER = Fact(subject="dog", template="the {} is in", object=" the")
LAST = "last subject token"


@pytest.fixture(scope="module")
def llama(tiny):
    return tiny("llama")


@pytest.fixture(scope="module")
def averaged(llama):
    return average_traces(llama, [FACT, OTHER], CausalTrace(samples=2))


@pytest.fixture(scope="module")
def severed(llama):
    kinds = (None, "ffn", "attn")
    return compare_severed(*(CausalTrace(samples=3, severed=s)(llama, FACT) for s in kinds))


@pytest.fixture(scope="module")
def pair(llama):
    return PairTrace()(llama, FACT, OTHER)


def shuffled(frame):
    """No figure may rely on the order of rows."""
    return frame.sample(frac=1, random_state=0)


def curves(figure):
    return {data.name: data for data in figure.data if data.name}


def test_panels_share_one_colour_axis_and_say_what_they_show(llama):
    resid = CausalTrace(samples=2)(llama, FACT)
    ffn, attn = (CausalTrace(samples=2, kind=k, window=2)(llama, FACT) for k in ("ffn", "attn"))
    figure = resid.figure(ffn, attn)
    titles = [note.text.replace("<br>", " ") for note in figure.layout.annotations]
    assert titles == ["hidden state", "FFN output, 2 layers", "attention output, 2 layers"]
    for data, trace in zip(figure.data, (resid, ffn, attn), strict=True):
        np.testing.assert_allclose(data.z, trace.cells.mean(axis=0))
        assert data.coloraxis == "coloraxis" and data.zmin is None
    colours, ends = figure.layout.coloraxis, sorted((resid.clean, float(resid.corrupted.mean())))
    assert [colours.cmin, colours.cmax] == pytest.approx(ends, abs=2e-6)
    subtitle = figure.layout.title.subtitle.text
    assert f"clean {resid.clean:.3f}" in subtitle and "corrupted" in subtitle
    starred = [label for label in figure.layout.yaxis.ticktext if label.endswith(" *")]
    assert len(starred) == len(resid.subject_positions)


def test_traces_of_other_prompts_do_not_stand_beside(llama):
    one, other = (CausalTrace(samples=2)(llama, fact) for fact in (FACT, OTHER))
    with pytest.raises(InputError):
        one.figure(other)
    with pytest.raises(InputError):
        one.figure(CausalTrace(samples=2, seed=1)(llama, FACT))


def test_a_severed_trace_says_so(llama):
    trace = CausalTrace(samples=1, severed="ffn", roles=(LAST,))(llama, FACT)
    figure = trace.figure()
    assert "FFN outputs held" in figure.layout.title.text.replace("<br>", " ")
    assert list(figure.data[0].y) == [trace.subject_positions[-1]]


def test_every_role_has_its_panel_with_band_and_quartiles(averaged):
    frame = averaged.to_frame()
    figure = plots.role_curves(shuffled(frame), title="t")
    found = curves(figure)
    assert set(found) == set(frame["role"])
    titles = {note.text.replace("<br>", " ") for note in figure.layout.annotations}
    assert titles == {f"{role} (n=2)" for role in found}
    for role, data in found.items():
        rows = frame[frame["role"] == role]
        np.testing.assert_array_equal(data.y, rows["mean"])
        np.testing.assert_array_equal(data.customdata, rows[["low", "high"]])
        bands = [list(d.y) for d in figure.data if d.fill and d.xaxis == data.xaxis]
        assert [*rows["high"], *rows["low"][::-1]] in bands
        assert [*rows["q75"], *rows["q25"][::-1]] in bands
    assert averaged.figure().layout.title.text


def test_the_heatmap_has_roles_in_the_order_of_the_table(averaged):
    frame = averaged.to_frame()
    (data,) = averaged.heatmap().data
    assert list(data.y) == list(dict.fromkeys(frame["role"]))
    row, column = list(data.y).index(LAST), 1
    cell = frame.query("role == @LAST and layer == @column").iloc[0]
    assert data.z[row][column] == cell["mean"]
    assert list(data.customdata[row][column]) == [cell.low, cell.high, cell.n]
    assert data.zmax == -data.zmin == pytest.approx(frame["mean"].abs().max())


def test_severed_paths_are_three_curves_of_one_role(severed):
    frame = severed.to_frame()
    figure = plots.severed_curves(shuffled(frame), role=LAST, unit="noise draw", title="t")
    found = curves(figure)
    assert list(found) == ["nothing severed", "FFN severed", "attention severed"]
    rows = frame.query("path == 'ffn' and role == @LAST")
    np.testing.assert_array_equal(found["FFN severed"].y, rows["mean"])
    assert "3 noise draws" in figure.layout.title.subtitle.text.replace("<br>", " ")
    with pytest.raises(InputError):
        severed.figure("subject")


@pytest.mark.parametrize("reading", ["probability", "logit_difference"])
def test_a_pair_shows_the_reading_and_both_tokens(pair, reading):
    figure = pair.figure(reading)
    (data,) = figure.data
    which = ("probability", "logit_difference").index(reading)
    np.testing.assert_allclose(data.z, pair.cells[..., which])
    np.testing.assert_allclose(data.customdata, pair.share)
    labels = list(figure.layout.yaxis.ticktext)
    assert sum("/" in label for label in labels) >= 1
    assert [" *" in label for label in labels] == [
        pos in pair.subject_positions for pos in range(len(labels))
    ]
    if reading == "logit_difference":
        assert data.zmin == -data.zmax
    with pytest.raises(InputError):
        pair.figure("loss")


def test_every_figure_is_plain_transparent_and_has_a_height(averaged, severed, pair):
    for figure in [averaged.figure(), averaged.heatmap(), severed.figure(), pair.figure()]:
        assert type(figure) is go.Figure
        assert figure.layout.height >= 280 and figure.layout.title.text
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_a_table_without_the_columns_is_refused(averaged):
    empty = pd.DataFrame({"role": []})
    for draw in (plots.role_curves, plots.role_heatmap):
        with pytest.raises(InputError):
            draw(empty, title="t")
    with pytest.raises(InputError):
        plots.role_curves(averaged.to_frame().drop(columns="q25"), title="t")
