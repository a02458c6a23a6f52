"""The gradient is that of the whole model, the step is Adam's, and the ball is kept to."""

import dataclasses

import pytest
import torch

import editing.methods.tuning.training as training_module
from editing.edits.applying import applied
from editing.methods.tuning.fine_tuning import Ball, FineTuning
from editing.methods.tuning.training import Training
from labkit.errors import (
    AlreadyTrue,
    ContradictoryRewrites,
    EmptyTarget,
    InputError,
    LayerOutOfRange,
    NonFiniteLoss,
)
from labkit.facts.fact import Deletion
from tests.reference import full_logits

LAYER = 1


@pytest.fixture
def rewrites(rewrites):
    """Three of them: prompts and targets of different lengths, so that padding is in play."""
    return rewrites[:2] + rewrites[3:]


class Descent(torch.optim.SGD):
    """Plain gradient descent in place of Adam."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr)


@pytest.fixture
def descent(monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", Descent)


def loss_by_hand(model, rewrites):
    """Each prompt alone, in full, unpadded, by the model's own forward."""
    losses = []
    for rewrite in rewrites:
        prompt = model.ids(rewrite.prompt)
        target = model.tokenizer(" " + rewrite.target_new, add_special_tokens=False).input_ids
        logits = full_logits(model, model.pad([prompt + target]))[0, len(prompt) - 1 : -1]
        losses.append(-logits.log_softmax(-1)[range(len(target)), target].mean())
    return torch.stack(losses).mean()


def gradient_by_hand(model, rewrites, layer):
    weight = model.ffn_proj(layer).weight
    weight.requires_grad_()
    try:
        return torch.autograd.grad(loss_by_hand(model, rewrites), weight)[0]
    finally:
        weight.requires_grad_(False)


# --- the step -----------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", ["together", "one by one"])
def test_two_steps_are_those_of_the_whole_model(exact, rewrites, descent, monkeypatch, at_once):
    """Backward through the plain model, in float64; the second step starts behind the first."""
    if at_once == "one by one":
        monkeypatch.setattr(training_module, "MEMORY", 1)
    lr = 0.5

    def tuned(steps):
        method = FineTuning(layer=LAYER, training=Training(steps=steps, lr=lr, enough=1.0))
        return method(exact, rewrites)

    one, two = tuned(1), tuned(2)
    ((name, first),) = one.changes.items()
    assert name == exact.ffn_out_name(LAYER)
    expected = -lr * gradient_by_hand(exact, rewrites, LAYER)
    torch.testing.assert_close(first.dense().double(), expected, rtol=1e-5, atol=1e-9)
    assert expected.abs().max() > 1e-3
    with applied(exact, one):
        second = expected - lr * gradient_by_hand(exact, rewrites, LAYER)
        after = loss_by_hand(exact, rewrites).item()
    torch.testing.assert_close(two.changes[name].dense().double(), second, rtol=1e-4, atol=1e-7)
    # Before each step and at the end.
    losses, more = one.provenance["losses"], two.provenance["losses"]
    assert (len(losses), len(more)) == (2, 3) and more[:2] == losses
    assert losses[1] == pytest.approx(after, rel=1e-5) and losses[1] < losses[0]
    assert one.provenance["loss"] == losses[1]


def test_rewrites_take_turns(tiny, rewrites, descent):
    """Three rewrites one at a time: as many steps as it takes, each of one rewrite."""
    model = tiny("llama")
    method = FineTuning(
        layer=LAYER, training=Training(steps=5, lr=1e-9, batch=1, enough=1.0), seed=3
    )
    seen = method(model, rewrites).provenance["losses"]
    alone = [loss_by_hand(model, [rewrite]).item() for rewrite in rewrites]
    rounds = [sorted(seen[:3]), sorted(seen[3:])]
    assert rounds == [pytest.approx(sorted(alone), rel=1e-4)] * 2

    def order(seed):
        delta = dataclasses.replace(method, seed=seed)(model, rewrites)
        return tuple(round(loss, 4) for loss in delta.provenance["losses"])

    assert len({order(seed) for seed in range(6)}) > 1


def test_blocks_below_are_run_once(tiny, rewrites):
    model = tiny("gpt2")

    def runs(steps):
        calls = []
        handle = model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
        try:
            FineTuning(layer=LAYER, training=Training(steps=steps, enough=1.0))(model, rewrites)
        finally:
            handle.remove()
        return len(calls)

    assert runs(1) == runs(6)


