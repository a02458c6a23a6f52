"""One edit of several taken back, from deltas and from checkpoints, and how exact that is."""

import dataclasses
import itertools
import json

import pytest
import torch

from editing.edits.applying import applied
from editing.edits.delta import Dense, WeightDelta
from editing.edits.truncate import truncated
from editing.edits.undoing import Undo, undo
from editing.export.checkpoint import export_hf
from editing.export.options import ExportOptions
from editing.export.restore import undo_checkpoint
from labkit.errors import FingerprintMismatch, InputError, MalformedRecord, MissingFile, OutputError
from labkit.models.loading import load


@pytest.fixture
def chain(random_delta):
    """`chain(model)`: three edits, the third made on top of the first two, and their sum."""

    def make(model):
        first, second, third = (
            dataclasses.replace(
                random_delta(model, layer, seed=seed),
                provenance={"method": f"edit {seed}"},
                memory={"keys": torch.full((1, 3), float(seed))},
            )
            for layer, seed in ((1, 1), (1, 2), (1, 3))
        )
        third = dataclasses.replace(third, on_top_of=first.then(second).digest)
        return [first, second, third], first.then(second).then(third)

    return make


@pytest.fixture
def saved(tiny, tmp_path):
    """A model that was opened from a folder: its tokenizer is the one that comes back."""
    model = tiny("llama")
    model.hf.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    return load(str(tmp_path / "base"))


# --- from deltas --------------------------------------------------------------------------


def test_in_any_order_what_is_left_is_the_others(model, chain, weights):
    edits, total = chain(model)
    for gone in range(3):
        others = [edit for number, edit in enumerate(edits) if number != gone]
        with applied(model, others[0].then(dataclasses.replace(others[1], on_top_of=None))):
            expected = weights(model)
        for history in (edits, total):
            left, answer = undo(history, edits[gone])
            assert answer.exact and answer.remaining == 2
            with applied(model, left):
                assert all(torch.equal(expected[n], w) for n, w in weights(model).items())
            assert [s["method"] for s in left.steps] == [e.provenance["method"] for e in others]
            assert left.memory["keys"][:, 0].tolist() == [n + 1.0 for n in range(3) if n != gone]
        assert answer.stale == (("edit 3",) if gone < 2 else ())


def test_all_of_them_in_every_order_is_nothing(tiny, chain):
    edits, total = chain(tiny("gpt2"))
    for order in itertools.permutations(edits):
        left = total
        for edit in order:
            left, answer = undo(left, edit)
            assert answer.exact
        assert left.changes == {} and left.steps == ()
        assert answer.remaining == 0


def test_several_edits_are_taken_back_as_one(tiny, chain):
    edits, total = chain(tiny("llama"))
    left, answer = undo(total, edits[0].then(edits[1]))
    assert answer.exact and left.digest == edits[2].digest
    left, answer = undo(total.scaled(2), edits[1])
    expected = edits[0].scaled(2) + dataclasses.replace(edits[2].scaled(2), on_top_of=None)
    assert answer.exact and left.digest == expected.digest


def test_what_rounding_keeps_from_being_exact_is_said_with_its_size(tiny, random_delta):
    """In dense sums the parts are gone; the error is measured, and lies within the bound."""
    model = tiny("llama")
    one, two = (
        dataclasses.replace(delta, changes={n: Dense(c.dense()) for n, c in delta.changes.items()})
        for delta in (random_delta(model, seed=1), random_delta(model, seed=2))
    )
    ((name, kept),) = one.changes.items()
    left, answer = undo(one + two, two)
    off = (left.changes[name].dense() - kept.dense()).abs().max()
    assert 0 < off <= answer.weights["largest"].max() < 1e-5
    assert not answer.exact and "not bit for bit" in answer.title
    assert undo([one, two], two)[1].exact, "the deltas themselves lose nothing"


def test_what_is_not_there_cannot_be_taken_back(tiny, chain, random_delta):
    model = tiny("llama")
    edits, total = chain(model)
    stranger = random_delta(model, seed=9)
    for history in (edits, total):
        with pytest.raises(InputError, match="not among the 3"):
            undo(history, stranger)
    with pytest.raises(InputError, match="composition was truncated"):
        undo(truncated(total, rank=3), edits[0])
    with pytest.raises(FingerprintMismatch, match="made on top of"):
        undo([edits[1], edits[2]], edits[1])


def test_the_answer_shows_and_saves_itself(tiny, chain, tmp_path):
    edits, total = chain(tiny("llama"))
    answer = undo(total, edits[0])[1]
    again = Undo.load(answer.save(tmp_path / "undo"))
    assert again.exact and again.title == answer.title and again.stale == answer.stale
    assert len(answer.figure().data) == 1 and "factors cut out" in answer._repr_html_()


