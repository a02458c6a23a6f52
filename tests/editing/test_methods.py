"""What holds of every editor, and of the changes that it hands out."""

import dataclasses
import json

import pytest
import torch

from editing import METHODS
from editing.delta import LowRank, WeightDelta, applied, result_fingerprint
from labkit import pocket as world
from labkit.errors import FingerprintMismatch, InputError, MalformedRecord, MissingFile
from labkit.models import fingerprint, wrap
from labkit.random_models import random_model
from tests.editing.conftest import FAST
from tests.reference import full_logits


def test_every_method_is_held_to_these_laws():
    assert set(FAST) == set(METHODS)


# --- the editor ---------------------------------------------------------------------------


def test_the_call_leaves_the_model_alone(model, edit, rewrite, weights, changed):
    before = weights(model)
    delta = edit(model, rewrite)
    assert changed(model, before) == set()
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())
    assert delta.base == model.fingerprint
    assert delta.provenance["rewrites"][0]["target_new"] == "Rome"
    json.dumps(dict(delta.provenance))


def test_the_edited_model_says_something_else_and_only_the_named_weights_differ(
    model, edit, rewrite, weights, changed
):
    text = model.tokens([rewrite.prompt])
    before, said = weights(model), full_logits(model, text)
    delta = edit(model, rewrite)
    with applied(model, delta):
        assert changed(model, before) == set(delta.changes) == {model.ffn_out_name(1)}
        assert (full_logits(model, text) - said)[0, -1].abs().max() > 0.01
    assert changed(model, before) == set()
    assert torch.equal(full_logits(model, text), said)


def test_the_same_seed_gives_the_same_change(tiny, edit, method, rewrite):
    model = tiny("llama")
    first = edit(model, rewrite)
    assert edit(model, rewrite).digest == first.digest
    assert edit(model, rewrite, dataclasses.replace(method, seed=1)).digest != first.digest


def test_a_model_that_knows_the_fact_says_the_new_one(pocket, method):
    """With the method's own presets: the new object is the top answer, the old one was."""
    rewrite = world.demo_case().rewrite
    answers = [
        pocket.tokenizer.convert_tokens_to_ids(t) for t in (rewrite.target_new, rewrite.target_true)
    ]
    batch = pocket.tokens([rewrite.prompt])
    delta = type(method)()(pocket, [rewrite])
    assert full_logits(pocket, batch)[0, -1].argmax() == answers[1]
    with applied(pocket, delta):
        assert full_logits(pocket, batch)[0, -1].argmax() == answers[0]
    assert full_logits(pocket, batch)[0, -1].argmax() == answers[1]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ValueError])
def test_an_interrupted_search_leaves_the_model_alone(
    model, edit, rewrite, weights, changed, interrupt
):
    before = weights(model)

    def stop(step, loss):
        if step == 2:
            raise interrupt

    with pytest.raises(interrupt):
        edit(model, rewrite, step_done=stop)
    assert changed(model, before) == set()


# --- applied, and taken back --------------------------------------------------------------


@pytest.mark.parametrize("interrupt", [None, KeyboardInterrupt, RuntimeError])
def test_weights_come_back_bit_for_bit(model, random_delta, weights, changed, interrupt):
    before = weights(model)
    pointers = {name: p.data_ptr() for name, p in model.hf.named_parameters()}
    try:
        with applied(model, random_delta(model, 1), random_delta(model, 2)):
            assert changed(model, before) == {model.ffn_out_name(1), model.ffn_out_name(2)}
            if interrupt is not None:
                raise interrupt
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert changed(model, before) == set()
    assert {name: p.data_ptr() for name, p in model.hf.named_parameters()} == pointers


def test_the_change_is_added_to_the_weight(model, random_delta, weights):
    delta = random_delta(model)
    ((name, change),) = delta.changes.items()
    expected = weights(model)[name].double() + change.left.double() @ change.right.double()
    with applied(model, delta):
        now = dict(model.hf.named_parameters())[name]
        torch.testing.assert_close(now.double(), expected, rtol=1e-6, atol=1e-6)


def test_nested_edits_undo_in_order(model, random_delta, weights, changed):
    one, two = random_delta(model, seed=1), random_delta(model, seed=2)
    before = weights(model)
    with applied(model, one):
        inner = weights(model)
        with applied(model, two):
            assert changed(model, inner) == set(two.changes)
        assert changed(model, inner) == set()
    assert changed(model, before) == set()


