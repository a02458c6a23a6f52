"""What is read out of a model is what its own head says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.direct_attribution import direct_logit_attribution
from labkit.errors import EmptyPrompt, EmptyTarget, InputError
from labkit.readout import LensResult, logit_lens, predict
from tests.reference import full_logits, full_run, outputs_of

PROMPT = "the baker of the mill is"


@pytest.fixture
def probabilities(model):
    """Next-token probabilities of the plain model, by position."""
    with torch.no_grad():
        return full_logits(model, model.tokens([PROMPT]))[0].softmax(-1)


def test_predictions_are_the_plain_models(model, probabilities):
    found = predict(model, PROMPT, k=7)
    expected = probabilities[-1].topk(7)
    assert found.tokens == tuple(model.tokenizer.batch_decode(expected.indices[:, None]))
    np.testing.assert_allclose(found.probabilities, expected.values, rtol=1e-4)
    assert found.fingerprint == model.fingerprint


@torch.no_grad()
def test_the_lens_is_norm_and_unembedding_after_every_block(model):
    found = logit_lens(model, PROMPT, answer=" the", k=2)
    batch = model.tokens([PROMPT])
    streams = full_run(model, batch, output_hidden_states=True).hidden_states[1:-1]
    read = [model.unembed(model.final_norm(stream)) for stream in streams]
    read.append(full_logits(model, batch))
    expected = torch.cat(read).softmax(-1)
    (answer,) = model.tokenizer(" the", add_special_tokens=False).input_ids
    np.testing.assert_allclose(found.answer_probability, expected[..., answer], rtol=1e-3)
    np.testing.assert_allclose(found.probability, expected.amax(-1), rtol=1e-3)
    better = (expected > expected[..., [answer]]).sum(-1)
    np.testing.assert_array_equal(found.answer_rank, better)
    decode = model.tokenizer.decode
    assert [row[-1][0] for row in found.top] == [decode(i) for i in expected.argmax(-1)[:, -1:]]


def test_the_lens_follows_the_models_own_answer_by_default(model, probabilities):
    found = logit_lens(model, PROMPT)
    assert found.answer == model.tokenizer.decode([int(probabilities[-1].argmax())])
    assert found.answer_rank[-1, -1] == 0


@pytest.mark.parametrize(
    ("ranks", "settled"),
    [((0, 0, 0), 0), ((5, 0, 0), 1), ((0, 2, 0), 2), ((1, 1, 1), None), ((0, 0, 3), None)],
)
def test_settled_is_where_the_answer_comes_to_stay(tiny, ranks, settled):
    found = logit_lens(tiny("llama"), PROMPT)
    planted = np.zeros_like(found.answer_rank)
    planted[:, -1] = ranks
    planted[:, 0] = 9  # other positions have no say
    found = replace(found, answer_rank=planted)
    assert found.settled == settled
    assert ("never" if settled is None else f"from layer {settled} on") in found.title


def test_a_lens_comes_back_as_it_was(model, tmp_path):
    found = logit_lens(model, PROMPT)
    again = LensResult.load(found.save(tmp_path / "lens"))
    assert again.to_frame().equals(found.to_frame())
    assert len(found.to_frame()) == model.n_layers * len(found.tokens)


@torch.no_grad()
def test_an_attribution_is_what_the_component_writes_into_the_logit(tiny):
    """The last FFN's share: its output, scaled as the final norm scales, on the unembedding."""
    model = tiny("llama")
    batch = model.tokens([PROMPT])
    last = model.n_layers - 1
    with (
        outputs_of(model.blocks[last]) as stream,
        outputs_of(model.blocks[last].get_submodule(model.anatomy.ffn)) as written,
    ):
        full_logits(model, batch)
    (answer,) = model.tokenizer(" is", add_special_tokens=False).input_ids
    scale = (stream[0][0, -1].square().mean() + model.hf.config.rms_norm_eps).rsqrt()
    share = written[0][0, -1] * scale * model.final_norm.weight @ model.unembed.weight[answer]
    table = direct_logit_attribution(model, PROMPT, " is").set_index("component")
    assert table.loc[f"{last}_mlp_out", "logit"] == pytest.approx(share.item(), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("unit", ["component", "head"])
def test_attributions_add_up_to_the_logit(model, unit):
    batch = model.tokens([PROMPT])
    before = full_logits(model, batch)
    (answer,) = model.tokenizer(" is", add_special_tokens=False).input_ids
    table = direct_logit_attribution(model, PROMPT, " is", unit=unit)
    assert table["logit"].sum() == pytest.approx(before[0, -1, answer].item(), abs=1e-4)
    assert len(table) > 2 * model.n_layers and table["logit"].abs().min() < 10
    assert torch.equal(full_logits(model, batch), before)


def test_nothing_to_read_is_refused(tiny):
    model = tiny("llama")
    for k in (0, model.d_vocab + 1):
        with pytest.raises(InputError, match="next tokens"):
            predict(model, PROMPT, k=k)
    with pytest.raises(EmptyPrompt):
        predict(model, "")
    with pytest.raises(EmptyTarget):
        logit_lens(model, PROMPT, answer="")
    with pytest.raises(InputError, match="component, head"):
        direct_logit_attribution(model, PROMPT, "is", unit="neuron")
