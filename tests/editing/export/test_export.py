"""The exported checkpoint is the edited model, to plain transformers and to the lab alike."""

import dataclasses
import errno
import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from editing.edits.applying import applied
from editing.export.card import model_card
from editing.export.checkpoint import export_hf
from editing.export.options import ExportOptions
from editing.export.record import read_record
from editing.export.reopening import ExportCheck, check_export
from labkit.errors import (
    FingerprintMismatch,
    InputError,
    MalformedRecord,
    MissingFile,
    OutputError,
)
from labkit.facts.fact import Rewrite
from labkit.models.loading import load
from tests.reference import full_logits, random_batch


@pytest.fixture
def asked(random_delta, rewrite):
    """`asked(model)`: a change of two weights that says what it was meant to do."""

    def make(model, rewrite=rewrite):
        record = {"method": "random", "rewrites": [dataclasses.asdict(rewrite)]}
        both = random_delta(model, 1, seed=1) + random_delta(model, 2, seed=2)
        return dataclasses.replace(both, provenance=record)

    return make


@pytest.fixture
def delta(model, asked):
    return asked(model)


def reopened(folder):
    """The checkpoint as transformers alone has it; every weight of it is in the files."""
    hf, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return hf.eval()


def test_plain_transformers_opens_the_edited_model(model, delta, tmp_path):
    out = export_hf(model, delta, tmp_path / "checkpoint")
    hf = reopened(out)
    ids = random_batch(model, 9).ids
    with torch.no_grad():
        unedited = full_logits(model, random_batch(model, 9))
        with applied(model, delta):
            edited = full_logits(model, random_batch(model, 9))
        torch.testing.assert_close(hf(ids).logits, edited, rtol=0, atol=1e-5)
    assert (edited - unedited).abs().max() > 1e-3
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer("the cat").input_ids == model.tokenizer("the cat").input_ids


def test_exactly_the_named_tensors_differ(model, delta, tmp_path):
    hf = reopened(export_hf(model, delta, tmp_path / "checkpoint"))
    base = model.hf.state_dict()
    assert set(hf.state_dict()) == set(base)
    differing = {n for n, t in hf.state_dict().items() if not torch.equal(t, base[n])}
    assert differing == {model.ffn_out_name(1), model.ffn_out_name(2)} == set(delta.changes)


def test_in_half_the_digits_it_is_the_edited_model_rounded_once(model, delta, tmp_path, weights):
    out = export_hf(model, delta, tmp_path / "checkpoint", ExportOptions(dtype="bfloat16"))
    hf = AutoModelForCausalLM.from_pretrained(out)  # as it says itself
    with applied(model, delta):
        expected = weights(model)
    for name, parameter in hf.named_parameters():
        assert torch.equal(parameter, expected[name].bfloat16()), name
    assert hf.dtype == torch.bfloat16


def test_what_rounding_leaves_of_the_edit_is_measured(model, delta, tmp_path):
    """Against the definition, on weights rounded by hand."""
    fine = check_export(model, delta, export_hf(model, delta, tmp_path / "float32"))
    coarse = check_export(
        model,
        delta,
        export_hf(model, delta, tmp_path / "bfloat16", ExportOptions(dtype="bfloat16")),
    )
    base = dict(model.hf.named_parameters())
    for row in coarse.weights.itertuples():
        wanted = delta.changes[row.weight].dense()
        kept = (base[row.weight] + wanted).bfloat16().float() - base[row.weight].bfloat16().float()
        torch.testing.assert_close(
            row.relative_error, float((kept - wanted).norm() / wanted.norm()), rtol=1e-4, atol=0
        )
        assert 1e-4 < row.relative_error < 0.1
    assert fine.weights["relative_error"].max() < 1e-6 and fine.logits_off < 1e-5
    assert fine.logits_off < coarse.logits_off < coarse.logits_moved
    assert fine.answers["exported"][0] == pytest.approx(fine.answers["edited"][0], rel=1e-5)
    assert fine.answers["exported"][0] != fine.answers["unedited"][0]


def test_a_change_too_small_for_the_format_is_said_to_be_lost(tiny, asked, tmp_path):
    model = tiny("llama")
    faint = dataclasses.replace(asked(model).scaled(1e-6), provenance={"method": "faint"})
    check = check_export(
        model, faint, export_hf(model, faint, tmp_path / "o", ExportOptions(dtype="bfloat16"))
    )
    assert check.weights["unmoved"].min() > 0.9 and check.weights["kept"].max() < 0.5
    assert check.answer("exported") is None and len(check.answers) == 0


def test_a_check_shows_and_saves_itself(tiny, asked, tmp_path):
    model = tiny("gpt2")
    delta = asked(model)
    check = check_export(model, delta, export_hf(model, delta, tmp_path / "checkpoint"))
    again = ExportCheck.load(check.save(tmp_path / "check"))
    assert again.title == check.title and again.to_frame().equals(check.to_frame())
    assert len(check.figure().data) == 3 and "the cat is in" in check._repr_html_()
    silent = dataclasses.replace(check, answers=check.answers.head(0))
    assert len(silent.figure().data) == 1 and "weight" in silent._repr_html_()


