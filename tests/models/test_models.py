"""Two faces of one set of weights, a fingerprint that notices, and a check that fails."""

import functools
import types

import pytest
import torch
import torch.nn.functional as F
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from labkit.errors import SelfCheckFailed
from labkit.models.in_effect import fingerprint
from labkit.models.loading import load, wrap
from labkit.models.random_models import random_model
from labkit.running.selfcheck import check
from tests.reference import full_logits, random_batch

LAYER = 1


def plain(family, dtype=torch.float32):
    """The family's model as transformers alone has it."""
    return random_model(family)[0].to(dtype)


# --- one set of weights, two faces --------------------------------------------------------


@torch.no_grad()
def test_both_faces_say_what_the_plain_model_says(model, family):
    ids = random_batch(model, 12).ids
    expected = plain(family)(ids).logits
    assert torch.equal(model.hf(ids).logits, expected)
    torch.testing.assert_close(model.bridge(ids), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_write_through_the_view_reaches_both_faces(model, family):
    """Neuron 5 writes twice as much: as in a plain model whose parameter was changed by name."""
    ids = random_batch(model, 12).ids
    before = model.hf(ids).logits
    changed = plain(family)
    weight = changed.get_parameter(model.ffn_out_name(LAYER))
    (weight[5] if family == "gpt2" else weight[:, 5]).mul_(2)
    expected = changed(ids).logits
    assert (expected - before).abs().max() > 1e-3
    view = model.ffn_out(LAYER)
    saved = view[5].clone()
    try:
        view[5] *= 2
        assert torch.equal(model.hf(ids).logits, expected)
        torch.testing.assert_close(model.bridge(ids), expected, atol=1e-5, rtol=1e-5)
    finally:
        view[5] = saved


def test_the_view_lies_in_the_named_parameter(model):
    for layer in range(model.n_layers):
        named = dict(model.hf.named_parameters())[model.ffn_out_name(layer)]
        view = model.ffn_out(layer)
        assert view.shape == (model.d_mlp, model.d_model) == (64, 32)
        assert view.data_ptr() == named.data_ptr()
        assert torch.equal(view, named if tuple(named.shape) == (64, 32) else named.T)


def test_the_shape_is_that_of_the_config(model):
    seen = (model.n_layers, model.d_model, model.n_heads, model.d_head, model.d_vocab)
    assert seen == (3, 32, 4, 8, model.hf.config.vocab_size)
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))


def test_parameters_ask_for_no_gradient(model):
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())
    assert not model.hf.training


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_number_formats(family, dtype):
    """The weights are those of float32, rounded once, and the self-check passes."""
    model = load(f"random-{family}", dtype=dtype)
    ids = random_batch(model, 9).ids
    assert model.dtype == getattr(torch, dtype)
    assert torch.equal(model.hf(ids).logits, plain(family, model.dtype)(ids).logits)


def test_the_bridge_tokenizes_as_the_model_does(model):
    text = "the baker is in the mill"
    assert model.bridge.tokenizer(text).input_ids == model.tokenizer(text).input_ids


def test_a_saved_folder_opens_as_the_same_model(model, tmp_path):
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    again = load(str(tmp_path))
    batch = random_batch(model, 9, 5)
    assert torch.equal(full_logits(again, batch), full_logits(model, batch))
    assert again.prepend_bos == model.prepend_bos


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_bos_setting_is_what_the_tokenizer_does_unless_told(model, family):
    bos = model.tokenizer.bos_token_id
    assert model.prepend_bos == (family == "llama")
    for setting in (True, False):
        told = load(f"random-{family}", prepend_bos=setting, check=False)
        ids = told.tokenizer("the mill", add_special_tokens=False).input_ids
        assert told.prepend_bos is setting
        assert told.ids("the mill") == ([bos, *ids] if setting else ids)


# --- families that nobody here has heard of -----------------------------------------------

STRANGERS = {
    "mistral": {"num_key_value_heads": 2},
    "phi": {"partial_rotary_factor": 0.5},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8},
    "olmo2": {"num_key_value_heads": 2},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_seventh_family_needs_no_change(name):
    _, tokenizer = random_model("llama")
    config = CONFIG_MAPPING[name](
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=1,
        **STRANGERS[name],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config)
        for parameter in hf.parameters():
            parameter.data.add_(0.2 * torch.randn(parameter.shape))
    model = wrap(hf, tokenizer, name=name)
    assert (model.n_layers, model.d_model, model.d_mlp) == (2, 32, 48)


# --- the fingerprint ----------------------------------------------------------------------


