"""Families beyond the six of the suite: what they do differently, met or refused in one line."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from editing import ROME, applied
from editing.methods.closed_form.value_search import ValueSearch
from labkit.direct_attribution import direct_logit_attribution
from labkit.errors import InputError, SelfCheckFailed
from labkit.facts import Fact, Rewrite
from labkit.locate import AttentionKnockout, CausalTrace, KnowledgeNeurons
from labkit.models.loading import wrap
from labkit.models.random_models import random_model
from labkit.running.activations import capture, patched
from labkit.running.execute import Execution
from labkit.running.logits import read_logits
from labkit.running.selfcheck import SITES
from tests.reference import random_batch

PLAIN = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False}
XGLM = {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4}

OPEN = {
    "opt": {**PLAIN, "ffn_dim": 48, "word_embed_proj_dim": 32},  # flattens the FFN's positions
    "xglm": {**XGLM, "max_position_embeddings": 256},  # wants one mask a row
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # parts add the stream themselves
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
    "falcon": {**FALCON, "multi_query": True, "parallel_attn": True, "bias": False},  # in place
    "codegen": {**GPT, "rotary_dim": 4},
}

LOGITS = {
    **{name: OPEN[name] for name in ("xglm", "opt")},
    "olmo2": {**PLAIN, "num_key_value_heads": 2},  # norms that cannot be folded
    "gemma2": {**PLAIN, "num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 4.0},
}
"""Families whose logits are not plainly the sum of what the parts write."""

ONE_MASK = ("xglm", "mpt")
"""Attention that takes no mask of the lab's: one for all heads (XGLM), or of its own kind (MPT)."""


def built(model_type, **fields):
    _, tokenizer = random_model("llama")
    config = CONFIG_MAPPING[model_type](vocab_size=len(tokenizer), pad_token_id=1, **fields)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in hf.parameters():
            parameter.data.add_(0.2 * torch.randn(parameter.shape))
    return hf.eval(), tokenizer


@pytest.fixture(scope="module")
def opened():
    return {name: wrap(*built(name, **OPEN[name]), name=name) for name in OPEN}


