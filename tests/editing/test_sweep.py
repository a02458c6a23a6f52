"""A sweep is the evaluation of each layer, side by side, and never touches the model."""

import dataclasses

import numpy as np
import pytest

from editing.evaluate import evaluate
from editing.rome import ROME
from editing.sweep import LayerSweep, sweep_layers
from labkit.errors import InputError, LayerOutOfRange
from tests.editing.conftest import FAST


@pytest.fixture
def fast():
    return ROME(**FAST["rome"] | {"n_contexts": 1}, facts_share=0.0)


def test_each_layer_is_what_evaluate_says_there(tiny, case, fast, weights, changed):
    model = tiny("llama")
    before = weights(model)
    told = []
    found = sweep_layers(
        model, [case], [2, 0, 0], fast, progress=lambda stage, share: told.append((stage, share))
    )
    assert sorted(set(found.table["layer"])) == [0, 2]
    for layer in (0, 2):
        alone = evaluate(model, dataclasses.replace(fast, layer=layer), [case], n_tokens=0)
        rows = found.table[found.table["layer"] == layer].drop(columns="layer")
        assert rows.reset_index(drop=True).equals(alone.to_frame())
    assert not changed(model, before)
    assert all(0 <= share <= 1 for _, share in told)
    assert {"layer 0", "layer 2"} <= {stage.split(",")[0] for stage, _ in told}


def test_layers_left_out_are_gaps(tiny, case, fast):
    model = tiny("gpt2")
    found = sweep_layers(model, [case], [1], fast)
    profile = found.by_layer("efficacy")
    assert len(profile) == model.n_layers and list(np.flatnonzero(np.isfinite(profile))) == [1]
    with pytest.raises(InputError, match="no 'novelty'"):
        found.by_layer("novelty")


def test_a_sweep_is_saved_and_drawn(tiny, case, fast, tmp_path):
    found = sweep_layers(tiny("llama"), [case], [0, 1], fast)
    loaded = LayerSweep.load(found.save(tmp_path / "sweep"))
    assert loaded.table.equals(found.table)
    lines = {trace.name: trace for trace in found.figure().data if trace.name}
    assert list(lines["efficacy"].y) == list(found.by_layer("efficacy")[:2])


def test_no_layer_and_a_wrong_layer_are_refused(tiny, case, fast):
    with pytest.raises(InputError, match="at least one layer"):
        sweep_layers(tiny("llama"), [case], [], fast)
    with pytest.raises(LayerOutOfRange):
        sweep_layers(tiny("llama"), [case], [99], fast)
