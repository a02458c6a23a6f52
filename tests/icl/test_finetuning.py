"""Steps are autograd's on Hugging Face's loss; readings are full runs; weights come back."""

import numpy as np
import pandas as pd
import pytest
import torch

from labkit.errors import (
    AmbiguousLabels,
    ContextTooShort,
    InputError,
    LayerOutOfRange,
    NonFiniteLoss,
    PoolTooSmall,
)
from labkit.icl import (
    FineTuningComparison,
    FineTuningResult,
    Item,
    Shot,
    Task,
    Template,
    label_ids,
    prompt_ids,
    score_labels,
    task,
    told_apart,
)
from labkit.icl.asking.queries import Front, drawn_shots
from labkit.icl.implicit.descent import gradient_step
from labkit.icl.implicit.finetuning_reading import map_cosines, n_common, read, update_cosines
from labkit.icl.implicit.finetuning_result import ARMS
from labkit.icl.implicit.finetuning_steps import (
    descend,
    key_value_weights,
    lessons,
    other_weights,
    random_change,
)
from labkit.models.in_effect import fingerprint
from labkit.stats import numpy_generator
from tests.reference import outputs_of

SHOTS = (Shot(input="the", label="of"), Shot(input="is a", label="the in on"))
METHOD = FineTuningComparison(k=3, sets=1, queries=5, development=3, orders=2, rates=(0.01,))


def taught(model):
    return lessons(model, Template(), SHOTS)


def loss_by_hand(hf, own):
    """Of one lesson, in Hugging Face's own model; its own loss is in float32."""
    said = hf(input_ids=torch.tensor([own.query + own.label])).logits[0].log_softmax(dim=-1)
    first = len(own.query)
    return -torch.stack([said[first + n - 1, token] for n, token in enumerate(own.label)]).mean()


def queries_left_out(model, grad):
    """A gradient without the rows of queries, by what each family is known to do."""
    width, heads, d_head = model.d_model, model.n_heads, model.d_head
    if model.hf.config.model_type == "gpt2":  # queries, keys, values side by side
        grad[..., :width] = 0
    if model.hf.config.model_type == "gpt_neox":  # the same, head by head
        grad.view(heads, 3, d_head, *grad.shape[1:])[:, 0] = 0
    return grad


def test_what_is_learnt_is_keys_and_values_and_no_more(model):
    learnt = key_value_weights(model)
    per_layer = {
        "gpt2": {"attn.c_attn.weight", "attn.c_attn.bias"},
        "gpt_neox": {"attention.query_key_value.weight", "attention.query_key_value.bias"},
        "gptj": {"attn.k_proj.weight", "attn.v_proj.weight"},
        "llama": {"self_attn.k_proj.weight", "self_attn.v_proj.weight"},
        "gemma": {"self_attn.k_proj.weight", "self_attn.v_proj.weight"},
        "qwen2": {f"self_attn.{part}_proj.{kind}" for part in "kv" for kind in ("weight", "bias")},
    }[model.hf.config.model_type]
    for layer, names in enumerate(learnt.layers):
        assert set(names) == {f"{model.anatomy.blocks}.{layer}.{name}" for name in per_layer}
    for name, part in learnt.parts.items():
        own = torch.ones_like(model.hf.get_parameter(name))
        assert torch.equal(part, queries_left_out(model, own).bool())


def test_steps_are_autograds_on_hugging_faces_loss(exact):
    learnt, own = key_value_weights(exact), taught(exact)
    kept = {name: exact.hf.get_parameter(name).detach().clone() for name in learnt.parts}
    for steps in ([own], [[one] for one in own]):
        found = descend(exact, learnt, steps, rate=0.05)
        with other_weights(exact, {name: tensor.clone() for name, tensor in kept.items()}):
            for batch in steps:
                parameters = [exact.hf.get_parameter(name).requires_grad_() for name in kept]
                loss = torch.stack([loss_by_hand(exact.hf, one) for one in batch]).mean()
                slopes = torch.autograd.grad(loss, parameters)
                for parameter, slope in zip(parameters, slopes, strict=True):
                    parameter.requires_grad_(False)
                    parameter -= 0.05 * queries_left_out(exact, slope.clone())
            for name in kept:
                expected = exact.hf.get_parameter(name)
                torch.testing.assert_close(found[name], expected, atol=1e-9, rtol=0)
        assert all(torch.equal(exact.hf.get_parameter(name), kept[name]) for name in kept)


def test_a_full_batch_does_not_see_the_order_and_steps_do(exact):
    learnt, own = key_value_weights(exact), taught(exact)
    for steps, same in (
        (([own], [own[::-1]]), True),
        (([[own[0]], [own[1]]], [[own[1]], [own[0]]]), False),
    ):
        one, other = (descend(exact, learnt, order, rate=0.05) for order in steps)
        assert all(torch.allclose(one[name], other[name], atol=1e-10) for name in one) == same