# --- from checkpoints ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_without_its_edits_is_the_base(saved, chain, tmp_path, dtype):
    _, total = chain(saved)
    out = export_hf(saved, total, tmp_path / "edited", ExportOptions(dtype=dtype, check=False))
    answer = undo_checkpoint(out, total, tmp_path / "restored")
    assert answer.exact and answer.remaining == 0
    restored = load(str(tmp_path / "restored"), dtype=dtype)
    assert restored.fingerprint == load(saved.name, dtype=dtype).fingerprint
    assert load(str(out), dtype=dtype).fingerprint != restored.fingerprint
    assert not (tmp_path / "restored" / "undo").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_without_one_edit_is_the_export_of_the_others(saved, chain, tmp_path, dtype):
    edits, total = chain(saved)
    out = export_hf(saved, total, tmp_path / "edited", ExportOptions(dtype=dtype, check=False))
    for gone in range(3):
        left, _ = undo(total, edits[gone])
        expected = export_hf(
            saved, left, tmp_path / f"exported{gone}", ExportOptions(dtype=dtype, check=False)
        )
        answer = undo_checkpoint(out, edits[gone], tmp_path / f"restored{gone}")
        found = load(str(tmp_path / f"restored{gone}"), dtype=dtype)
        assert found.fingerprint == load(str(expected), dtype=dtype).fingerprint
        assert answer.exact and bool(answer.stale) == (gone < 2)
        record = json.loads((tmp_path / f"restored{gone}" / "labkit.json").read_text())
        assert record["result"]["fingerprint"] == found.fingerprint
        assert len(record["steps"]) == 2
    again = undo_checkpoint(tmp_path / "restored0", edits[1], tmp_path / "again")
    assert again.exact and again.remaining == 1


def test_without_the_originals_it_is_near_and_says_how_near(saved, chain, tmp_path):
    edits, total = chain(saved)
    out = export_hf(
        saved, total, tmp_path / "edited", ExportOptions(keep_originals=False, check=False)
    )
    assert not (out / "undo").exists()
    answer = undo_checkpoint(out, total, tmp_path / "restored")
    name = saved.ffn_out_name(1)
    base = saved.hf.get_parameter(name)
    off = (load(str(tmp_path / "restored")).hf.get_parameter(name) - base).abs().max()
    assert 0 < off <= answer.weights["largest"].max() < 1e-5
    assert not answer.exact
    last = undo_checkpoint(out, edits[2], tmp_path / "one")
    assert not last.exact and last.remaining == 2


def test_a_change_that_costs_no_digit_is_known_to_be_restored_exactly(saved, tmp_path):
    """The checksum tells, where the arithmetic happened to be exact."""
    name = saved.ffn_out_name(1)
    delta = WeightDelta({name: Dense(torch.zeros(32, 64))}, saved.fingerprint)
    out = export_hf(
        saved, delta, tmp_path / "edited", ExportOptions(keep_originals=False, check=False)
    )
    assert undo_checkpoint(out, delta, tmp_path / "restored").exact


def test_a_checkpoint_that_does_not_hold_the_edit_is_refused(
    saved, tiny, chain, random_delta, tmp_path
):
    _, total = chain(saved)
    out = export_hf(saved, total, tmp_path / "edited", ExportOptions(check=False))
    before = sorted(tmp_path.rglob("*"))
    target = tmp_path / "restored"
    with pytest.raises(InputError, match="not among the 3"):
        undo_checkpoint(out, random_delta(saved, seed=9), target)
    with pytest.raises(FingerprintMismatch, match="the delta for"):
        undo_checkpoint(out, random_delta(tiny("qwen2")), target)
    with pytest.raises(MissingFile, match="labkit diff"):
        undo_checkpoint(saved.name, total, target)
    with pytest.raises(OutputError, match="not an empty folder"):
        undo_checkpoint(out, total, out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("keep_originals", [True, False])
def test_an_edit_is_not_taken_out_of_a_truncated_checkpoint(saved, chain, tmp_path, keep_originals):
    """Its part of the sum is gone, with the originals and without them."""
    edits, total = chain(saved)
    kept = ExportOptions(keep_originals=keep_originals, check=False)
    out = export_hf(saved, truncated(total, rank=3), tmp_path / "edited", kept)
    with pytest.raises(InputError, match="composition was truncated"):
        undo_checkpoint(out, edits[0], tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    whole = undo_checkpoint(out, truncated(total, rank=3), tmp_path / "whole")
    assert whole.remaining == 0 and whole.weights["largest"].max() < 1e-5


def test_a_checkpoint_that_was_changed_since_is_refused(saved, chain, tmp_path):
    from safetensors.torch import load_file, save_file

    _, total = chain(saved)
    name = saved.ffn_out_name(1)
    for file in ("model.safetensors", "undo/weights.safetensors"):
        out = export_hf(saved, total, tmp_path / file.replace("/", "-"), ExportOptions(check=False))
        tensors = load_file(out / file)
        tensors[name][0, 0] += 1
        save_file(tensors, out / file, metadata={"format": "pt"})
        with pytest.raises(MalformedRecord, match="changed since|not those"):
            undo_checkpoint(out, total, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()
