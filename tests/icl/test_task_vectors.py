"""A vector does what a hook by hand does; what is chosen on is not measured on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.errors import (
    AmbiguousLabels,
    ContextTooShort,
    EmptySplit,
    InputError,
    LayerOutOfRange,
    PoolTooSmall,
)
from labkit.icl import Item, Task, Template, prompt_ids, task, told_apart
from labkit.icl.asking.queries import asked_ids, drawn_shots
from labkit.icl.inside.task_vectors import TaskVectors
from labkit.icl.inside.vector_result import VectorResult
from labkit.icl.inside.vectors import LastPositions, parted, random_like
from labkit.running.states import last_streams
from tests.reference import shows

TEXTS = ("it is", "one of the other things", "the sun and the moon")
WORDS = "rain sun moon red blue day night sea land fire ice wind".split()


def small(n=12, labels=("of", "in"), name="small"):
    items = tuple(Item(input=WORDS[i], label=labels[i % len(labels)]) for i in range(n))
    return Task(name=name, items=items, source="s")


SMALL, OTHER = small(), small(labels=("is", "at", "to"), name="other")
METHOD = TaskVectors(k=2, draws=2, development=3, queries=4)


@torch.no_grad()
def by_hand(model, ids, layer=None, state=None):
    """Logits of Hugging Face's own model on one prompt, a state put in by torch's own hook."""

    def put(module, args, out):
        resid = (out[0] if isinstance(out, tuple) else out).clone()
        resid[:, -1] = state
        return (resid, *out[1:]) if isinstance(out, tuple) else resid

    handle = None if layer is None else model.blocks[layer].register_forward_hook(put)
    try:
        return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    finally:
        if handle is not None:
            handle.remove()


def test_a_state_put_back_changes_nothing(model):
    asked = LastPositions(model, prompt_ids(model, TEXTS))
    rows = torch.arange(len(TEXTS))
    for layer in range(model.n_layers):
        again = asked.continued(layer, asked.states[layer], rows)
        assert torch.equal(again, asked.states[-1])


def test_a_vector_does_what_a_hook_by_hand_does(exact):
    from labkit.running.logits import read_logits

    prompts = prompt_ids(exact, TEXTS)
    asked = LastPositions(exact, prompts)
    states = torch.randn(3, exact.d_model, dtype=torch.float64, generator=torch.manual_seed(0))
    for layer in range(exact.n_layers):
        got = read_logits(exact, asked.continued(layer, states, torch.tensor([2, 0, 2]))[:, None])
        for row, prompt in enumerate((2, 0, 2)):
            expected = by_hand(exact, prompts[prompt], layer, states[row])
            torch.testing.assert_close(got[row, 0], expected, atol=1e-8, rtol=0)


def test_states_behind_shared_demonstrations_are_those_from_scratch(exact):
    prompts = asked_ids(exact, SMALL, SMALL.items[:4], SMALL.items[5:9])
    found = last_streams(exact, prompts)
    for number, ids in enumerate(prompts):
        alone = LastPositions(exact, [ids])
        torch.testing.assert_close(found[:, number], alone.states[:, 0], atol=1e-8, rtol=0)


def test_at_the_last_depth_the_answer_is_that_behind_the_demonstrations(tiny):
    """Whatever the query: its own label counts for nothing there."""
    model = tiny("gpt2")
    found = METHOD(model, SMALL, other=OTHER)
    unembedded = torch.tensor(found.directions[:, -1])
    logits = model.unembed(model.final_norm(unembedded)).log_softmax(dim=-1)
    first = [model.ids(f"A: {label}")[-1] for label in found.gold]
    expected = logits[:, first].detach().numpy()
    got = found.readings[2, 0, 0, -1]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_scale_zero_is_no_vector_and_scale_one_of_the_mean_is_the_mean(model):
    method = replace(METHOD, form="add", scales=(0.0, 1.0))
    found = method(model, SMALL, other=OTHER)
    none = found.readings[:, :, 0]
    assert np.array_equal(none, np.broadcast_to(found.zero_shot[:, None, None, None], none.shape))
    assert not np.allclose(found.readings[2, 0, 1, -1], found.readings[2, 0, 0, -1])


def test_answers_without_a_vector_are_the_models_own(pocket):
    own = task("country_continent", pocket)
    found = METHOD(pocket, own)
    for number, (query, gold) in enumerate(zip(found.queries, found.gold, strict=True)):
        ids = pocket.ids(own.template.query.replace("{input}", query))
        log_probs = by_hand(pocket, ids).log_softmax(dim=-1)
        first = [pocket.ids(label)[1] for label in own.labels]
        right = first[own.labels.index(gold)]
        expected = [
            log_probs[first].argmax() == own.labels.index(gold),
            log_probs.argmax() == right,
            log_probs[right],
            log_probs[first].exp().sum(),
        ]
        np.testing.assert_allclose(found.zero_shot[:, number], expected, atol=1e-4)


def test_answers_behind_demonstrations_and_the_vector_are_the_models_own(pocket):
    """Draw by draw: queries behind the demonstrations, the vector behind them and the dummy."""
    own = task("country_continent", pocket)
    found = METHOD(pocket, own)
    development, measured, pool = parted(own, 3, 4, 3, seed=0)
    first = [pocket.ids(label)[1] for label in own.labels]
    for draw in range(2):
        *items, dummy = drawn_shots(pool, 3, 0, own.name, "vector", draw)
        for number, query in enumerate([*development, *measured]):
            (ids,) = asked_ids(pocket, own, items, [query])
            right = by_hand(pocket, ids).log_softmax(dim=-1)[first[own.labels.index(query.label)]]
            assert found.k_shot[2, draw, number] == pytest.approx(right.item(), abs=1e-4)
        (ids,) = asked_ids(pocket, own, items, [dummy])
        with torch.no_grad():
            states = pocket.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
        expected = torch.stack(states)[1:-1, 0, -1]  # the last one is normed
        np.testing.assert_allclose(found.directions[draw, :-1], expected, atol=1e-4)


def test_a_placebo_has_the_norm_and_no_direction():
    vectors = torch.randn(3, 4, 512, generator=torch.manual_seed(0)) * 7
    noise = random_like(vectors, 0, "a")
    torch.testing.assert_close(noise.norm(dim=-1), vectors.norm(dim=-1))
    cosines = torch.nn.functional.cosine_similarity(noise, vectors, dim=-1)
    assert cosines.abs().max() < 0.2
    assert torch.equal(noise, random_like(vectors, 0, "a"))
    assert not torch.equal(noise, random_like(vectors, 0, "b"))


def test_nothing_is_chosen_on_what_is_measured(tiny):
    development, measured, pool = parted(SMALL, 3, 4, 5, seed=0)
    parts = [{item.input for item in part} for part in (development, measured, pool)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(SMALL)
    assert [len(part) for part in parts] == [3, 4, 5]
    found = METHOD(tiny("llama"), SMALL, other=OTHER)
    scale, layer = found.chosen
    other = found.readings.copy()
    other[..., found.development :] = np.random.default_rng(0).random(other.shape)[..., 3:]
    changed = replace(found, readings=other)
    assert changed.chosen == (scale, layer)
    assert found.readings[2, 0, 0, :, :, :3].mean(axis=(1, 2)).argmax() == layer
    at = changed.values("log_prob", "task vector")
    np.testing.assert_allclose(at, other[2, 0, 0, layer, :, 3:].mean(axis=0))
    rows = changed.to_frame().query("reading == 'log_prob' and vector == 'task vector'")
    np.testing.assert_allclose(rows["mean"], other[2, 0, 0, :, :, 3:].mean(axis=(1, 2)), atol=1e-12)


def test_the_same_seed_gives_the_same_table_and_another_another(tiny, tmp_path):
    model = tiny("llama")
    found = METHOD(model, SMALL, other=OTHER)
    assert METHOD(model, SMALL, other=OTHER).to_frame().equals(found.to_frame())
    assert (
        not replace(METHOD, seed=1)(model, SMALL, other=OTHER).to_frame().equals(found.to_frame())
    )
    found.save(tmp_path / "r")
    loaded = VectorResult.load(tmp_path / "r")
    assert loaded.to_frame().equals(found.to_frame()) and loaded.title == found.title
    assert len(found.vocabulary()) == model.n_layers
    said = found.to_frame().query("reading == 'said'")
    assert shows(found.figure(), said[said["scale"] == found.chosen[0]]["mean"])
    assert set(found.comparisons()["against"]) >= {"zero-shot", "k-shot", "vector of other"}
    with pytest.raises(InputError):
        found.estimate("log_prob", "nobody's vector")
    with pytest.raises(InputError):
        found.figure("beauty")


@pytest.mark.parametrize(
    ("fields", "own", "other", "error"),
    [
        ({"k": 10}, SMALL, OTHER, PoolTooSmall),
        ({"k": 5}, SMALL, small(4, name="few"), PoolTooSmall),
        ({"layers": (0, 99)}, SMALL, OTHER, LayerOutOfRange),
        ({"layers": (1, 1)}, SMALL, OTHER, InputError),
        ({}, SMALL, SMALL, InputError),
        ({}, small(labels=("the a", "the b")), OTHER, AmbiguousLabels),
    ],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, fields, own, other, error):
    model = tiny("llama")
    with pytest.raises(error):
        replace(METHOD, **fields)(model, own, other=other)


def test_demonstrations_that_do_not_fit(tiny, no_forward):
    long = Template(demonstration="{input} " + "and so on " * 40 + ": {label}")
    with pytest.raises(ContextTooShort):
        METHOD(tiny("gpt2"), replace(SMALL, template=long), other=OTHER)


def test_a_task_without_items():
    with pytest.raises(EmptySplit):
        Task(name="t", items=(), source="s")


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 0},
        {"draws": 0},
        {"form": "multiply"},
        {"scales": ()},
        {"scales": (1.0, 1.0), "form": "add"},
        {"scales": (2.0,)},
        {"development": 0},
    ],
)
def test_impossible_settings(unchecked, fields):
    with pytest.raises(InputError):
        TaskVectors(**fields)


@pytest.mark.slow
def test_a_task_vector_does_the_task(smollm2):
    own = told_apart(smollm2, task("past"))
    method = TaskVectors(draws=1, development=6, queries=16, layers=(10, 20, 28))
    found = method(smollm2, own)
    gains = found.comparisons("said").set_index("against")
    assert found.chosen[1] == 20
    assert (gains.loc[["zero-shot", "random direction", "vector of plural"], "low"] > 0).all()