def test_layer_by_layer_no_layer_hears_of_those_above(tiny):
    model = tiny("llama")
    learnt, own = key_value_weights(model), taught(model)
    before = descend(model, learnt, [own], rate=0.05, by_layer=True)
    above = {
        name: parameter + torch.ones_like(parameter)
        for name, parameter in model.hf.model.layers[1].named_parameters(prefix="model.layers.1")
    }
    with other_weights(model, above):
        after = descend(model, learnt, [own], rate=0.05, by_layer=True)
        heard = descend(model, learnt, [own], rate=0.05)
    plain = descend(model, learnt, [own], rate=0.05)
    for name in learnt.layers[0]:
        assert torch.equal(before[name], after[name])
        assert not torch.equal(plain[name], heard[name])
    # The last layer's own loss is the model's; it finds those below already changed.
    below = {name: before[name] for names in learnt.layers[:-1] for name in names}
    with other_weights(model, below):
        last = descend(model, learnt, [own], rate=0.05)
    for name in learnt.layers[-1]:
        torch.testing.assert_close(before[name], last[name], atol=1e-6, rtol=0)


def test_a_random_change_is_as_large_and_stays_among_what_is_learnt(tiny):
    model = tiny("gpt2")
    learnt = key_value_weights(model)
    changed = descend(model, learnt, [taught(model)], rate=0.05)
    moved = random_change(model, learnt, changed, seed=0)
    for name, own in ((name, model.hf.get_parameter(name)) for name in changed):
        assert (moved[name] - own).norm() == pytest.approx(
            (changed[name] - own).norm().item(), 1e-3
        )
        assert not (moved[name] - own)[~learnt.parts[name]].any()


def test_weights_come_back_to_the_bit_also_after_an_error(model):
    names = list(key_value_weights(model).parts)
    before = {name: model.hf.get_parameter(name).data_ptr() for name in names}
    other = {name: torch.zeros_like(model.hf.get_parameter(name)) for name in names}
    with pytest.raises(KeyError), other_weights(model, other):
        assert not model.hf.get_parameter(names[0]).any()
        raise KeyError
    with pytest.raises(LayerOutOfRange), other_weights(model, other):
        model.layer(99)
    assert {name: model.hf.get_parameter(name).data_ptr() for name in names} == before
    assert fingerprint(model.hf, model.tokenizer) == model.fingerprint
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())


def test_a_reading_is_a_full_run(model):
    front = "Q: the\nA: of\n\n"
    prompts = [tuple(model.ids(front + text)) for text in ("Q: is\nA:", "Q: is a the on\nA:")]
    implementation = model.hf.config._attn_implementation
    found = read(model, prompts, [4, 9], [3, 6])
    assert model.hf.config._attn_implementation == implementation
    for row, (prompt, n) in enumerate(zip(prompts, (3, 6), strict=True)):
        attention = [block.get_submodule(model.anatomy.attn) for block in model.blocks]
        model.hf.set_attn_implementation("eager")
        try:
            with outputs_of(attention[1]) as seen, torch.no_grad():
                full = model.hf(torch.tensor([prompt]), output_attentions=True)
        finally:
            model.hf.set_attn_implementation(implementation)
        said = full.logits[0, -1].double().log_softmax(dim=-1)[[4, 9]]
        torch.testing.assert_close(found.log_probs[row], said, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            found.outputs[row, 1], seen[0][0, -1].double(), atol=1e-4, rtol=0
        )
        logs = torch.stack([w[0, :, -1, -n:] for w in full.attentions]).double().log()
        logs = logs - logs.mean(dim=-1, keepdim=True)
        torch.testing.assert_close(found.maps[row], logs, atol=1e-3, rtol=0)
    assert torch.allclose(map_cosines(found, found), torch.tensor(1.0, dtype=torch.float64))


def test_cosines_of_updates():
    draw = torch.Generator().manual_seed(0)
    before, one, other = torch.randn(3, 6, 5, generator=draw, dtype=torch.float64)
    assert torch.allclose(update_cosines(before, one, one), torch.ones(6).double())
    assert torch.allclose(update_cosines(before, one, 3 * one), torch.ones(6).double())
    assert (update_cosines(before, before, one) == 0).all()
    start, a, b = (
        v / np.linalg.norm(v, axis=-1, keepdims=True) for v in map(np.asarray, (before, one, other))
    )
    a, b = a - start, b - start
    expected = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(update_cosines(before, one, other).numpy(), expected, atol=1e-12)
    assert n_common((1, 2, 3), (7, 2, 3)) == 2 and n_common((2, 3), (1, 2, 3)) == 2


