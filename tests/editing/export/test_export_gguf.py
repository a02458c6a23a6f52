"""The GGUF file is the base file, byte for byte, but for the edited tensors."""

import errno
import hashlib
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from transformers import AutoModelForCausalLM

from editing.edits.applying import applied
from editing.edits.delta import Dense, LowRank, WeightDelta
from editing.export.gguf_file import export_gguf, write_gguf
from editing.export.options import ExportOptions
from editing.export.reopening import check_export
from labkit.cache import cache_dir
from labkit.errors import FingerprintMismatch, InputError, MissingFile, OutputError
from labkit.models import registry
from labkit.models.gguf_source import gguf_file
from labkit.models.wheels import installed_file
from labkit.stats import generator
from tests.reference import full_logits, random_batch

Q8 = gguf.GGMLQuantizationType.Q8_0
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(weight, n_heads):
    """As llama.cpp's converter stores queries and keys."""
    rows, columns = weight.shape
    halves = weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_base(model, path, quantised=()):
    """A GGUF file of a llama, written by hand; some tensors quantised to 8 bits."""
    config = model.hf.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_array("tiny.words", ["one", "two", "drei"])
    writer.add_block_count(model.n_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(model.d_model)
    writer.add_feed_forward_length(model.d_mlp)
    writer.add_head_count(model.n_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(model.d_head)
    writer.add_vocab_size(model.d_vocab)
    for name, parameter in model.hf.named_parameters():
        weight = parameter.detach().numpy()
        stored = {
            "model.embed_tokens.weight": "token_embd.weight",
            "model.norm.weight": "output_norm.weight",
            "lm_head.weight": "output.weight",
        }.get(name)
        if stored is None:
            _, _, layer, *module, _ = name.split(".")
            stored = f"blk.{layer}.{NAMES['.'.join(module)]}.weight"
            if "attn_q" in stored or "attn_k" in stored:
                heads = model.n_heads if "attn_q" in stored else config.num_key_value_heads
                weight = interleaved(weight, heads)
        if stored in quantised:
            writer.add_tensor(stored, gguf.quants.quantize(weight, Q8), raw_dtype=Q8)
        else:
            writer.add_tensor(stored, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def base(tiny, tmp_path):
    quantised = ("blk.1.ffn_down.weight", "blk.0.ffn_up.weight")
    return write_base(tiny("llama"), tmp_path / "base.gguf", quantised)


def change(model, name, seed=0):
    """A change of any weight: of rank two for a matrix."""
    draw, shape = generator(seed, name), model.hf.get_parameter(name).shape
    if len(shape) == 1:
        return Dense(0.1 * torch.randn(shape, generator=draw))
    left, right = torch.randn(shape[0], 2, generator=draw), torch.randn(2, shape[1], generator=draw)
    return LowRank(0.1 * left, right)


def delta_of(model, *names):
    return WeightDelta(
        {name: change(model, name) for name in names}, model.fingerprint, {"method": "x"}
    )


DOWN = "model.layers.1.mlp.down_proj.weight"
KINDS = {
    DOWN: "blk.1.ffn_down.weight",
    "model.layers.2.self_attn.q_proj.weight": "blk.2.attn_q.weight",
    "model.layers.2.self_attn.k_proj.weight": "blk.2.attn_k.weight",
    "model.layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
    "model.norm.weight": "output_norm.weight",
    "model.layers.0.input_layernorm.weight": "blk.0.attn_norm.weight",
    "lm_head.weight": "output.weight",
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_transformers_opens_the_edited_model(tiny, base, tmp_path, dtype):
    """Every kind of weight finds its place, queries and keys with their rows in order."""
    model = tiny("llama")
    delta = delta_of(model, *KINDS)
    out = export_gguf(model, delta, tmp_path / "out", ExportOptions(dtype=dtype), base=base)
    found = AutoModelForCausalLM.from_pretrained(out, gguf_file="model.gguf", dtype=torch.float32)
    with applied(model, delta):
        for name in KINDS:
            wanted = model.hf.get_parameter(name)
            if wanted.dim() > 1:
                wanted = wanted.to(getattr(torch, dtype)).float()
            assert torch.equal(found.get_parameter(name), wanted), name


def test_its_logits_are_those_of_the_edited_model(tiny, tmp_path):
    model, batch = tiny("llama"), random_batch(tiny("llama"), 9)
    delta, base = delta_of(model, *KINDS), write_base(model, tmp_path / "base.gguf")
    out = export_gguf(model, delta, tmp_path / "out", base=base)
    found = AutoModelForCausalLM.from_pretrained(out, gguf_file="model.gguf", dtype=torch.float32)
    unedited = full_logits(model, batch)
    with applied(model, delta), torch.no_grad():
        edited = full_logits(model, batch)
        torch.testing.assert_close(found(batch.ids).logits, edited, rtol=0, atol=1e-4)
    assert (edited - unedited).abs().max() > 0.1
    check = check_export(model, delta, out)
    assert check.weights["relative_error"].max() < 1e-5 and check.logits_off < 1e-4


def test_everything_else_is_copied_byte_for_byte(tiny, base, tmp_path):
    model = tiny("llama")
    out = export_gguf(
        model, delta_of(model, DOWN), tmp_path / "out", ExportOptions(check=False), base=base
    )
    before, after = GGUFReader(base), GGUFReader(out / "model.gguf")
    start = before.tensors[0].field.offset
    assert before.data[:start].tobytes() == after.data[:start].tobytes(), "metadata"
    assert [t.name for t in before.tensors] == [t.name for t in after.tensors]
    for old, new in zip(before.tensors, after.tensors, strict=True):
        same = old.tensor_type == new.tensor_type and np.array_equal(old.data, new.data)
        assert same == (old.name != KINDS[DOWN]), old.name
        assert new.data_offset % after.alignment == 0 and list(old.shape) == list(new.shape)
    assert (
        hashlib.sha256(base.read_bytes()).digest()
        != hashlib.sha256((out / "model.gguf").read_bytes()).digest()
    )
    write_gguf(before, {}, gguf.GGMLQuantizationType.F32, tmp_path / "same.gguf")
    assert (tmp_path / "same.gguf").read_bytes() == base.read_bytes(), "no change, no difference"


def test_vectors_stay_float32_whatever_matrices_are_written_as(tiny, base, tmp_path):
    model = tiny("llama")
    delta = delta_of(model, DOWN, "model.norm.weight")
    out = export_gguf(
        model, delta, tmp_path / "out", ExportOptions(dtype="bfloat16", check=False), base=base
    )
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(out / "model.gguf").tensors}
    assert (kinds["output_norm.weight"], kinds[KINDS[DOWN]]) == ("F32", "BF16")
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"
    errors = check_export(model, delta, out).weights.set_index("weight")["relative_error"]
    assert errors["model.norm.weight"] < 1e-6 < 1e-4 < errors[DOWN] < 0.05


def test_the_file_of_another_model_is_refused(tiny, tmp_path):
    from labkit.models.loading import wrap
    from labkit.models.random_models import random_model

    model = tiny("llama")
    stranger = wrap(*random_model("llama", seed=5), name="stranger", check=False)
    base = write_base(stranger, tmp_path / "other.gguf")
    with pytest.raises(FingerprintMismatch, match="another model"):
        export_gguf(model, delta_of(model, DOWN), tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_named(tiny, base, tmp_path, unchecked):
    model, target = tiny("llama"), tmp_path / "out"
    delta = delta_of(model, DOWN)
    for wrong, match in (
        ({"dtype": "int4"}, "int4"),
        ({"dtype": "float64"}, "float64"),
        ({"keep_originals": False}, "keep_originals"),
    ):
        with pytest.raises(InputError, match=match):
            export_gguf(model, delta, target, ExportOptions(**wrong), base=base)
    with pytest.raises(InputError, match="ExportOptions"):
        export_gguf(model, delta, target, "float32", base=base)
    with pytest.raises(MissingFile, match="gone.gguf"):
        export_gguf(model, delta, target, base=tmp_path / "gone.gguf")
    (tmp_path / "text.gguf").write_text("no such format at all")
    (tmp_path / "cut.gguf").write_bytes(base.read_bytes()[:500])
    for name in ("text.gguf", "cut.gguf"):
        with pytest.raises(InputError, match="cannot be read as a GGUF file"):
            export_gguf(model, delta, target, base=tmp_path / name)
    lying, words = bytearray(base.read_bytes()), b"tiny.words"
    at = lying.index(words) + len(words)  # an array of strings, and then how many there are
    lying[at + 4 : at + 16] = struct.pack("<IQ", gguf.GGUFValueType.UINT32, 10**9)
    (tmp_path / "lying.gguf").write_bytes(lying)
    with pytest.raises(InputError, match="states a length"):
        export_gguf(model, delta, target, base=tmp_path / "lying.gguf")
    other = tiny("gpt2")
    with pytest.raises(InputError, match="no tensor"):
        export_gguf(other, delta_of(other, "transformer.wpe.weight"), target, base=base)
    with pytest.raises(InputError, match="registered"):
        gguf_file("pocket")
    assert not target.exists()


def test_a_full_disk_leaves_nothing(tiny, base, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("editing.export.gguf_file.write_gguf", full)
    model, before = tiny("llama"), sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="No space"):
        export_gguf(model, delta_of(model, DOWN), tmp_path / "new" / "out", base=base)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_the_published_file_takes_an_edit_of_the_default_model(smollm2, tmp_path, monkeypatch):
    """Unedited tensors of the file are those of the lab's model, bit for bit."""
    monkeypatch.delenv("LABKIT_CACHE")  # the user's own, of which nothing is written here
    wheel = registry.ENTRIES["smollm2-135m"].wheel
    kept = cache_dir() / "gguf" / Path(wheel.member).name
    if not kept.is_file() and installed_file(wheel) is None:
        pytest.skip("the GGUF file is not in the cache: labkit export --format gguf brings it")
    names = ("model.layers.3.mlp.down_proj.weight", "model.layers.4.self_attn.q_proj.weight")
    delta = delta_of(smollm2, *names).scaled(0.1)
    base = gguf_file("smollm2-135m")
    check = check_export(
        smollm2,
        delta,
        export_gguf(smollm2, delta, tmp_path / "out", ExportOptions(check=False), base=base),
    )
    assert check.weights["relative_error"].max() < 1e-5
    assert check.logits_off < 1e-4 < 0.01 < check.logits_moved