def test_several_at_once_are_one_after_the_other(model, random_delta, weights):
    one, two = random_delta(model, seed=1), random_delta(model, seed=2)
    with applied(model, one), applied(model, two):
        nested = weights(model)
    with applied(model, one, two):
        listed = weights(model)
    with applied(model, one + two):
        summed = weights(model)
    for name, value in nested.items():
        assert torch.equal(listed[name], value)
        torch.testing.assert_close(summed[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_change_of_nothing_changes_nothing(weights, changed, dtype):
    hf, tokenizer = random_model("llama")
    hf = hf.to(getattr(torch, dtype))
    for parameter in hf.parameters():  # no float32 in float64's clothing
        parameter.data.mul_(1 / 3)
    model = wrap(hf, tokenizer, name="thirds", check=False)
    nothing = LowRank(torch.zeros(32, 1), torch.zeros(1, 64))
    before = weights(model)
    with applied(model, WeightDelta({model.ffn_out_name(0): nothing}, model.fingerprint)):
        assert changed(model, before) == set()


def test_changes_of_different_weights_add(tiny, random_delta):
    model = tiny("llama")
    one, two = random_delta(model, 0), random_delta(model, 1)
    total = one + two + two
    assert list(total.changes) == [model.ffn_out_name(0), model.ffn_out_name(1)]
    twice = total.changes[model.ffn_out_name(1)]
    assert twice.rank == 4
    torch.testing.assert_close(twice.dense(), 2 * two.changes[model.ffn_out_name(1)].dense())


def test_a_change_of_another_model_is_refused(tiny, random_delta, weights, changed):
    model, other = tiny("llama"), tiny("qwen2")
    delta, before = random_delta(model), weights(other)
    with (
        pytest.raises(FingerprintMismatch, match="load the model it was made for"),
        applied(other, random_delta(other), delta),
    ):
        raise AssertionError("applied")
    assert changed(other, before) == set()
    with pytest.raises(FingerprintMismatch, match="do not add"):
        delta + random_delta(other)
    shapeless = WeightDelta(
        {"no.such.weight": LowRank(torch.ones(2, 1), torch.ones(1, 2))}, model.fingerprint
    )
    with pytest.raises(FingerprintMismatch, match="no weight"), applied(model, shapeless):
        pass


def test_the_fingerprint_of_the_result_is_that_of_the_edited_weights(model, random_delta):
    delta = random_delta(model)
    found = result_fingerprint(model, delta)
    with applied(model, delta):
        assert fingerprint(model.hf, model.tokenizer) == found != model.fingerprint


# --- saved, and read back -----------------------------------------------------------------


def test_a_saved_change_comes_back(tiny, edit, rewrite, tmp_path, weights):
    model = tiny("gpt2")
    delta = edit(model, rewrite)
    again = WeightDelta.load(delta.save(tmp_path / "delta"))
    assert again.digest == delta.digest and again.base == delta.base
    assert again.provenance["method"] == delta.provenance["method"]
    with applied(model, delta):
        first = weights(model)
    with applied(model, again):
        assert all(torch.equal(first[name], value) for name, value in weights(model).items())


def rename_base(folder):
    header = json.loads((folder / "delta.json").read_text())
    (folder / "delta.json").write_text(json.dumps(header | {"base": "0" * 64}))


def flip_byte(folder):
    data = bytearray((folder / "delta.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "delta.safetensors").write_bytes(data)


def cut(folder):
    data = (folder / "delta.safetensors").read_bytes()
    (folder / "delta.safetensors").write_bytes(data[:-8])


def drop_field(folder):
    header = json.loads((folder / "delta.json").read_text())
    del header["digest"]
    (folder / "delta.json").write_text(json.dumps(header))


def no_object(folder):
    (folder / "delta.json").write_text("[]")


def other_format(folder):
    header = json.loads((folder / "delta.json").read_text())
    (folder / "delta.json").write_text(json.dumps(header | {"format": 99}))


def no_json(folder):
    (folder / "delta.json").write_text("{")


def not_a_number(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "delta.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, folder / "delta.safetensors")


@pytest.mark.parametrize(
    "tamper",
    [rename_base, flip_byte, cut, drop_field, no_object, other_format, no_json, not_a_number],
    ids=lambda f: f.__name__,
)
def test_a_tampered_file_is_refused(tiny, random_delta, tmp_path, tamper):
    folder = random_delta(tiny("llama")).save(tmp_path / "delta")
    WeightDelta.load(folder)
    tamper(folder)
    with pytest.raises((MalformedRecord, InputError)):
        WeightDelta.load(folder)


def test_a_folder_without_a_change_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingFile, match="no delta"):
            WeightDelta.load(folder)
