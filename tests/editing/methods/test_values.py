"""The search for v* in partial runs takes the steps of a search in full runs."""

import dataclasses

import pytest
import torch

from editing.edits.requests import ESSENCE, grouped
from editing.methods.closed_form.bystanders import Bystander
from editing.methods.closed_form.keys import contexts
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.value_search import Reach, ValueSearch
from editing.methods.closed_form.values import value_stars
from labkit import pocket as world
from labkit.errors import NonFiniteLoss
from labkit.text.corpus import corpus_of
from tests.reference import output_hook

LAYER = 1
SEARCH = ValueSearch(
    steps=3, lr=8.0, kl_factor=2.0, decay=0.01, clamp=1e3, bystander_push=1.2, enough=1.0
)


class Recorded(torch.optim.SGD):
    """Steps of one length in place of Adam's, long enough for every term of the loss to
    count; keeps every gradient that it is given."""

    gradients: list = []  # noqa: RUF012 - filled anew by the fixture

    def step(self, closure=None):
        (parameter,) = self.param_groups[0]["params"]
        self.gradients.append(parameter.grad.clone())
        parameter.data -= SEARCH.lr * parameter.grad / parameter.grad.norm()


@pytest.fixture
def gradients(monkeypatch):
    monkeypatch.setattr(Recorded, "gradients", [])
    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    return Recorded.gradients


def by_hand(model, rewrite, before, search, near=()):
    """The loss and its gradient, step by step: each prompt alone, in full, unpadded."""
    target = model.tokenizer(" " + rewrite.target_new, add_special_tokens=False).input_ids
    subject = f"the {rewrite.subject}"
    change = torch.zeros(model.d_model, requires_grad=True)
    seen = {}

    def logits(text, read, extra=(), subject=rewrite.subject, share=1.0):
        """Log-probabilities of the last `read` tokens, the FFN pushed at the subject's end."""
        start = text.rindex(subject) + len(subject)
        column = len(model.ids(text[:start])) - 1

        def write(out):
            seen.setdefault("v", out[0, column].detach())
            return torch.cat(
                [out[:, :column], out[:, [column]] + share * change, out[:, column + 1 :]], 1
            )

        with output_hook(model.ffn_proj(LAYER), write):
            ids = torch.tensor([[*model.ids(text), *extra]])
            return model.hf(ids).logits[0, -read:].log_softmax(-1)

    essence = (before[-1] + " " if before[-1] else "") + ESSENCE.format(rewrite.subject)
    losses, gradients, unedited, others = [], [], None, None
    for _ in range(search.steps + 1):
        terms = []
        for context in before:
            text = (context + " " if context else "") + f"{subject} is in"
            found = logits(text, len(target), target[:-1])
            terms.append(found[range(len(target)), target].mean())
        now = logits(essence, 1)[0]
        unedited = now.detach() if unedited is None else unedited
        kl = (unedited.exp() * (unedited - now)).sum()
        said = [
            logits(
                rewrite.template.format(b.subject),
                1,
                subject=b.subject,
                share=search.bystander_push * b.share,
            )[0]
            for b in near
        ]
        others = [one.detach() for one in said] if others is None else others
        held = sum((o.exp() * (o - s)).sum() for o, s in zip(others, said, strict=True))
        decay = change.square().sum() / seen["v"].square().sum()
        loss = -torch.stack(terms).mean() + search.kl_factor * kl + search.decay * decay
        loss = loss + search.bystander_factor * held
        (gradient,) = torch.autograd.grad(loss, change)
        losses.append(loss.item())
        gradients.append(gradient)
        reached = change.detach()
        change = (reached - search.lr * gradient / gradient.norm()).requires_grad_()
    return losses, gradients[:-1], seen["v"] + reached


