"""What is cached is what the model in effect says: no edit and no patch is ever missed.

Every function that keeps something is held against itself with an empty cache, in every way in
which a model can be other than it was loaded.
"""

import contextlib
import copy

import pytest
import torch

from editing.edits.applying import applied
from editing.methods.closed_form.prepared import Prepared
from editing.methods.closed_form.solve import Euclidean
from editing.presets.preset_files import Preset, guess, preset, write_preset
from labkit.errors import FingerprintMismatch
from labkit.memories.trigger_search import find_triggers
from labkit.models.in_effect import _sums, fingerprint
from labkit.models.loading import wrap
from labkit.readout import predict
from labkit.results.runs import RunDirectory
from labkit.running.activations import capture
from labkit.text.moments import second_moments
from labkit.text.streams import ReadingOptions
from tests.laws.cached import (
    CACHED,
    CHANGED_WEIGHTS,
    CONTEXTS,
    PATCHED,
    delta_of,
    files,
    nested,
    switch_to_empty_caches,
)


@pytest.fixture
def model(tiny):
    model = tiny("llama")
    yield model
    assert fingerprint(model.hf, model.tokenizer) == model.fingerprint == model.in_effect
    assert not model.is_patched


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Switches to an empty cache."""
    return switch_to_empty_caches(tmp_path, monkeypatch)


@pytest.mark.parametrize("what", CACHED)
@pytest.mark.parametrize("how", CONTEXTS)
def test_inside_an_edit_and_outside_of_it_each_is_as_without_a_cache(
    model, corpus, fresh, what, how
):
    ask, within = CACHED[what], CONTEXTS[how]
    outside = ask(model, corpus)
    fresh()
    with within(model):
        inside = ask(model, corpus)
    assert not torch.allclose(inside, outside, atol=1e-3)
    for first_inside in (False, True):
        folder = fresh()
        for turn in range(3):
            if (turn % 2 == 0) == first_inside:
                before = files(folder)
                with within(model):
                    assert torch.equal(ask(model, corpus), inside)
                if how in PATCHED:
                    assert files(folder) == before, "states that were patched were kept"
            else:
                assert torch.equal(ask(model, corpus), outside)


@pytest.mark.parametrize("what", CACHED)
def test_an_error_inside_an_edit_leaves_the_cache_right(model, corpus, fresh, what):
    outside = CACHED[what](model, corpus)
    fresh()
    for within in (CONTEXTS["nested"], CONTEXTS["patched"]):
        with contextlib.suppress(KeyboardInterrupt), within(model):
            CACHED[what](model, corpus)
            raise KeyboardInterrupt
        assert torch.equal(CACHED[what](model, corpus), outside)


@pytest.mark.parametrize("how", CHANGED_WEIGHTS)
def test_the_weights_in_effect_have_the_fingerprint_of_a_copy_of_them(model, how):
    seen = []
    for _ in range(2):
        with CHANGED_WEIGHTS[how](model):
            seen.append(model.in_effect)
            assert model.in_effect == fingerprint(model.hf, model.tokenizer)
        assert model.in_effect == model.fingerprint
    assert seen[0] == seen[1] != model.fingerprint


def test_an_edit_in_effect_has_the_fingerprint_of_a_model_loaded_with_it(model):
    delta = delta_of(model)
    with applied(model, delta):
        copied = wrap(copy.deepcopy(model.hf), model.tokenizer, name="a copy", check=False)
        assert model.in_effect == copied.fingerprint != model.fingerprint


@pytest.mark.parametrize("change", [1e-7, -0.0], ids=["the last bit", "a signed zero"])
def test_the_smallest_change_is_seen(model, change):
    weight = model.ffn_out(0)
    before = weight.clone()
    try:
        weight[1, 1] = 0.0 if change == 0 else weight[1, 1] * (1 + change)
        middle = model.in_effect
        weight[1, 1] = -0.0 if change == 0 else before[1, 1]
        assert model.in_effect != middle
    finally:
        weight.copy_(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_tell_the_order_of_equal_numbers(dtype):
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(301, 1003, generator=draw).to(dtype)
    places = torch.randint(300_000, (40, 2), generator=draw)
    near = torch.stack([places[:, 0], places[:, 0] + 4], dim=1)  # the same part of a word
    for one, other in torch.cat([places, near]).tolist():
        changed = weight.flatten().clone()
        changed[[one, other]] = changed[[other, one]]
        changed = changed.view_as(weight)
        assert (_sums(changed) == _sums(weight)) == torch.equal(changed, weight)
    assert _sums(weight.clone()) == _sums(weight) == _sums(weight.T.contiguous().T)


def test_what_only_runs_the_model_patches_nothing(model):
    batch = model.tokens(["the house is"])
    model.hf(batch.ids, output_hidden_states=True)
    model.hf.generate(batch.ids, max_new_tokens=2, do_sample=False)
    model.bridge(batch.ids)
    assert not model.is_patched
    with capture(model, ["ffn_key"]):  # what a hook does is not known
        assert model.is_patched
    model.hf.train()
    assert model.is_patched
    model.hf.eval()


def test_what_was_measured_under_an_edit_says_so_and_serves_only_under_one(model, corpus, fresh):
    own = second_moments(model, [1], corpus)
    with applied(model, delta_of(model)):
        edited, now = second_moments(model, [1], corpus), model.in_effect
        found = find_triggers(model, [1], corpus, ReadingOptions(window=40), k=3)
        for known in (own, edited):
            Prepared(("",), {1: Euclidean()}, known).require(model, [1])
    assert found.fingerprint == edited[1].fingerprint == now != own[1].fingerprint
    assert own[1].fingerprint == model.fingerprint
    with pytest.raises(FingerprintMismatch, match="while an edit was in effect"):
        Prepared(("",), {1: Euclidean()}, edited).require(model, [1])


# --- presets ------------------------------------------------------------------------------


def swept(layer):
    return Preset(layer=layer, layers=(0, 1), source="a sweep", measured=True)


def test_a_sweep_on_top_of_an_edit_is_not_the_models_own(model, fresh):
    with applied(model, delta_of(model)):
        write_preset(model, "rome", swept(2))
        assert preset(model).layer == 2
    assert preset(model) == guess(model)
    write_preset(model, "rome", swept(1))
    assert preset(model) == swept(1)
    with applied(model, delta_of(model)):
        assert preset(model) == swept(2)
    with nested(model):
        assert preset(model).layer == 1 and "without the edit" in preset(model).source
    with PATCHED["patched"](model):
        assert write_preset(model, "rome", swept(0)) is None
    assert preset(model) == swept(1)


# --- results, runs ------------------------------------------------------------------------


def test_a_run_is_not_resumed_with_other_weights_in_effect(model, tmp_path):
    RunDirectory.create(tmp_path / "run", {"k": 1}, model)
    RunDirectory.create(tmp_path / "run", {"k": 1}, model, resume=True)
    for how in ("applied", "patched"):
        with CONTEXTS[how](model), pytest.raises(FingerprintMismatch, match="in effect"):
            RunDirectory.create(tmp_path / "run", {"k": 1}, model, resume=True)


def test_a_result_says_which_weights_it_is_of(model):
    assert predict(model, "the house").fingerprint == model.fingerprint
    with applied(model, delta_of(model)):
        assert predict(model, "the house").fingerprint == model.in_effect != model.fingerprint
