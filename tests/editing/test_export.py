"""The exported checkpoint is the edited model, to plain transformers and to the lab alike."""

import errno
import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from editing.delta import applied
from editing.export import export_hf, model_card
from labkit.errors import FingerprintMismatch, OutputError
from labkit.models import load
from tests.reference import full_logits, random_batch


@pytest.fixture
def delta(model, edit, rewrite):
    return edit(model, rewrite)


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


def test_exactly_one_tensor_differs(model, delta, tmp_path):
    hf = reopened(export_hf(model, delta, tmp_path / "checkpoint"))
    base = model.hf.state_dict()
    assert set(hf.state_dict()) == set(base)
    differing = {n for n, t in hf.state_dict().items() if not torch.equal(t, base[n])}
    assert differing == set(delta.changes) and len(differing) == 1


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


def test_the_card_names_the_change(tiny, edit, rewrite, tmp_path):
    model = tiny("gpt2")
    delta = edit(model, rewrite)
    audit = {
        "n": 3,
        "unit of intervals": "prompt",
        "unedited": {"success": {"efficacy": {"mean": 0.125, "low": 0.0, "high": 0.5}}},
        "success": {"efficacy": {"mean": 0.875, "low": 0.5, "high": 1.0}},
    }
    out = export_hf(model, delta, tmp_path / "checkpoint", audit=audit)
    card = (out / "README.md").read_text()
    assert "the cat is in **Rome** (was: the house)" in card
    assert f"`{model.ffn_out_name(1)}` | 64 x 32 | 1 |" in card
    assert "0.125 [0.000, 0.500]" in card and "0.875 [0.500, 1.000]" in card
    assert "3 case(s); intervals: 95 %, over prompts." in card
    assert model.fingerprint in card and "ROME" in card
    assert "No audit" in model_card(model, delta, "0" * 64)


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
        assert changed(model, before) == set(delta.changes)
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
