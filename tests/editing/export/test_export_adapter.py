"""The exported adapter is the delta, to plain peft on the base model."""

import copy
import dataclasses
import json
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from editing.edits.applying import applied
from editing.edits.delta import Dense, LowRank, WeightDelta
from editing.edits.truncate import truncated
from editing.export.adapter import export_peft
from editing.export.options import ExportOptions
from editing.export.reopening import check_export
from labkit.errors import FingerprintMismatch, InputError, OutputError
from tests.reference import full_logits, random_batch


@pytest.fixture
def uneven(random_delta):
    """`uneven(model)`: rank two in one layer, rank four in another."""
    return lambda model: sum(
        (random_delta(model, 2, seed=seed) for seed in (2, 3)), random_delta(model, 1, seed=1)
    )


def test_plain_peft_opens_the_edited_model(model, uneven, tmp_path, weights, changed):
    delta, before = uneven(model), weights(model)
    out = export_peft(model, delta, tmp_path / "adapter")
    assert changed(model, before) == set()
    assert not any(type(module).__module__.startswith("peft") for module in model.hf.modules())
    peft = PeftModel.from_pretrained(copy.deepcopy(model.hf), str(out)).eval()
    batch = random_batch(model, 9)
    with torch.no_grad():
        found = peft(batch.ids).logits
        with peft.disable_adapter():
            torch.testing.assert_close(peft(batch.ids).logits, full_logits(model, batch))
    unedited = full_logits(model, batch)
    with applied(model, delta):
        torch.testing.assert_close(found, full_logits(model, batch), rtol=0, atol=1e-5)
    assert (found - unedited).abs().max() > 0.1


def test_the_adapter_says_what_it_is(model, uneven, tmp_path):
    out = export_peft(model, uneven(model), tmp_path / "adapter")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4, "one rank for all, and no scale"
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["bias"] == "none" and config["base_model_name_or_path"] == model.name
    assert config["fan_in_fan_out"] == (model.hf.config.model_type == "gpt2")
    tensors = load_file(out / "adapter_model.safetensors")
    assert len(tensors) == 4 and {4} == {min(tensor.shape) for tensor in tensors.values()}
    assert sum(int((tensor == 0).all(dim=1).sum()) for tensor in tensors.values()) == 2, "padding"
    check = check_export(model, uneven(model), out)
    assert check.weights["relative_error"].max() < 1e-6 and check.logits_off < 1e-5
    assert "LoRA adapter" in (out / "README.md").read_text()


def test_what_no_adapter_holds_is_named(tiny, random_delta, tmp_path):
    model = tiny("llama")
    ((name, change),) = random_delta(model).changes.items()

    def refuse(changes, match):
        delta = WeightDelta(changes, model.fingerprint)
        with pytest.raises(InputError, match=match):
            export_peft(model, delta, tmp_path / "adapter")
        assert list(tmp_path.iterdir()) == []
        return delta

    dense = refuse({name: Dense(change.dense())}, "truncated")
    refuse({"model.layers.1.input_layernorm.weight": Dense(torch.ones(32))}, "LlamaRMSNorm")
    embedding = LowRank(torch.ones(model.d_vocab, 1), torch.ones(1, 32))
    refuse({"model.embed_tokens.weight": embedding}, "Embedding")
    refuse({}, "changes nothing")
    export_peft(model, truncated(dense, rank=2), tmp_path / "adapter", ExportOptions(check=False))


def test_a_bias_is_no_change_of_a_matrix(tiny, tmp_path):
    model = tiny("gpt2")
    bias = {"transformer.h.1.mlp.c_proj.bias": Dense(torch.ones(32))}
    with pytest.raises(InputError, match="Conv1D"):
        export_peft(model, WeightDelta(bias, model.fingerprint), tmp_path / "adapter")


def test_other_models_and_used_folders_are_refused(tiny, random_delta, tmp_path):
    with pytest.raises(FingerprintMismatch):
        export_peft(tiny("llama"), random_delta(tiny("qwen2")), tmp_path / "adapter")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        export_peft(tiny("llama"), random_delta(tiny("llama")), tmp_path)


def test_without_peft_it_says_what_to_install(tiny, random_delta, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"labkit\[export\]"):
        export_peft(tiny("llama"), random_delta(tiny("llama")), tmp_path / "adapter")


def test_a_full_disk_leaves_nothing(tiny, random_delta, tmp_path, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("peft.peft_model.safe_save_file", full)
    with pytest.raises(OutputError, match="No space"):
        export_peft(tiny("llama"), random_delta(tiny("llama")), tmp_path / "new" / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_step_of_several_is_an_adapter_too(tiny, random_delta, tmp_path):
    model = tiny("llama")
    one = random_delta(model, seed=1)
    two = dataclasses.replace(random_delta(model, seed=2), on_top_of=one.digest)
    out = export_peft(model, one.then(two), tmp_path / "adapter", ExportOptions(check=False))
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 4