def test_the_fingerprint_notices_every_weight(model, family):
    hf, tokenizer = random_model(family)
    assert fingerprint(hf, tokenizer) == model.fingerprint, "two loads differ"
    found = {model.fingerprint}
    parameters = list(hf.parameters())
    for parameter in parameters:
        entry = parameter.data.view(-1)[-1]
        kept = entry.clone()
        entry.copy_(torch.nextafter(kept, torch.tensor(9.0)))
        found.add(fingerprint(hf, tokenizer))
        entry.copy_(kept)
    assert len(found) == len(parameters) + 1
    assert fingerprint(hf, tokenizer) == model.fingerprint


def test_the_fingerprint_notices_the_tokenizer_and_the_dtype(tiny):
    hf, tokenizer = random_model("gpt2")
    before = fingerprint(hf, tokenizer)
    assert fingerprint(hf.double(), tokenizer) != before
    tokenizer.add_tokens(["Atlantis"])
    assert fingerprint(hf.float(), tokenizer) != before


# --- the self-check fails on models that are broken ---------------------------------------


def scaled(module, factor):
    """The module answers more than it should."""
    answer = module.forward
    module.forward = lambda *args, **kwargs: factor * answer(*args, **kwargs)


def ignore_padding(hf):
    for block in hf.model.layers:
        attend = block.self_attn.forward
        block.self_attn.forward = functools.partial(_without, attend, "attention_mask")


def ignore_prefix(hf):
    for block in hf.model.layers:
        attend = block.self_attn.forward
        block.self_attn.forward = functools.partial(_without, attend, "past_key_values")


def _without(function, name, *args, **kwargs):
    return function(*args, **{**kwargs, name: None})


def extra_term(hf):
    scaled(hf.model.layers[1], 1.01)


def gated_output(hf):
    """The projection does more than multiply by its weight."""
    scaled(hf.model.layers[1].mlp.down_proj, 1.01)


def copied_weight(hf):
    """The FFN works with a copy of its weight."""
    copy = hf.model.layers[1].mlp.down_proj.weight.clone()
    hf.model.layers[1].mlp.down_proj.forward = lambda x: F.linear(x, copy)


def position_from_the_left(hf):
    """Padding moves the positions of the prompt."""

    def forward(self, x, position_ids):
        return rotate(x, torch.arange(x.shape[1]).expand(x.shape[0], -1) ** 2)

    rotate = hf.model.rotary_emb.forward
    hf.model.rotary_emb.forward = types.MethodType(forward, hf.model.rotary_emb)


def not_a_number(hf):
    hf.model.layers[0].mlp.down_proj.weight.data[0, 0] = torch.nan


BROKEN = {
    ignore_padding: "left-padded batch",
    position_from_the_left: "left-padded batch",
    ignore_prefix: "frozen prefix = the full run",
    extra_term: r"resid_pre \+ attn_out \+ ffn_out = resid_post in block 1",
    gated_output: r"key @ ffn_out \+ bias = output of the FFN in block 1",
    copied_weight: r"a write through ffn_out\(1\) does not reach the Hugging Face model",
    not_a_number: "not finite",
}


@pytest.mark.parametrize("breakage", BROKEN, ids=lambda f: f.__name__)
def test_the_self_check_names_the_law_that_a_broken_model_breaks(breakage):
    hf, tokenizer = random_model("llama")
    breakage(hf)
    with pytest.raises(SelfCheckFailed, match=BROKEN[breakage]):
        wrap(hf, tokenizer, name="broken")


def test_the_self_check_sees_faces_that_differ():
    model = wrap(*random_model("llama"), name="two-faced")
    scaled(model.hf.lm_head, 1.01)
    with pytest.raises(SelfCheckFailed, match="bridge logits = Hugging Face logits"):
        check(model)


def test_the_self_check_sees_a_bridge_with_weights_of_its_own():
    model = wrap(*random_model("llama"), name="parted")
    part = model.hf.model.layers[1].mlp.down_proj
    part.weight = torch.nn.Parameter(part.weight.detach().clone(), requires_grad=False)
    with pytest.raises(SelfCheckFailed, match=r"ffn_out\(1\) does not reach the bridge"):
        check(model)


def test_the_self_check_leaves_the_weights_as_they_were(model, family):
    check(model)
    assert fingerprint(model.hf, model.tokenizer) == fingerprint(*random_model(family))


# --- real weights -------------------------------------------------------------------------


def test_the_pocket_model_opens(pocket):
    assert (pocket.d_vocab, pocket.hf.config.model_type) == (len(pocket.tokenizer), "llama")


@pytest.mark.slow
def test_the_default_model_opens_and_knows_where_paris_is(smollm2):
    assert (smollm2.n_layers, smollm2.d_model, smollm2.d_mlp) == (30, 576, 1536)
    batch = smollm2.tokens(["The capital of France is", "The capital of Japan is the city of"])
    said = smollm2.tokenizer.batch_decode(full_logits(smollm2, batch)[:, -1:].argmax(-1))
    assert said == [" Paris", " Tokyo"]
