"""The factors are LoRA's: nothing at the start, of the stated rank, and what peft learns."""

import copy

import peft
import pytest
import torch
from torch import nn

from editing.edits.applying import applied
from editing.edits.delta import LowRank
from editing.methods.tuning.lora import LoRA
from editing.methods.tuning.training import Training, adding
from labkit.errors import AlreadyTrue, InputError, LayerOutOfRange, NonFiniteLoss
from labkit.facts.fact import Deletion
from tests.reference import full_logits

BRIEF = Training(steps=3, lr=0.02, enough=1.0)


def test_it_starts_as_the_model_is(model, rewrite):
    """B is zero, and A is not; nothing is added until the first step."""
    batch = model.tokens([rewrite.prompt])
    first, second = LoRA(rank=3).start(model, 1)
    assert first.shape == (model.d_mlp, 3) and second.shape == (3, model.d_model)
    assert torch.equal(second, torch.zeros_like(second))
    assert 0.5 < first.abs().max() * model.d_mlp**0.5 <= 1
    before = full_logits(model, batch)
    with adding(model, {1: lambda key: (key @ first) @ second}):
        assert torch.equal(full_logits(model, batch), before)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_change_has_the_stated_rank_in_the_stated_layers(model, rewrite, rank):
    delta = LoRA(layers=(2, 0), rank=rank, training=BRIEF)(model, [rewrite])
    assert set(delta.changes) == {model.ffn_out_name(0), model.ffn_out_name(2)}
    for name, change in delta.changes.items():
        assert isinstance(change, LowRank) and change.rank == rank
        assert change.shape == tuple(model.hf.get_parameter(name).shape)
        assert torch.linalg.matrix_rank(change.dense()) == rank


def test_every_layer_by_default(model, rewrite):
    delta = LoRA(training=BRIEF)(model, [rewrite])
    assert set(delta.changes) == {model.ffn_out_name(layer) for layer in range(model.n_layers)}


def test_the_delta_does_what_was_learnt(model, rewrite):
    """The loss that training ends with is that of the model with the delta applied."""
    delta = LoRA(training=BRIEF)(model, [rewrite])
    losses = delta.provenance["losses"]
    assert delta.provenance["loss"] == losses[-1] < losses[0]
    with applied(model, delta):
        assert nll(model, rewrite) == pytest.approx(losses[-1], rel=1e-4)
    assert nll(model, rewrite) == pytest.approx(losses[0], rel=1e-4)


def nll(model, rewrite):
    prompt = model.ids(rewrite.prompt)
    target = model.tokenizer(" " + rewrite.target_new, add_special_tokens=False).input_ids
    logits = full_logits(model, model.pad([prompt + target]))[0, len(prompt) - 1 : -1]
    return -logits.log_softmax(-1)[range(len(target)), target].mean().item()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_what_peft_learns(tiny, family, rewrite):
    """peft's modules from the same start, Adam on the plain model's own loss."""
    model, method = tiny(family), LoRA(rank=2, alpha=6.0, training=BRIEF)
    delta = method(model, [rewrite])

    hf = copy.deepcopy(model.hf)
    config = peft.LoraConfig(
        r=2,
        lora_alpha=6.0,
        lora_dropout=0.0,
        target_modules=[
            model.ffn_out_name(layer).removesuffix(".weight") for layer in range(model.n_layers)
        ],
        fan_in_fan_out=not isinstance(model.ffn_proj(0), nn.Linear),
    )
    theirs = peft.get_peft_model(hf, config).eval()
    adapters = [module for module in theirs.modules() if hasattr(module, "lora_A")]
    adapters = [module for module in adapters if "default" in module.lora_A]
    assert len(adapters) == model.n_layers
    for layer, adapter in enumerate(adapters):
        adapter.lora_A["default"].weight.data = method.start(model, layer)[0].detach().T.clone()
    parameters = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=BRIEF.lr)
    prompt = model.ids(rewrite.prompt)
    target = model.tokenizer(" " + rewrite.target_new, add_special_tokens=False).input_ids
    ids = torch.tensor([prompt + target])
    for _ in range(BRIEF.steps):
        logits = theirs(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        optimiser.zero_grad()
        (-logits.log_softmax(-1)[range(len(target)), target].mean()).backward()
        optimiser.step()
    for layer, adapter in enumerate(adapters):
        ours = delta.changes[model.ffn_out_name(layer)].dense()
        torch.testing.assert_close(
            ours, adapter.get_delta_weight("default").detach(), rtol=1e-2, atol=1e-4
        )
        assert ours.abs().max() > 1e-3


def test_the_start_is_drawn_from_the_seed(tiny):
    model = tiny("llama")
    first = LoRA(seed=1).start(model, 0)[0]
    assert torch.equal(first, LoRA(seed=1).start(model, 0)[0])
    assert not torch.equal(first, LoRA(seed=2).start(model, 0)[0])
    assert not torch.equal(first, LoRA(seed=1).start(model, 1)[0])


def test_what_cannot_be_adapted_is_refused(tiny, rewrite, weights, changed):
    model = tiny("llama")
    before = weights(model)
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"layers": ()}):
        with pytest.raises(InputError, match="rank"):
            LoRA(**wrong)
    with pytest.raises(LayerOutOfRange):
        LoRA(layers=(0, 9))(model, [rewrite])
    with pytest.raises(InputError, match="cannot delete"):
        LoRA()(model, [Deletion(subject="cat", template="the {} is", target_true="here")])
    with pytest.raises(AlreadyTrue):
        LoRA(training=Training(enough=0.0))(model, [rewrite])
    with pytest.raises(NonFiniteLoss):
        LoRA(training=Training(lr=1e37))(model, [rewrite])
    assert changed(model, before) == set()
