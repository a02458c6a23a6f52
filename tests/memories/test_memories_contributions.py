"""Shares of a logit sum to it, and switching a neuron off takes exactly its share away."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, Olmo2Config

from labkit.direct_attribution import direct_logit_attribution
from labkit.errors import (
    EmptyPrompt,
    EmptyTarget,
    FingerprintMismatch,
    InputError,
    LayerOutOfRange,
    NeuronOutOfRange,
    NotDecomposable,
    NotOneToken,
)
from labkit.memories import contributions, ffn_share, switched, switching
from labkit.memories.norms import frozen
from labkit.models.loading import load, wrap
from labkit.models.random_models import _randomise, _tokenizer
from tests.reference import full_logits, output_hook

PROMPT = "the baker of the mill is"


@pytest.fixture
def precise(exact, monkeypatch):
    """Norms in float64 too: RMS norms compute in float32 whatever the weights are."""
    for norm in {type(m) for m in exact.hf.modules() if type(m).__name__.endswith("RMSNorm")}:
        plus = 1.0 if "Gemma" in norm.__name__ else 0.0

        def forward(self, x, plus=plus):
            epsilon = getattr(self, "eps", None) or self.variance_epsilon
            return x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt() * (plus + self.weight)

        monkeypatch.setattr(norm, "forward", forward)
    return exact


def post_norm(kind, **more):
    """A tiny model of a family that puts norms behind attention and FFN."""
    config = kind(
        vocab_size=270,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **more,
    )
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _randomise(hf, 0, config.model_type)
    return wrap(hf, _tokenizer(prepend_bos=True), name=config.model_type)


# --- the sum ------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, " the"])
def test_shares_sum_to_the_logit_in_float64(precise, answer):
    found = contributions(precise, PROMPT, answer)
    with torch.no_grad():
        logits = full_logits(precise, precise.tokens([PROMPT]))[0, -1]
    expected = logits[found.answer_id].item()
    assert found.total == pytest.approx(expected, rel=1e-9)
    assert found.logit == pytest.approx(expected, rel=1e-9) == found.model_logit
    assert found.to_frame()["logit"].sum() == pytest.approx(expected, rel=1e-9)
    if answer is None:
        assert found.answer_id == int(logits.argmax())
    assert np.abs(found.neurons).max() > 0.05  # there is something to sum


def test_shares_sum_to_the_logit_in_float32(model):
    found = contributions(model, PROMPT)
    assert found.total == pytest.approx(found.logit, rel=1e-4)
    assert found.neurons.shape == found.activations.shape == (3, model.d_mlp)
    assert found.heads.shape == (3, model.n_heads)


def test_one_token_is_enough_of_a_prompt(model):
    found = contributions(model, "a")
    assert found.total == pytest.approx(found.logit, rel=1e-4)
    assert switched(model, found, found.covering(of="positive")).direct < 0


def test_parts_are_those_of_direct_logit_attribution(tiny):
    """Held against transformer_lens, on norms folded into the unembedding."""
    model = tiny("llama")
    found = contributions(model, PROMPT, " is").to_frame()
    theirs = direct_logit_attribution(model, PROMPT, " is").set_index("component")["logit"]
    for row in found[found["layer"] >= 0].itertuples():
        kind = {"FFN": "mlp", "attention": "attn"}[row.component]
        assert row.logit == pytest.approx(theirs[f"{row.layer}_{kind}_out"], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "more"),
    [(Gemma2Config, {"final_logit_softcapping": 4.0, "head_dim": 8}), (Olmo2Config, {})],
    ids=["gemma2", "olmo2"],
)
def test_norms_behind_the_ffn_are_read_through_and_a_cap_is_left_out(kind, more):
    model = post_norm(kind, **more)
    assert model.anatomy.ffn_post and model.anatomy.attn_post
    found = contributions(model, PROMPT)
    assert found.total == pytest.approx(found.logit, rel=1e-4)
    cap = more.get("final_logit_softcapping")
    said = cap * np.tanh(found.logit / cap) if cap else found.logit
    assert found.model_logit == pytest.approx(said, rel=1e-4)
    off = switched(model, found, found.covering(of="positive"))
    assert off.direct == pytest.approx(off.predicted, rel=1e-4)


# --- norms --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [8, 9])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_a_held_norm_is_the_norm_and_is_linear(kind, width):
    norm = kind(width).double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter += torch.randn(parameter.shape, generator=draw)
    x, y = torch.randn(2, width, generator=draw).double() + 0.5
    held = frozen(norm, x)
    torch.testing.assert_close(held.linear(x) + held.bias, norm(x).detach(), rtol=0, atol=1e-12)
    centred = kind is nn.LayerNorm
    size = (x - x.mean() if centred else x).square().mean().sqrt()
    expected = norm.weight.detach() * (y - y.mean() if centred else y) / size
    torch.testing.assert_close(held.linear(y), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(held.transposed(x) @ y, x @ held.linear(y), rtol=1e-9, atol=1e-12)


def test_what_is_no_norm_and_what_is_too_coarse_is_refused():
    state = torch.randn(8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(NotDecomposable):
        frozen(nn.Softmax(dim=-1), state)
    with pytest.raises(NotDecomposable, match="float32"):
        contributions(load("random-llama", dtype="bfloat16"), PROMPT)


def test_shares_that_do_not_sum_are_refused(tiny):
    """A block that writes something no head and no neuron wrote."""
    model = tiny("llama")
    with (
        output_hook(model.blocks[1], lambda out: out + 0.5),
        pytest.raises(NotDecomposable, match="shares sum to"),
    ):
        contributions(model, PROMPT)


# --- covering -----------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["net", "positive"])
def test_the_neurons_that_cover_half_are_the_fewest_that_do(pocket, of):
    found = contributions(pocket, PROMPT)
    whole = found.neurons.sum() if of == "net" else found.neurons.clip(min=0).sum()
    assert whole > 0
    for share in (0.1, 0.5, 1.0):
        chosen = found.covering(share, of=of)
        values = [found.neurons[neuron] for neuron in chosen]
        assert values == sorted(values, reverse=True) and min(values) > 0
        assert sum(values) >= share * whole * (1 - 1e-9)
        assert sum(values[:-1]) < share * whole
    assert len(found.covering(1.0, of="positive")) == (found.neurons > 0).sum()
    table = found.neurons_frame(5)
    assert list(zip(table["layer"], table["neuron"], strict=True)) == list(
        found.covering(1.0, of="positive")[:5]
    )
    assert len(found.heads_frame()) == found.heads.size
    for wrong in ({"share": 0.0}, {"share": 1.5}):
        with pytest.raises(InputError):
            found.covering(**wrong)


def test_half_is_of_the_net_sum_and_the_title_says_so(pocket):
    """Ten logits for the answer and nine against it make one: the first neuron gives it all."""
    found = contributions(pocket, PROMPT)
    shares = np.zeros_like(found.neurons)
    shares[0, :10], shares[1, :9] = 1.0, -1.0
    found = dataclasses.replace(found, neurons=shares)
    assert found.covering() == ((0, 0),) and len(found.covering(of="positive")) == 5
    assert f"1 of {shares.size} neurons give half of the 1.0 logits" in found.title
    assert "(+10.0 and -9.0)" in found.title
    against = dataclasses.replace(found, neurons=-shares)
    assert against.covering() == () and len(against.covering(of="positive")) == 5
    assert "together take 1.0 from its logit (+9.0 and -10.0)" in against.title
    with pytest.raises(InputError, match="nothing to switch"):
        switched(pocket, against)


# --- switching ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 2.0, -1.0])
def test_switching_a_neuron_changes_the_logit_directly_by_its_share(precise, factor):
    found = contributions(precise, PROMPT)
    chosen = [*found.covering(0.3, of="positive"), (0, 3), (2, 5)]
    result = switched(precise, found, chosen, factor=factor, draws=2)
    shares = sum(found.neurons[neuron] for neuron in dict.fromkeys(chosen))
    assert result.predicted == pytest.approx((factor - 1) * shares, rel=1e-9)
    assert result.direct == pytest.approx(result.predicted, rel=1e-9)
    alone = switched(precise, found, [(1, 4)], draws=1)
    assert alone.direct == pytest.approx(-found.neurons[1, 4], rel=1e-9, abs=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("prompt", [PROMPT, "a"])
def test_the_total_effect_is_that_of_a_hand_written_hook(model, prompt):
    """Value rows of the neurons silenced at the last position of a full run."""
    found = contributions(model, prompt)
    chosen = [n for n in found.covering(of="positive") if n[0] != 1] + [(0, 3), (0, 9), (2, 5)]
    result = switched(model, found, chosen, draws=1)
    batch = model.tokens([prompt])
    before = full_logits(model, batch)[0, -1, found.answer_id]
    handles = []
    for layer in (0, 2):
        numbers = [neuron for at, neuron in chosen if at == layer]

        def silence(module, args, numbers=numbers):
            key = args[0].clone()
            key[:, -1, numbers] = 0
            return (key,)

        handles.append(model.ffn_proj(layer).register_forward_pre_hook(silence))
    try:
        after = full_logits(model, batch)[0, -1, found.answer_id]
    finally:
        for handle in handles:
            handle.remove()
    assert abs(after - before) > 1e-2
    assert result.total == pytest.approx(float(after - before), abs=1e-5)


def test_the_last_ffn_has_no_effect_but_the_direct_one_and_the_norms(precise):
    """With the final norm's scale released, the direct effect is all that is left of it."""
    found = contributions(precise, PROMPT)
    tiny_step = switched(precise, found, [(2, 5)], factor=1 + 1e-6, draws=1)
    held = precise.final_norm
    state, written = _last_states(precise, found.prompt, 2, 5)
    moved = held(state + 1e-6 * written) - held(state)
    expected = float(moved[0] @ precise.unembed.weight[found.answer_id])
    assert tiny_step.total == pytest.approx(expected, rel=1e-4)