def test_it_ends_when_every_target_is_likely_enough(tiny, rewrites):
    model, rewrites = tiny("gpt2"), rewrites[:2]
    training = Training(steps=400, lr=0.05, enough=0.5)
    delta = FineTuning(layer=LAYER, training=training)(model, rewrites)
    found = delta.provenance
    assert 0 < found["training_steps"] < 400 and 0.5 <= found["probability"] <= 1
    with applied(model, delta):
        for rewrite in rewrites:
            prompt = model.ids(rewrite.prompt)
            target = model.tokenizer(" " + rewrite.target_new, add_special_tokens=False).input_ids
            logits = full_logits(model, model.pad([prompt + target]))[0, len(prompt) - 1 : -1]
            assert logits.softmax(-1)[range(len(target)), target].min() > 0.5 - 1e-3


# --- the ball -----------------------------------------------------------------------------


def size(change, norm):
    matrix = change.dense().double()
    return matrix.abs().max().item() if norm == "inf" else matrix.norm().item()


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("radius", [1e-3, 0.1, 1 / 3])
def test_the_change_stays_in_the_ball(model, rewrite, norm, radius):
    training = Training(steps=6, lr=0.5, enough=1.0)
    ball = Ball(norm=norm, radius=radius)
    delta = FineTuning(layer=LAYER, ball=ball, training=training)(model, [rewrite])
    (change,) = delta.changes.values()
    assert radius * (1 - 1e-6) < size(change, norm) <= radius
    free = FineTuning(layer=LAYER, training=training)(model, [rewrite])
    assert size(next(iter(free.changes.values())), norm) > radius


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_the_nearest_point_of_the_ball(norm):
    """Closer than any other point of the ball; a point inside is its own."""
    draw = torch.Generator().manual_seed(0)
    ball = Ball(norm=norm, radius=0.7)

    def projected(point):
        point = point.clone()
        ball.project_(point)
        return point

    outside = torch.randn(4, 3, generator=draw)
    nearest = projected(outside)
    assert (nearest != outside).any()
    for _ in range(200):
        other = projected(nearest + 0.1 * torch.randn(4, 3, generator=draw))
        assert (outside - nearest).norm() <= (outside - other).norm() + 1e-6
    inside = 0.1 * torch.randn(4, 3, generator=draw)
    assert torch.equal(projected(inside), inside)


# --- refusals -----------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused(tiny, rewrite):
    model, method = tiny("llama"), FineTuning(layer=LAYER)
    deletion = Deletion(subject="cat", template="the {} is in", target_true="the house")
    with pytest.raises(InputError, match="cannot delete"):
        method(model, [deletion])
    with pytest.raises(InputError, match="nothing to edit"):
        method(model, [])
    with pytest.raises(ContradictoryRewrites):
        method(model, [rewrite, dataclasses.replace(rewrite, target_new="Paris")])
    with pytest.raises(LayerOutOfRange, match=r"0\.\.2"):
        FineTuning(layer=3)(model, [rewrite])
    with pytest.raises(EmptyTarget):
        method(tiny("gpt2"), [rewrite_of_nothing(rewrite)])
    with pytest.raises(AlreadyTrue, match="cat"):
        FineTuning(layer=LAYER, training=Training(enough=0.0))(model, [rewrite])


def rewrite_of_nothing(rewrite):
    """A rewrite whose target slipped past its own check."""
    wrong = dataclasses.replace(rewrite)
    object.__setattr__(wrong, "target_new", " ")
    return wrong


def test_impossible_settings_are_refused(unchecked):
    for wrong in ({"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": -1.0}):
        with pytest.raises(InputError, match="training needs 1 to"):
            Training(**wrong)
    for wrong in ({"radius": 0.0}, {"norm": "1"}):
        with pytest.raises(InputError, match="ball"):
            Ball(**wrong)


def test_a_loss_that_is_no_number_is_named(tiny, rewrite, weights, changed):
    model = tiny("llama")
    before = weights(model)
    with pytest.raises(NonFiniteLoss, match="smaller lr"):
        FineTuning(layer=LAYER, training=Training(lr=1e37))(model, [rewrite])
    assert changed(model, before) == set()