def test_where_attention_is_gradient_descent_the_two_updates_are_one():
    draw = torch.Generator().manual_seed(0)
    x, start = (torch.randn(*shape, generator=draw).double() for shape in ((8, 3), (4, 3)))
    y, asked = (torch.randn(*shape, generator=draw).double() for shape in ((8, 4), (5, 3)))
    layer = gradient_step(start, rate=0.3, n_examples=8)
    query = torch.cat([asked, -asked @ start.mT], dim=-1)
    shown = torch.cat([x, y], dim=-1).expand(5, -1, -1)
    after = layer(torch.cat([shown, query[:, None]], dim=1), 8)[:, -1, 3:]
    W = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad((x @ W.mT - y).square().sum() / 16, W)
    tuned = -asked @ (start - 0.3 * slope).mT
    assert torch.allclose(update_cosines(query[:, 3:], after, tuned), torch.ones(5).double())
    uphill = -asked @ (start + 0.3 * slope).mT
    assert (update_cosines(query[:, 3:], after, uphill) < 0).all()


def words(n, labels=("of", "in", "the"), name="words"):
    items = tuple(Item(input=f"{'abcdefghij'[i % 10]}{i}", label=labels[i % 3]) for i in range(n))
    return Task(
        name=name, items=items, source="s", template=Template(demonstration="{input} {label}")
    )


OTHER = words(5, ("a", "on", "is"), "others")


def test_every_family_is_compared(model):
    seen = []
    found = METHOD(model, words(14), other=OTHER, progress=lambda what, share: seen.append(share))
    assert found.outputs.shape == (6, 1, 5, model.n_layers) and seen[-1] == pytest.approx(1)
    for cosines in (found.outputs, found.maps):  # no arm is left at its start
        assert all(np.abs(arm).max() > 1e-3 for arm in cosines[:5])
    arms = {tuple(np.round(arm.ravel(), 12)) for arm in found.outputs}
    assert len(arms) == len(found.outputs)  # and each goes somewhere else
    assert np.isfinite(found.log_probs).all() and found.order_log_probs.shape == (2, 1, 2, 5, 3)
    # Without demonstrations no arm has anything to do with where attention looked.
    assert (found.maps_before[:5] == found.maps_before[0]).all()


def test_every_arm_is_fine_tuned_on_what_it_is_called(tiny):
    """In context: scored behind the set. Own, permuted, another task: scored with other weights."""
    model, own = tiny("llama", "float64"), words(14)
    found = METHOD(model, own, other=OTHER)
    _, pool = own.queries_and_pool(8, 3, seed=0)
    shown, another = (
        drawn_shots(items, 3, 0, "icl fine-tuning", len(items), *content)
        for items, content in ((pool, ("set", 0)), (OTHER.items, ("other", "others", 0)))
    )
    order = numpy_generator(0, "icl fine-tuning", own.name, 0, "order", 3).permutation(3)
    shuffled = [
        Item(input=i.input, label=shown[n].label) for i, n in zip(shown, order, strict=True)
    ]
    labels = label_ids(model, own.template, own.labels, tokens="first")

    def scored(items):
        texts = [Front.of(items).before(own, query) for query in found.queries]
        return score_labels(model, [prompt_ids(model, texts)], labels)[0].numpy()

    np.testing.assert_allclose(found.log_probs[0, 0], scored([]), atol=1e-6)
    np.testing.assert_allclose(found.log_probs[1, 0], scored(shown), atol=1e-6)
    for arm, items in (("own", shown), ("permuted", shuffled), ("other", another)):
        steps = [[one] for one in lessons(model, own.template, Front.of(items).shots)]
        changed = descend(model, key_value_weights(model), steps, rate=0.01)
        with other_weights(model, changed):
            expected = scored([])
        state = 2 + found.arms.index(arm)
        np.testing.assert_allclose(found.log_probs[state, 0], expected, atol=1e-6)
        others = np.delete(found.log_probs[:, 0], state, axis=0)
        assert np.abs(others - expected).max(axis=(1, 2)).min() > 1e-5


def test_the_same_seed_gives_the_same_table_and_it_is_kept(tiny, tmp_path, unchecked):
    one, again = (METHOD(tiny("gpt2"), words(14), other=OTHER) for _ in range(2))
    assert again.to_frame().equals(one.to_frame()) and again.summary().equals(one.summary())
    one.save(tmp_path / "r")
    loaded = FineTuningResult.load(tmp_path / "r")
    assert loaded.predictions().equals(one.predictions())
    assert len(loaded.figure("maps").data) == len(ARMS) + 1  # the first arm's band
    for wrong in (
        lambda: one.values("nobody"),
        lambda: one.values("own", "nothing"),
        lambda: one.right("twin"),
    ):
        with pytest.raises(InputError):
            wrong()