def _last_states(model, prompt, layer, neuron):
    """The final residual stream, and what one neuron wrote into it."""
    seen = {}
    hooks = [
        model.blocks[layer].register_forward_hook(
            lambda module, args, out: seen.update(
                state=(out[0] if isinstance(out, tuple) else out)[:, -1]
            )
        ),
        model.ffn_proj(layer).register_forward_pre_hook(
            lambda module, args: seen.update(key=args[0][0, -1, neuron])
        ),
    ]
    with torch.no_grad():
        model.hf(model.tokens([prompt]).ids)
    for hook in hooks:
        hook.remove()
    return seen["state"], seen["key"] * model.ffn_out(layer)[neuron]


def test_controls_are_as_many_other_neurons_of_the_same_layers(tiny, monkeypatch):
    model = tiny("gpt2")
    found = contributions(model, PROMPT)
    drawn = []
    draw = switching._random_sets
    monkeypatch.setattr(
        switching, "_random_sets", lambda *args: drawn.append(draw(*args)) or drawn[-1]
    )
    named = found.covering(of="positive")
    result = switched(model, found, named, draws=7, seed=3)
    (sets,) = drawn
    assert len(sets) == len(result.control_direct) == len(result.control_total) == 7
    for some in sets:
        assert not set(some) & set(named) and len(set(some)) == len(named)
        assert sorted(layer for layer, _ in some) == sorted(layer for layer, _ in named)
    direct, total = result.control
    assert direct.n == total.n == 7 and direct.low <= direct.mean <= direct.high
    expected = [-sum(found.neurons[neuron] for neuron in some) for some in sets]
    np.testing.assert_allclose(result.control_direct, expected, rtol=1e-3, atol=1e-5)
    again = switched(model, found, named, draws=7, seed=3)
    np.testing.assert_array_equal(again.control_total, result.control_total)
    everyone = [(1, neuron) for neuron in range(model.d_mlp)]
    nobody = switched(model, found, everyone, draws=2).control[0]  # no others are left
    assert nobody.mean == pytest.approx(0, abs=1e-6)