@pytest.mark.parametrize("near", [(), (Bystander("old dog", 0.4), Bystander("hen", -0.2))])
def test_loss_and_gradient_are_those_of_full_runs(model, rewrite, corpus, gradients, near):
    """Several contexts of different lengths, so that padding is in play; several target tokens."""
    before = contexts(corpus, 4, seed=0)
    assert len({len(model.ids(context)) for context in before if context}) > 1
    found = value_stars(model, grouped([rewrite]), LAYER, before, SEARCH, Reach(near=[near]))
    (losses,) = found.losses
    expected_losses, expected, v_star = by_hand(model, rewrite, before, SEARCH, near)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert max(losses) - min(losses) > 0.02
    assert len(gradients) == len(expected) == SEARCH.steps
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(
            ours[0, 0], theirs, rtol=0, atol=1e-3 * theirs.abs().max().item()
        )
    torch.testing.assert_close(found.v_star[0], v_star, rtol=0, atol=1e-3 * SEARCH.lr)


def test_the_bare_prompt_alone_will_do(model, rewrite, gradients):
    """A subject that begins the prompt leaves no prefix to freeze where there is no BOS."""
    first = dataclasses.replace(rewrite, template="{} is in")
    if model.prepend_bos:
        pytest.skip("a BOS stands in front")
    cat = dataclasses.replace(first, subject="a")
    value_stars(model, grouped([cat]), LAYER, [""], SEARCH)
    assert gradients[0].abs().max() > 1e-4


# --- when it ends -------------------------------------------------------------------------


@pytest.fixture
def before(corpus):
    return contexts(corpus, 3, seed=0)


def test_it_ends_when_the_target_is_likely_enough_in_every_context(pocket):
    rewrite = world.demo_case().rewrite
    layer, before = ROME().layer_for(pocket), contexts(corpus_of(pocket), 3, seed=0)
    search = ValueSearch(steps=99, enough=0.7, clamp=99.0)
    found = value_stars(pocket, grouped([rewrite]), layer, before, search)
    assert 0 < found.steps < 99 and 0.7 <= found.probability <= 1
    seen = []
    for context in before:
        subject = f"{context} {rewrite.subject}".strip()
        text = subject + rewrite.prompt.removeprefix(rewrite.subject)
        column = len(pocket.ids(subject)) - 1

        def write(out, column=column):
            out = out.clone()
            out[0, column] += found.change[0]
            return out

        with torch.no_grad(), output_hook(pocket.ffn_proj(layer), write):
            said = pocket.hf(torch.tensor([pocket.ids(text)])).logits[0, -1].softmax(-1)
        seen.append(said[pocket.tokenizer.convert_tokens_to_ids(rewrite.target_new)].item())
    assert min(seen) == pytest.approx(found.probability.item(), abs=1e-4)


def test_a_target_that_is_likely_already_takes_no_step(tiny, rewrite, before):
    found = value_stars(tiny("llama"), grouped([rewrite]), LAYER, before, ValueSearch(enough=0.0))
    assert found.steps == 0
    assert torch.equal(found.v_star, found.v)


def test_it_ends_after_so_many_steps_at_most(tiny, rewrite, before):
    told = []
    found = value_stars(
        tiny("llama"),
        grouped([rewrite]),
        LAYER,
        before,
        ValueSearch(steps=3, enough=1.0),
        progress=lambda what, share: told.append(share),
    )
    assert found.steps == 3 and told == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [len(losses) for losses in found.losses] == [4]


@pytest.mark.parametrize("clamp", [0.1, 0.75])
def test_the_change_stays_within_its_bound(tiny, rewrite, before, clamp):
    search = ValueSearch(steps=6, lr=5.0, clamp=clamp, enough=1.0)
    found = value_stars(tiny("gpt2"), grouped([rewrite]), LAYER, before, search)
    share = found.change.norm() / found.v.norm()
    assert share.item() == pytest.approx(clamp, rel=1e-3)


def test_a_loss_that_is_no_number_is_named(tiny, rewrite, before):
    model = tiny("llama")
    with pytest.raises(NonFiniteLoss, match="smaller lr"):
        value_stars(model, grouped([rewrite]), LAYER, before, ValueSearch(decay=1e39))
