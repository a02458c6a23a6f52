"""Effects of heads are those of a hook by hand; a planted head is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit import load
from labkit.errors import InputError, LayerOutOfRange, NotDecomposable, PoolTooSmall
from labkit.icl import Item, Task, prompt_ids, task, told_apart
from labkit.icl.inside.effects_of_heads import head_effects, last_heads, written
from labkit.icl.inside.function_vector_result import FunctionVectorResult
from labkit.icl.inside.function_vectors import FunctionVectors
from labkit.icl.inside.vectors import Labels, LastPositions, parted
from labkit.running.activations import capture
from tests.reference import shows

TEXTS = ("it is", "one of the other things", "the sun and the moon")
WORDS = "rain sun moon red blue day night sea land fire ice wind".split()
SMALL = Task(
    name="small",
    items=tuple(Item(input=WORDS[i], label=("of", "in")[i % 2]) for i in range(12)),
    source="s",
)
METHOD = FunctionVectors(
    k=3, heads=2, prompts=4, draws=2, development=2, queries=3, scales=(1.0, 2.0)
)


def asked_of(model):
    """Some prompts, and labels for them."""
    return LastPositions(model, prompt_ids(model, TEXTS)), Labels.of(model, SMALL, SMALL.items[:3])


@torch.no_grad()
def by_hand(model, ids, layer, head, output):
    """Logits of Hugging Face's model on one prompt, one head's output replaced by torch's hook."""

    def put(module, args):
        own = args[0].clone()
        own[:, -1, head * model.d_head : (head + 1) * model.d_head] = output
        return (own, *args[1:])

    handle = model.site("head_out", layer)[0].register_forward_pre_hook(put)
    try:
        return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    finally:
        handle.remove()


def test_effects_are_those_of_one_hook_at_a_time(exact):
    model = exact
    asked, labels = asked_of(model)
    shape = (model.n_layers, model.n_heads, model.d_head)
    outputs = torch.randn(shape, generator=torch.manual_seed(0), dtype=torch.float64)
    found = head_effects(model, asked, labels, outputs)
    for row, ids in enumerate(prompt_ids(model, TEXTS)):
        right = labels.first[labels.gold[row]]
        with torch.no_grad():
            before = model.hf(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)[right]
        for layer in range(model.n_layers):
            for head in range(model.n_heads):
                logits = by_hand(model, ids, layer, head, outputs[layer, head])
                expected = logits.softmax(-1)[right] - before
                assert found[row, layer, head].item() == pytest.approx(expected.item(), abs=1e-8)


def test_in_small_portions_too(tiny):
    model = tiny("llama", "float64")
    asked, labels = asked_of(model)
    outputs = torch.ones(model.n_layers, model.n_heads, model.d_head, dtype=torch.float64)
    whole = head_effects(model, asked, labels, outputs)
    parts = head_effects(model, asked, labels, outputs, memory=1)
    torch.testing.assert_close(whole, parts, atol=1e-10, rtol=0)


def test_a_heads_own_output_changes_nothing_and_a_planted_one_is_found(model):
    """All heads keep their own output but one, which is made to write the answer."""
    ids = prompt_ids(model, TEXTS[:1])
    asked, labels = LastPositions(model, ids), Labels.of(model, SMALL, SMALL.items[:1])
    outputs = last_heads(model, ids)[0]
    assert head_effects(model, asked, labels, outputs).abs().max() < 1e-6
    planted = (model.n_layers - 1, model.n_heads - 2)
    answer = model.unembed.weight[labels.first[labels.gold[0]]].detach()
    alone = torch.zeros_like(outputs).requires_grad_()
    with torch.enable_grad():
        proj, _ = model.site("head_out", planted[0])
        flat = torch.block_diag(*alone[planted[0]])[planted[1]]
        (pull,) = torch.autograd.grad((proj(flat) * answer).sum(), alone)
    outputs = outputs.clone()
    outputs[planted] += 20 * pull[planted] / pull[planted].norm()
    found = head_effects(model, asked, labels, outputs)[0]
    assert divmod(int(found.argmax()), model.n_heads) == planted
    found[planted] = 0
    assert found.abs().max() < 1e-6


def test_what_heads_write_is_what_attention_adds(model):
    ids = prompt_ids(model, TEXTS[:1])
    with capture(model, ["attn_out"]) as seen:
        LastPositions(model, ids)
    parts = written(model, last_heads(model, ids)[0])
    for layer in range(model.n_layers):
        proj, _ = model.site("head_out", layer)
        bias = proj(torch.zeros(model.n_heads * model.d_head))
        expected = seen["attn_out", layer][0, -1]
        torch.testing.assert_close(parts[layer].sum(dim=0) + bias, expected, atol=1e-5, rtol=1e-4)


def test_the_only_head_that_writes_is_the_one_that_is_found():
    """Through the whole method: every other head's part of the projection is zero."""
    model = load("random-llama")
    layer, head = 0, 1
    own = slice(head * model.d_head, (head + 1) * model.d_head)
    found = []
    for sign in (1, -1):  # one of the two pushes towards right labels
        for number in range(model.n_layers):
            weight = model.site("head_out", number)[0].weight.data
            kept = sign * weight[:, own].clone() * (number == layer)
            weight.zero_()
            weight[:, own] = kept
        result = replace(METHOD, heads=1)(model, SMALL)
        others = result.effects.copy()
        others[:, layer, head] = 0
        assert np.abs(others).max() < 1e-7 < np.abs(result.effects[:, layer, head]).max()
        found.append(result.heads[0])
    assert (layer, head) in found


@pytest.fixture(scope="module")
def found(pocket):
    return replace(METHOD, queries=8)(pocket, task("country_continent", pocket))