def test_results_come_back_as_they_were(tiny, tmp_path):
    model = tiny("gemma")
    found = contributions(model, PROMPT)
    for result in (found, switched(model, found, found.covering(of="positive"))):
        again = type(result).load(result.save(tmp_path / type(result).__name__))
        pd.testing.assert_frame_equal(again.to_frame(), result.to_frame())
        assert again.title == result.title and result.figure().layout.title.text
    assert again.neurons == found.covering(of="positive")


def test_bad_input_is_refused_before_any_run(tiny, request, unchecked):
    model = tiny("llama")
    found = contributions(model, PROMPT)
    request.getfixturevalue("no_forward")
    with pytest.raises(EmptyPrompt):
        contributions(model, " ")
    with pytest.raises(EmptyTarget):
        contributions(model, PROMPT, "")
    with pytest.raises(NotOneToken):
        contributions(model, PROMPT, "the house of the king")
    with pytest.raises(FingerprintMismatch):
        switched(tiny("gpt2"), found)
    with pytest.raises(InputError, match="at least one"):
        switched(model, found, [])
    with pytest.raises(InputError, match="at least one"):
        switched(model, found, draws=0)
    with pytest.raises(NeuronOutOfRange):
        switched(model, found, [(0, 64)])
    with pytest.raises(LayerOutOfRange):
        switched(model, found, [(3, 0)])


def test_the_ffns_share_of_the_weights(model):
    """By the names of the parameters, which in these families say where they belong."""
    named = {name: p.numel() for name, p in model.hf.named_parameters()}
    ffn = sum(n for name, n in named.items() if ".mlp." in name)
    blocks = sum(n for name, n in named.items() if name.startswith(f"{model.anatomy.blocks}."))
    assert ffn_share(model) == (ffn / blocks, ffn / sum(named.values()))
    assert 0 < ffn_share(model)[1] < ffn_share(model)[0] < 1


@pytest.mark.slow
def test_three_quarters_of_a_block_are_its_ffn(smollm2):
    assert ffn_share(smollm2) == pytest.approx((0.75, 0.592), abs=0.001)


@pytest.mark.slow
def test_switching_off_what_gives_half_lowers_paris_by_what_was_predicted(smollm2):
    found = contributions(smollm2, "The capital of France is", "Paris")
    assert found.total == pytest.approx(found.logit, rel=1e-4)
    result = switched(smollm2, found, found.covering(of="positive"))
    assert result.direct == pytest.approx(result.predicted, rel=1e-4)
    assert result.total < -1 < result.control[1].low