@torch.no_grad()
@pytest.mark.parametrize("name", OPEN)
def test_every_site_is_a_state_per_row_and_position(opened, name):
    """And a write at it is what the stream gets: without its FFN, a block adds attention alone."""
    model = opened[name]
    batch = random_batch(model, 6, 6)
    widths = {"ffn_key": model.d_mlp}
    with capture(model, SITES) as seen:
        before = model.hf(batch.ids).logits
    for (site, _), states in seen.items():
        assert states.shape == (2, 6, widths.get(site, model.d_model))
    zero = {("ffn_out", 1): lambda states: torch.zeros_like(states[:, :1])}  # broadcast
    with patched(model, zero), capture(model, ["resid_pre", "attn_out", "resid_post"]) as left:
        after = model.hf(batch.ids).logits
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(
        left["resid_pre", 1] + left["attn_out", 1], left["resid_post", 1], atol=1e-5, rtol=1e-5
    )
    with patched(model, {("ffn_key", 0): lambda keys: keys * 1.0}):
        torch.testing.assert_close(model.hf(batch.ids).logits, before, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", OPEN)
def test_one_prompt_serves_many_rows(opened, name):
    """Each row, changed on the way, is what it would be alone; edges cut in all heads too."""
    model = opened[name]
    run = Execution(model, random_batch(model, 5))
    noise = torch.randn(3, 5, model.d_model, generator=torch.Generator().manual_seed(0))
    rows = run.embed + 0.1 * noise
    attend = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    attend[..., -1, 1] = False
    for edges in (None, attend)[: 1 if name == "mpt" else 2]:
        together = read_logits(model, run.forward(rows, attend=edges))
        for row in range(3):
            alone = read_logits(model, run.forward(rows[row : row + 1], attend=edges))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


FACT = Fact(subject="cat", template="the {} is in", object="Rome")


@pytest.mark.parametrize("name", ["opt", "xglm", "bloom", "mpt", "falcon"])
def test_the_whole_way_runs(opened, own_cache, corpus, name):
    model = opened[name]
    trace = CausalTrace(kind="ffn", samples=2)(model, FACT)
    assert len(trace.to_frame())
    if name in ONE_MASK:
        with pytest.raises(SelfCheckFailed, match="takes no mask of edges of single heads"):
            AttentionKnockout()(model, FACT)
    else:
        AttentionKnockout()(model, FACT)
    KnowledgeNeurons(steps=3)(model, FACT)
    rome = ROME(layer=0, n_contexts=2, search=ValueSearch(steps=3))
    rewrite = Rewrite(subject="cat", template="the {} is in", target_new="Rome")
    delta = rome(model, [rewrite], prepared=rome.prepare(model, corpus=corpus))
    ids = model.tokens(["the cat is in"]).ids
    before = model.hf(ids).logits
    with applied(model, delta):
        assert not torch.equal(model.hf(ids).logits, before)
    assert torch.equal(model.hf(ids).logits, before)


# --- a tokenizer that knows more than its model -------------------------------------------------


@pytest.fixture
def padded():
    hf, tokenizer = random_model("gpt2")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # and the embeddings not resized
    assert tokenizer.pad_token_id == hf.get_input_embeddings().num_embeddings
    return wrap(hf, tokenizer, name="padded")


@torch.no_grad()
def test_a_pad_token_without_an_embedding_is_not_used(padded):
    plain = wrap(*random_model("gpt2"), name="plain")
    prompts = ["the mill is in the", "of"]
    batch, own = padded.tokens(prompts), plain.tokens(prompts)
    assert torch.equal(batch.ids[batch.mask], own.ids[own.mask])
    assert int(batch.ids.max()) < padded.d_vocab
    pairs = ((padded, batch), (plain, own))
    last = [read_logits(one, Execution(one, these).forward())[:, -1] for one, these in pairs]
    torch.testing.assert_close(*last)


def test_a_prompt_with_a_token_without_an_embedding_is_named(padded):
    with pytest.raises(InputError, match=r"'\[PAD\]' \(id 270\).*padded has no embedding"):
        padded.tokens(["the [PAD] is"])


# --- refused ------------------------------------------------------------------------------------


def half_of_it(hf):
    """Weights in bfloat16, what is computed at the start in float32: as transformers opens it."""
    for parameter in hf.parameters():
        parameter.data = parameter.data.bfloat16()
    return hf


GROUPED = {**PLAIN, "num_key_value_heads": 2}
REFUSED = {
    "falcon, newer": ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, alibi": ("falcon", {**FALCON, "alibi": True, "parallel_attn": False}),
    "granite": ("granite", {**GROUPED, "residual_multiplier": 0.22}),
    "mixtral": ("mixtral", GROUPED),
    "opt, norm behind": ("opt", {**PLAIN, "ffn_dim": 48, "do_layer_norm_before": False}),
    "no bridge": ("biogpt", PLAIN),
    "ministral": ("ministral", {**GROUPED, "head_dim": 8}),
    "codegen in bfloat16": ("codegen", OPEN["codegen"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_is_one_line_that_says_what_to_do_instead(kind):
    name, fields = REFUSED[kind]
    hf, tokenizer = built(name, **fields)
    if "bfloat16" in kind:
        hf = half_of_it(hf)
    with pytest.raises(SelfCheckFailed, match="do open: Llama") as caught:
        wrap(hf, tokenizer, name="stranger")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 800 and "Available" not in message
    assert ("may run in float32" in message) == ("bfloat16" in kind)


@torch.no_grad()
@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("unit", ["component", "head"])
def test_direct_attributions_sum_to_the_logit_and_name_the_models_own(name, unit):
    """What the plain model's own head makes of its last state, before a cap and after it."""
    hf, tokenizer = built(name, **LOGITS[name])
    model = wrap(hf, tokenizer, name=name)
    prompt, answer = "the of in", " is"
    table = direct_logit_attribution(model, prompt, answer, unit=unit)
    (token,) = tokenizer(answer, add_special_tokens=False).input_ids
    out = hf(model.tokens([prompt]).ids, output_hidden_states=True)
    plain = hf.get_output_embeddings()(out.hidden_states[-1])[0, -1, token].item()
    given = out.logits[0, -1, token].item()
    assert table["logit"].sum() == pytest.approx(plain, rel=1e-3)
    assert table.attrs["logit"] == pytest.approx(plain, rel=1e-4)
    assert table.attrs["model_logit"] == pytest.approx(given, rel=1e-4)
    assert (abs(plain - given) > 1e-2) == (name == "gemma2")
    assert len(table) > 2 * (2 if unit == "component" else 4)