def test_a_check_belongs_to_its_export(tiny, asked, tmp_path):
    model = tiny("llama")
    out = export_hf(model, asked(model), tmp_path / "checkpoint", ExportOptions(check=False))
    with pytest.raises(FingerprintMismatch, match="was made from the delta"):
        check_export(model, asked(model).scaled(2), out)
    with pytest.raises(MissingFile, match="not an export"):
        check_export(model, asked(model), tmp_path)
    (out / "labkit.json").write_text('{"kind": "picture"}')
    with pytest.raises(MalformedRecord, match="picture"):
        check_export(model, asked(model), out)


def test_tied_embeddings_stay_tied(model, delta, tmp_path):
    tied = model.unembed.weight is model.hf.get_input_embeddings().weight
    assert tied == (model.hf.config.model_type in ("gpt2", "gemma"))
    hf = reopened(export_hf(model, delta, tmp_path / "checkpoint"))
    assert (hf.get_output_embeddings().weight is hf.get_input_embeddings().weight) == tied
    with safe_open(tmp_path / "checkpoint" / "model.safetensors", framework="pt") as file:
        assert len(file.keys()) == len(list(model.hf.parameters()))  # tied ones count once


def test_the_lab_opens_it_as_the_result_that_was_announced(model, random_delta, tmp_path):
    model.hf.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    model = load(str(tmp_path / "base"))  # a folder's tokenizer is the one that comes back
    delta = random_delta(model)
    out = export_hf(model, delta, tmp_path / "checkpoint")
    record = json.loads((out / "labkit.json").read_text())
    assert record["base"]["fingerprint"] == model.fingerprint
    assert record["result"]["fingerprint"] == load(str(out)).fingerprint != model.fingerprint
    assert list(record["changed"]) == list(delta.changes)


def estimate(mean, low, high, n=3):
    return {"mean": mean, "low": low, "high": high, "n": n}


def test_the_card_names_the_change_and_its_audit(tiny, asked, tmp_path):
    model = tiny("gpt2")
    delta = asked(model)
    audit = {
        "n": 3,
        "unit of intervals": "prompt",
        "unedited": {"success": {"efficacy": estimate(0.125, 0.0, 0.5)}},
        "success": {"efficacy": estimate(0.875, 0.5, 1.0)},
        "perplexity": {"edited": estimate(21.5, 20.0, 23.0), "unit of intervals": {"edited": "x"}},
        "whatever": {"comes": [1, 2, {"next": None}]},
    }
    out = export_hf(model, delta, tmp_path / "checkpoint", audit=audit)
    card = (out / "README.md").read_text()
    assert "the cat is in **Rome** (was: the house)" in card
    assert f"`{model.ffn_out_name(1)}` | 64 x 32 | 2 |" in card
    assert "| success | efficacy | 0.125 [0.000, 0.500] | 0.875 [0.500, 1.000] |" in card
    assert "| perplexity / edited | 21.5000 [20.0000, 23.0000] |" in card
    assert "3 case(s); intervals: 95 %, over prompts." in card
    assert model.fingerprint in card and read_record(out)["result"]["fingerprint"] in card
    assert "license: mit" in card and "Licence of its weights: MIT" in card
    assert "Opened again, they hold 100.00% of the change" in card
    assert "No audit" in model_card(read_record(out))


def test_the_card_of_many_edits_shows_the_first_and_counts_the_rest(tiny, asked, tmp_path):
    model = tiny("llama")
    subjects = [f"cat {n}" for n in range(50)]
    total = asked(model, Rewrite(subject="dog", template="the {} is in", target_new="Oslo"))
    total = dataclasses.replace(total, provenance={**total.provenance, "method": "first"})
    for subject in subjects:
        rewrite = Rewrite(subject=subject, template="the {} is in", target_new="Rome")
        total = total.then(asked(model, rewrite))
    forget = {"subject": "hen", "template": "the {} is on", "target_true": "a roof"}
    total = dataclasses.replace(
        total,
        provenance={"steps": [{"method": "gone", "rewrites": [forget]}, *total.steps]},
    )
    out = export_hf(model, total, tmp_path / "checkpoint", ExportOptions(check=False))
    card = (out / "README.md").read_text()
    assert "the hen is on: made to forget **a roof**" in card and "the dog is in **Oslo**" in card
    assert "the cat 17 is in **Rome**" in card and "the cat 18" not in card
    assert "and 32 more, 52 in all" in card and "random (50 times)" in card
    assert "The files were not opened again." in card
    assert len(read_record(out)["steps"]) == 52


# --- nothing half-written -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["full disk", "ctrl-c"],
)
def test_a_failed_export_leaves_nothing(
    model, delta, tmp_path, monkeypatch, weights, changed, failure, raised
):
    before = weights(model)

    def fails(tensors, path, **more):
        with open(path, "wb") as file:
            file.write(b"half")
        raise failure

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fails)
    with pytest.raises(raised):
        export_hf(model, delta, tmp_path / "new" / "checkpoint")
    assert list(tmp_path.iterdir()) == []
    assert changed(model, before) == set()


def test_a_folder_in_use_is_left_alone(tiny, random_delta, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        export_hf(tiny("llama"), random_delta(tiny("llama")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_change_of_another_model_is_not_exported(tiny, random_delta, tmp_path):
    with pytest.raises(FingerprintMismatch):
        export_hf(tiny("llama"), random_delta(tiny("qwen2")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_number_format_that_is_none_is_refused_before_any_work(tiny, asked, tmp_path):
    with pytest.raises(InputError, match="int7"):
        export_hf(
            tiny("llama"), asked(tiny("llama")), tmp_path / "out", ExportOptions(dtype="int7")
        )
    assert list(tmp_path.iterdir()) == []
