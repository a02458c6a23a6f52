"""Presets: the user's own sweep first, then what ships, then a guess that says so."""

import dataclasses

import pytest

from editing.methods.closed_form.memit import MEMIT
from editing.methods.closed_form.rome import ROME
from editing.presets.preset_files import SHIPPED, Preset, guess, preset, preset_file, write_preset
from labkit.errors import LayerOutOfRange, MalformedRecord


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))


def swept(layer, layers, **more):
    evidence = ({"layer": layer, "metric": "score", "mean": 0.5, "low": 0.4, "high": 0.6},)
    return Preset(
        layer=layer, layers=layers, source="a sweep", measured=True, evidence=evidence, **more
    )


def test_without_a_measurement_it_is_a_guess_and_says_so(model):
    found = preset(model)
    assert found == guess(model)
    assert not found.measured and found.source.startswith("guess") and not found.evidence
    assert found.layer in found.layers and max(found.layers) < model.n_layers


def test_what_ships_is_read_by_name_with_its_evidence(pocket):
    found = preset(pocket)
    assert found.measured and "pocket" in SHIPPED
    frame = found.to_frame()
    best = frame[(frame["metric"] == "score") & (frame["state"] == "edited")]
    best = best[best["reading"] == "success"].set_index("layer")["mean"]
    assert best.idxmax() == found.layer
    assert (frame["low"] <= frame["mean"]).all() and (frame["mean"] <= frame["high"]).all()
    assert ROME().layer_for(pocket) == found.layer
    assert MEMIT().layers_for(pocket) == found.layers


def test_the_user_s_own_sweep_comes_first_and_stays_with_its_weights(tiny):
    model = tiny("llama")
    path = write_preset(model, "rome", swept(2, (0, 1, 2)))
    assert path == preset_file(model) and preset(model) == swept(2, (0, 1, 2))
    assert ROME().layer_for(model) == 2
    assert not preset(tiny("gpt2")).measured
    assert not preset(dataclasses.replace(model, fingerprint="0" * 64)).measured


def test_methods_have_presets_of_their_own_and_share_one_until_then(tiny):
    model = tiny("llama")
    write_preset(model, "rome", swept(2, (1, 2)))
    assert preset(model, "memit").layer == 2
    write_preset(model, "memit", swept(1, (0, 1)))
    assert preset(model, "memit").layer == 1
    assert preset(model).layer == preset(model, "pmet").layer == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"format": 2', '"format": 9'),
        lambda text: text.replace('"layers"', '"lairs"'),
        lambda text: text.replace('"layer": 2', '"layer": "two"'),
    ],
    ids=["cut", "no record", "another format", "no layers", "no number"],
)
def test_a_damaged_preset_is_refused(tiny, damage):
    model = tiny("llama")
    path = write_preset(model, "rome", swept(2, (1, 2)))
    path.write_text(damage(path.read_text()))
    with pytest.raises(MalformedRecord, match="sweep again"):
        preset(model)
    write_preset(model, "rome", swept(1, (1, 2)))
    assert preset(model).layer == 1


def test_a_preset_of_layers_that_are_not_there_is_refused(tiny):
    model = tiny("llama")
    write_preset(model, "rome", swept(7, (1, 2)))
    with pytest.raises(LayerOutOfRange):
        preset(model)
