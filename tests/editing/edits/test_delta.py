"""Weight changes as things: applied and restored bit for bit, composed, saved, refused."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from editing.edits.applying import applied
from editing.edits.delta import Dense, LowRank, WeightDelta, parts
from labkit.errors import FingerprintMismatch, InputError, MalformedRecord, MissingFile
from labkit.models.loading import wrap
from labkit.models.random_models import random_model

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


# --- composed -----------------------------------------------------------------------------


def with_memory(delta, value, **more):
    rows = {"keys": torch.full((1, 3), value)}
    return dataclasses.replace(delta, memory=rows, provenance={"method": value}, **more)


def test_edits_in_order_are_one_change_with_all_they_remember(tiny, random_delta, weights):
    model = tiny("llama")
    one = with_memory(random_delta(model, seed=1), 1.0)
    two = with_memory(random_delta(model, seed=2), 2.0, on_top_of=one.digest)
    both = one.then(two)
    three = with_memory(random_delta(model, 2, seed=3), 3.0, on_top_of=both.digest)
    total = both.then(three)
    with applied(model, one), applied(model, two), applied(model, three):
        nested = weights(model)
    with applied(model, total):
        for name, value in weights(model).items():
            torch.testing.assert_close(value, nested[name], rtol=1e-6, atol=1e-6)
    assert total.memory["keys"][:, 0].tolist() == [1.0, 2.0, 3.0]
    assert total.on_top_of is None
    assert [step["method"] for step in total.steps] == [1.0, 2.0, 3.0]
    assert [step["digest"] for step in total.steps] == [one.digest, two.digest, three.digest]
    assert [step["on_top_of"] for step in total.steps] == [None, one.digest, both.digest]
    assert not any("steps" in step for step in total.steps), "flat, not nested"
    json.dumps(dict(total.provenance))


def test_an_edit_follows_only_what_it_was_made_on_top_of(tiny, random_delta):
    model = tiny("llama")
    one, two = random_delta(model, seed=1), random_delta(model, seed=2)
    three = dataclasses.replace(random_delta(model, seed=3), on_top_of=one.then(two).digest)
    one.then(two).then(three)
    for other in (one, two, two.then(one)):
        with pytest.raises(FingerprintMismatch, match="made on top of"):
            other.then(three)
    with pytest.raises(FingerprintMismatch, match="first.then"):
        one + three
    with pytest.raises(FingerprintMismatch, match="different models"):
        one.then(random_delta(tiny("qwen2")))


def test_scaled_and_taken_back(tiny, random_delta):
    model = tiny("llama")
    one, two = random_delta(model, seed=1), random_delta(model, seed=2)
    ((name, change),) = one.changes.items()
    dense = WeightDelta({name: Dense(change.dense())}, one.base)
    for delta in (one, dense):
        torch.testing.assert_close(delta.scaled(0.5).changes[name].dense(), change.dense() / 2)
    nothing = one + two + -one + -two
    assert nothing.changes[name].dense().abs().max() < 1e-6
    assert [step.get("times") for step in nothing.steps] == [None, None, -1.0, -1.0]
    assert [step["times"] for step in one.then(two).scaled(2).scaled(3).steps] == [6.0, 6.0]
    with pytest.raises(InputError, match="not finite"):
        one.scaled(float("inf"))


def test_a_sum_is_dense_once_that_takes_less_room(tiny, random_delta):
    model = tiny("llama")
    deltas = [random_delta(model, seed=seed) for seed in range(40)]
    total, name = deltas[0], model.ffn_out_name(1)
    kinds = set()
    for delta in deltas[1:]:
        total = total + delta
        (change,) = total.changes.values()
        kinds.add(type(change))
        numbers = sum(part.numel() for part in parts(change).values())
        assert numbers <= change.dense().numel()
    assert kinds == {LowRank, Dense}
    expected = sum(delta.changes[name].dense().double() for delta in deltas)
    torch.testing.assert_close(total.changes[name].dense().double(), expected, rtol=0, atol=1e-5)


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


# --- shown ----------------------------------------------------------------------------------


def test_a_change_shows_its_layers_ranks_and_norms(tiny, rewrite):
    model = tiny("gpt2")
    first, last = (model.ffn_out_name(layer) for layer in (0, 2))
    left, right = torch.ones(3, 2), torch.ones(2, 5)
    asked = {"rewrites": [{"subject": "cat", "target_new": "<Rome>"}]}
    delta = WeightDelta(
        {last: LowRank(left, right), first: Dense(2 * torch.ones(2, 2)), "bias": Dense(left)},
        "f" * 64,
        asked,
    )
    frame = delta.to_frame().set_index("weight")
    assert delta.layers == (0, 2)
    assert list(frame["shape"]) == ["3 x 5", "2 x 2", "3 x 2"]
    assert frame.loc[last, "rank"] == 2 and frame.loc[first, "norm"] == pytest.approx(4.0)
    assert frame.loc[last, "norm"] == pytest.approx(2 * 15**0.5)
    assert "3 weights in layers 0, 2" in delta.title and "cat" in delta.title
    assert "<Rome>" not in delta._repr_html_() and "&lt;Rome&gt;" in delta._repr_html_()
    assert list(delta.figure().data[0].x) == list(delta.to_frame()["norm"])


# --- saved, and read back -----------------------------------------------------------------


def test_a_saved_change_comes_back(tiny, random_delta, tmp_path, weights):
    model = tiny("gpt2")
    delta = with_memory(random_delta(model), 0.5, on_top_of="0" * 64)
    again = WeightDelta.load(delta.save(tmp_path / "delta"))
    assert again.digest == delta.digest and again.base == delta.base
    assert again.provenance == delta.provenance and again.on_top_of == delta.on_top_of
    assert torch.equal(again.memory["keys"], delta.memory["keys"])
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


def flip_memory(folder):
    """The file is in order, what it remembers is not what was saved."""
    tensors = load_file(folder / "delta.safetensors")
    save_file(tensors | {"memory.keys": tensors["memory.keys"] + 1}, folder / "delta.safetensors")


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
    tensors = load_file(folder / "delta.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, folder / "delta.safetensors")


@pytest.mark.parametrize(
    "tamper",
    [
        rename_base,
        flip_byte,
        flip_memory,
        cut,
        drop_field,
        no_object,
        other_format,
        no_json,
        not_a_number,
    ],
    ids=lambda f: f.__name__,
)
def test_a_tampered_file_is_refused(tiny, random_delta, tmp_path, tamper):
    folder = with_memory(random_delta(tiny("llama")), 0.5).save(tmp_path / "delta")
    WeightDelta.load(folder)
    tamper(folder)
    with pytest.raises((MalformedRecord, InputError)):
        WeightDelta.load(folder)


def test_a_folder_without_a_change_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingFile, match="no delta"):
            WeightDelta.load(folder)