CHOICES = pd.DataFrame(
    {"rate": [0.0, 0.1], "log_share": [-1.0, -0.5], "accuracy": [0.0, 1.0], "arm": ["own"] * 2}
)


def made(right, context, tuned):
    """A result in which answers are as given (sets down, queries across), labels a and b."""
    sets, n = np.shape(right)
    scores = np.zeros((7, sets, n, 2))
    for state, own in enumerate((right, context, tuned)):
        scores[state, :, :, 0] = np.where(own, 1.0, -1.0)
    flat = np.zeros((6, sets, n, 2))
    flat[0] = 0.5
    flat[1, :, ::2] = 0.4
    fields = dict.fromkeys(("model", "fingerprint", "task", "source", "other"), "m")
    return FineTuningResult(
        **fields, labels=("a", "b"), queries=tuple(map(str, range(n))), gold=("a",) * n,
        k=2, seed=0, arms=tuple(ARMS), rates={"own": 0.1},
        choices=CHOICES, outputs=flat, maps=flat, maps_before=flat / 2, log_probs=scores,
        order_log_probs=np.stack([scores[[0, 1]].swapaxes(0, 1), scores[[2, 2]].swapaxes(0, 1)]),
    )  # fmt: skip


def test_recall_is_counted_by_hand():
    none = [[1, 0, 0, 0, 0, 0]]
    found = made(none, [[1, 1, 1, 0, 0, 0]], [[1, 1, 0, 1, 0, 0]])
    assert found.recall("own").mean == pytest.approx(1 / 2)  # of queries 1 and 3
    assert found.recall_by_chance.mean == pytest.approx(2 / 5)
    assert found.accuracy("context").mean == pytest.approx(1 / 2) and found.helped
    assert made(none, none, none).recall() is None
    frame = found.predictions().set_index("state")
    assert frame.loc["own", "corrected"] == 2 and frame.loc["none", "corrected"] == 0


def test_orders_spread_as_far_as_their_answers_differ():
    found = made([[1, 0]], [[1, 1]], [[0, 0]])
    sure = 1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(1))
    frame = found.order_spread().set_index("way")
    assert frame.loc["context", "mean"] == pytest.approx(sure / 2)  # one query of two differs
    assert frame.loc["sgd", "mean"] == 0
    assert found.order_difference()[0].mean == pytest.approx(sure / 2)


def test_what_is_above_is_tested_and_the_sentence_says_so():
    found = made(np.zeros((2, 20)), np.zeros((2, 20)), np.zeros((2, 20)))
    assert found.similarity("own").mean == 0.5
    assert found.similarity("own", "map_gain").mean == pytest.approx(0.25)
    assert set(found.above()) == {"permuted", "other", "random", "twin"}
    assert "not above" not in found.sentence()
    frame = found.summary().set_index("arm")
    assert frame.loc["permuted", "mean"] == pytest.approx(0.3)
    assert frame.loc["twin", "mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("fields", "own", "error"),
    [
        ({}, words(8), PoolTooSmall),
        ({}, words(14, ("of", "of a", "in")), AmbiguousLabels),
        ({"k": 90}, words(120), ContextTooShort),
        ({}, words(14, name="others"), InputError),
        ({"k": 1}, words(14), InputError),
        ({"rates": (0.1, 0.01)}, words(14), InputError),
        ({"rates": ()}, words(14), InputError),
        ({"orders": 1}, words(14), InputError),
    ],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, fields, own, error):
    other = words(120, ("a", "on", "is"), "others")
    with pytest.raises(error):
        FineTuningComparison(**{"k": 3, "queries": 5, "development": 3} | fields)(
            tiny("gpt2"), own, other=other
        )


def test_steps_that_lead_nowhere_are_an_error(tiny):
    method = FineTuningComparison(k=2, sets=1, queries=2, development=2, rates=(1e39,))
    with pytest.raises(NonFiniteLoss):
        method(tiny("llama"), words(14), other=words(5, ("a", "on", "is"), "others"))


@pytest.mark.slow
def test_on_a_language_model_fine_tuning_and_context_both_learn_the_past(smollm2):
    method = FineTuningComparison(k=4, sets=1, queries=6, development=2, orders=2, rates=(0.003,))
    found = method(smollm2, told_apart(smollm2, task("past")))
    assert found.helped
    assert found.similarity("own").mean > found.similarity("random").mean
    assert found.accuracy("context").mean > found.accuracy("none").mean
