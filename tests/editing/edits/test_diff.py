"""Two checkpoints as a delta, and deltas at a lower rank, with the errors that are stated."""

import dataclasses

import pytest
import torch

from editing.edits.applying import applied
from editing.edits.delta import Dense, LowRank, WeightDelta
from editing.edits.difference import diff
from editing.edits.truncate import truncated
from editing.export.checkpoint import export_hf
from editing.export.options import ExportOptions
from labkit.errors import FingerprintMismatch, InputError, UnknownModel
from labkit.models.loading import load, wrap
from labkit.models.random_models import random_model
from labkit.stats import generator

# --- diff ---------------------------------------------------------------------------------


def test_the_difference_to_an_export_is_the_delta(model, random_delta, tmp_path, weights):
    model.hf.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    base = load(str(tmp_path / "base"))
    delta = random_delta(base, 1) + random_delta(base, 2, seed=3)
    out = export_hf(base, delta, tmp_path / "edited", ExportOptions(check=False))
    found = diff(base, out)
    assert set(found.changes) == set(delta.changes) and found.base == base.fingerprint
    with applied(base, delta):
        expected = weights(base)
    for name, change in found.changes.items():
        assert isinstance(change, LowRank) and change.rank == 2, "no noise is stored"
        stated = found.provenance["weights"][name]
        wanted = delta.changes[name].dense().double()
        error = float((change.dense() - wanted).norm() / wanted.norm())
        assert error < 1e-6 and stated["relative_error"] < 1e-6
    with applied(base, found):
        for name, value in weights(base).items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_in_bfloat16_the_rank_is_found_through_the_rounding(tiny, family, random_delta):
    base = tiny(family, "bfloat16")
    other = wrap(*twin(base), name="edited", check=False)
    delta = random_delta(base, 1, scale=0.3)
    ((name, change),) = delta.changes.items()
    with torch.no_grad():
        weight = other.hf.get_parameter(name)
        weight.copy_(weight.float() + change.dense())
    found = diff(base, other)
    (kept,) = found.changes.values()
    assert kept.rank == 2
    error = found.provenance["weights"][name]["relative_error"]
    assert 1e-4 < error < 0.05


def twin(model):
    """A copy of a model, to be changed."""
    import copy

    return copy.deepcopy(model.hf), model.tokenizer


def test_vectors_and_matrices_of_full_rank_stay_dense_and_exact(tiny):
    base = tiny("gpt2")
    other = wrap(*twin(base), name="trained", check=False)
    with torch.no_grad():
        for name, parameter in other.hf.named_parameters():
            if ".h.1." in name:
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator(0, name)))
    other = wrap(other.hf, other.tokenizer, name="trained", check=False)
    found = diff(base, other)
    assert all(".h.1." in name for name in found.changes)
    assert any(change.dense().dim() == 1 for change in found.changes.values())
    with applied(base, found):
        for name, parameter in other.hf.named_parameters():
            torch.testing.assert_close(base.hf.get_parameter(name), parameter, rtol=0, atol=1e-7)
    assert set(found.provenance["weights"].values()) == {None}
    short = diff(base, other, rank=3)
    for name, change in short.changes.items():
        if change.dense().dim() == 2:
            best = torch.linalg.svdvals(found.changes[name].matrix.double())
            error = float(best[3:].norm() / best.norm())
            assert short.provenance["weights"][name]["relative_error"] == pytest.approx(error, 1e-4)


def test_models_that_are_no_change_of_one_another_are_refused(tiny, tmp_path):
    base = tiny("llama")
    with pytest.raises(FingerprintMismatch, match="qwen2"):
        diff(base, tiny("qwen2"))
    hf, tokenizer = random_model("llama")
    with pytest.raises(InputError, match="no difference to store"):
        diff(base, wrap(hf, tokenizer, name="same", check=False))
    hf.resize_token_embeddings(300)
    with pytest.raises(FingerprintMismatch, match="different weights"):
        diff(base, wrap(hf, tokenizer, name="wider", check=False))
    hf, tokenizer = random_model("llama", seed=1)
    tokenizer.add_tokens(["novel"])
    with pytest.raises(FingerprintMismatch, match="vocabularies"):
        diff(base, wrap(hf, tokenizer, name="other words", check=False))
    for edited, error in ((tmp_path, InputError), ("no such model", UnknownModel)):
        with pytest.raises(error):
            diff(base, edited)
    for wrong in ({"rank": 0}, {"tolerance": -1.0}):
        with pytest.raises(InputError):
            diff(base, tiny("llama"), **wrong)


def test_a_checkpoint_that_was_rounded_is_not_compared_with_one_that_was_not(
    tiny, random_delta, tmp_path
):
    base = tiny("llama")
    out = export_hf(
        base, random_delta(base), tmp_path / "o", ExportOptions(dtype="bfloat16", check=False)
    )
    with pytest.raises(InputError, match="--dtype bfloat16"):
        diff(base, out)


# --- truncated ----------------------------------------------------------------------------


@pytest.fixture
def wide(tiny):
    """A delta of known singular values, as factors and dense."""
    model = tiny("llama")
    draw = generator(0, "wide")
    left = torch.linalg.qr(torch.randn(32, 4, generator=draw)).Q
    right = torch.linalg.qr(torch.randn(64, 4, generator=draw)).Q.T
    values = torch.tensor([8.0, 4.0, 2.0, 1.0])
    name = model.ffn_out_name(1)
    factors = LowRank(left * values, right)
    return [
        WeightDelta({name: change}, model.fingerprint, {"method": "wide"})
        for change in (factors, Dense(factors.dense()))
    ]


def test_the_error_of_a_lower_rank_is_that_of_the_values_dropped(wide):
    for delta in wide:
        ((name, change),) = delta.changes.items()
        short = truncated(delta, rank=2)
        *before, step = short.steps
        assert [s["method"] for s in before] == ["wide"] and step["rank"] == 2
        stated = step["weights"][name]
        assert short.changes[name].rank == stated["rank"] == 2
        assert stated["relative_error"] == pytest.approx((5 / 85) ** 0.5, rel=1e-4)
        assert stated["largest_dropped"] == pytest.approx(2.0, rel=1e-4)
        missing = (short.changes[name].dense() - change.dense()).norm()
        assert float(missing) == pytest.approx(5**0.5, rel=1e-4)


def test_the_rank_follows_from_the_energy_that_is_kept(wide):
    for energy, rank in ((0.5, 1), (64 / 85, 1), (0.76, 2), (0.99, 4), (1.0, 4)):
        short = truncated(wide[0], energy=energy)
        assert next(iter(short.changes.values())).rank == rank, energy
    assert next(iter(truncated(wide[0], rank=9).changes.values())).rank == 4


def test_an_impossible_rank_is_refused(wide):
    for wrong in ({}, {"rank": 2, "energy": 0.5}, {"rank": 0}, {"energy": 0.0}, {"energy": 1.1}):
        with pytest.raises(InputError):
            truncated(wide[0], **wrong)


def test_vectors_have_no_rank_to_lower(tiny, tmp_path):
    model = tiny("llama")
    norm = {"model.norm.weight": Dense(torch.ones(32))}
    delta = WeightDelta(norm, model.fingerprint)
    assert truncated(delta, rank=1).changes["model.norm.weight"] is norm["model.norm.weight"]
    again = WeightDelta.load(delta.save(tmp_path / "delta"))
    assert again.digest == delta.digest
    with applied(model, dataclasses.replace(again)):
        pass