def test_the_vector_is_the_sum_of_the_strongest_heads(pocket, found):
    own = task("country_continent", pocket)
    method = replace(METHOD, queries=8)
    _, _, pool = parted(own, 2, 8, 4, seed=0)
    clean, _ = method.drawn(pocket, own, pool, "mean outputs", permuted=False)
    means = written(pocket, last_heads(pocket, clean).mean(dim=0))
    effects = found.effects.mean(axis=0)
    best = np.dstack(np.unravel_index(np.argsort(-effects.ravel()), effects.shape))[0][:2]
    assert [tuple(cell) for cell in best] == list(found.heads)
    expected = sum(means[layer, head] for layer, head in best)
    torch.testing.assert_close(torch.tensor(found.directions[0, 0]), expected, atol=1e-5, rtol=1e-4)
    frame = found.heads_frame()
    assert frame["chosen"].sum() == 2 and frame["chosen"].head(2).all()


def test_placebos_have_the_norm_and_none_of_the_heads(tiny):
    outputs = torch.randn(8, 64, generator=torch.manual_seed(0))
    own, left = outputs[:2].sum(dim=0), torch.arange(2, 8)
    got = METHOD.placebos(SMALL, outputs, left, own)
    assert got.shape == (2, 2, 64)
    torch.testing.assert_close(got.norm(dim=-1), own.norm().expand(2, 2))
    rest = torch.linalg.lstsq(outputs[2:].T, got[0].T)
    torch.testing.assert_close(outputs[2:].T @ rest.solution, got[0].T, atol=1e-4, rtol=1e-4)


def test_placebos_are_drawn_from_heads_that_are_not_in_the_vector(tiny, monkeypatch):
    seen, own = [], FunctionVectors.placebos

    def placebos(self, task, outputs, left, vector):
        seen.append({divmod(int(cell), tiny("llama").n_heads) for cell in left})
        return own(self, task, outputs, left, vector)

    monkeypatch.setattr(FunctionVectors, "placebos", placebos)
    found = METHOD(tiny("llama"), SMALL)
    assert len(found.heads) == 2 and not seen[0] & set(found.heads)
    assert len(seen[0]) == found.effects[0].size - 2


def test_labels_are_permuted_and_queries_kept(pocket):
    own = task("country_continent", pocket)
    pool = list(own.items)
    shuffled, about = METHOD.drawn(pocket, own, pool, "x", permuted=True)
    clean, same = METHOD.drawn(pocket, own, pool, "x", permuted=False)
    assert about == same and shuffled != clean
    assert all(sorted(a) == sorted(b) for a, b in zip(shuffled, clean, strict=True))


def test_the_same_seed_gives_the_same_table_and_another_another(pocket, found, tmp_path):
    own, method = task("country_continent", pocket), replace(METHOD, queries=8)
    assert method(pocket, own).to_frame().equals(found.to_frame())
    assert not replace(method, seed=1)(pocket, own).to_frame().equals(found.to_frame())
    found.save(tmp_path / "r")
    loaded = FunctionVectorResult.load(tmp_path / "r")
    assert loaded.heads_frame().equals(found.heads_frame()) and loaded.title == found.title
    said = found.to_frame().query("reading == 'said'")
    assert shows(found.figure(), said[said["scale"] == found.chosen[0]]["mean"])
    assert shows(found.figure_scales(), said[said["vector"] == "function vector"]["mean"])
    assert shows(found.figure_heads(), found.effects.mean(axis=0).ravel())


def test_without_the_vector_is_without(found):
    """The placebo and the vector leave zero-shot and k-shot alone, and differ among themselves."""
    assert found.readings.shape[1:5] == (3, 2, 6, 2)
    vector = found.readings[:, 0]
    assert np.array_equal(vector[:, :, :, 0], vector[:, :, :, 1])
    assert not np.array_equal(found.readings[2, 0], found.readings[2, 1])
    assert len(found.vocabulary()) == 1


def test_heads_are_looked_for_in_every_layer_wherever_the_vector_is_put(tiny):
    found = replace(METHOD, layers=(2, 0))(tiny("llama"), SMALL)
    every = METHOD(tiny("llama"), SMALL)
    assert np.array_equal(found.effects, every.effects) and found.chosen[1] in (0, 2)
    np.testing.assert_allclose(found.readings, every.readings[:, :, :, [2, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"k": 10}, PoolTooSmall),
        ({"layers": (99,)}, LayerOutOfRange),
        ({"heads": 1000}, InputError),
    ],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, fields, error):
    with pytest.raises(error):
        replace(METHOD, **fields)(tiny("llama"), SMALL)


def test_heads_behind_a_norm_have_no_vector_of_their_own(tiny):
    model = tiny("llama")
    normed = replace(model, anatomy=replace(model.anatomy, attn_post="norm"))
    with pytest.raises(NotDecomposable):
        METHOD(normed, SMALL)


@pytest.mark.parametrize(
    "fields", [{"k": 1}, {"heads": 0}, {"prompts": 0}, {"scales": ()}, {"scales": (1.0, 1.0)}]
)
def test_impossible_settings(fields):
    with pytest.raises(InputError):
        FunctionVectors(**fields)


@pytest.mark.slow
def test_a_function_vector_does_the_task(smollm2):
    own = told_apart(smollm2, task("past"))
    method = FunctionVectors(
        k=6, prompts=6, draws=1, development=3, queries=12, scales=(2.0,), layers=(19,)
    )
    found = method(smollm2, own)
    gains = found.comparisons("said").set_index("against")
    assert (gains.loc[["zero-shot", "random heads", "random direction"], "low"] > 0).all()
