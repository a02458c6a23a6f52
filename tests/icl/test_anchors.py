"""Shares sum to one; blocked edges are those of a mask by hand; saliency is a gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.errors import AmbiguousLabels, ContextTooShort, InputError, PoolTooSmall
from labkit.icl import Anchors, AnchorsResult, Item, Shot, Task, Template, render
from labkit.icl.inside.anchor_edges import (
    EDGES,
    PARTS,
    BlockedRuns,
    Cut,
    attention_and_saliency,
    cut_of,
    front_length,
    parts_of,
    random_cut,
)
from labkit.icl.inside.anchors import reading, windows_of
from labkit.running.forwards import accepts
from tests.icl.by_hand import by_mask, whole

N_HEADS, ANSWERS = 4, (7, 11, 30)
SHOTS = [Shot(input="cat is", label="of"), Shot(input="dog", label="the the")]
TEMPLATE = Template(demonstration="Q: {input} A: {label}", separator=". ", instruction="Say it.")


def prompts_of(model, queries=("on the", "cow", "a thing")):
    return [render(model, TEMPLATE, SHOTS, query) for query in queries]


@pytest.mark.parametrize("edges", EDGES)
def test_blocked_edges_are_those_of_a_mask_by_hand(model, edges):
    """In all layers, for every query, from labels and from the query; and random ones alike."""
    prompts = prompts_of(model)
    runs = BlockedRuns(model, prompts, ANSWERS)
    draw = np.random.default_rng(0)
    for cut in (cut_of(edges, prompts[0], runs.n), random_cut(edges, prompts[0], runs.n, draw)):
        if cut is None:
            assert edges == "query to all before"
            continue
        found, clean = runs.blocked(cut, 0, model.n_layers), runs.clean()
        for row, own, prompt in zip(found, clean, prompts, strict=True):
            expected = by_mask(model, prompt.ids, whole(cut, runs.n, len(prompt.ids)))
            torch.testing.assert_close(row, expected[list(ANSWERS)], rtol=0, atol=2e-5)
            none = by_mask(model, prompt.ids, np.zeros((len(prompt.ids),) * 2, dtype=bool))
            torch.testing.assert_close(own, none[list(ANSWERS)], rtol=0, atol=2e-5)
        assert (found - clean).abs().max() > 1e-4


def test_without_edges_to_the_front_it_is_as_if_it_were_padding(model):
    """Everything before the query blocked in every layer = an attention mask of zeros there."""
    prompts = prompts_of(model)
    runs = BlockedRuns(model, prompts, ANSWERS)
    cut = Cut.nothing(runs.n)
    cut.query[:] = True
    found = runs.blocked(cut, 0, model.n_layers)
    for row, prompt in zip(found, prompts, strict=True):
        ids = torch.tensor([prompt.ids])
        mask = torch.ones_like(ids)
        mask[:, : runs.n] = 0
        inputs = {"attention_mask": mask, "use_cache": False}
        if accepts(model.hf, "position_ids"):
            inputs["position_ids"] = torch.arange(ids.shape[1])[None]
        with torch.no_grad():
            logits = model.hf(ids, **inputs).logits[0, -1]
        expected = logits.double().log_softmax(dim=-1)[list(ANSWERS)]
        torch.testing.assert_close(row, expected, rtol=0, atol=2e-5)


def test_windows_block_their_layers_alone(model):
    """Blocked in no layer: nothing. In all but the last, and then in it: not the same."""
    prompts = prompts_of(model)
    runs = BlockedRuns(model, prompts, ANSWERS)
    for edges in ("query to labels", "labels to own input"):
        cut = cut_of(edges, prompts[0], runs.n)
        torch.testing.assert_close(runs.blocked(cut, 1, 1), runs.clean(), rtol=0, atol=1e-5)
        last = model.n_layers - 1
        late, every = runs.blocked(cut, last, last + 1), runs.blocked(cut, 0, last + 1)
        if edges.startswith("labels"):  # what labels gather in the last layer, nobody reads
            torch.testing.assert_close(late, runs.clean(), rtol=0, atol=1e-5)
        assert (every - late).abs().max() > 1e-4
    assert windows_of(30, 3) == ((0, 10), (10, 20), (20, 30), (0, 30))
    assert windows_of(3, 8) == ((0, 1), (1, 2), (2, 3), (0, 3))
    assert windows_of(6, 1) == ((0, 6),)


def test_one_window_is_a_mask_in_its_layers(tiny):
    """Layer 1 alone, by hooks on the scores of the bridge."""
    model = tiny("llama")
    prompts = prompts_of(model)
    runs = BlockedRuns(model, prompts, ANSWERS)
    for edges in ("query to inputs", "labels to all before"):
        cut = cut_of(edges, prompts[0], runs.n)
        found = runs.blocked(cut, 1, 2)
        for row, prompt in zip(found, prompts, strict=True):
            blocked = torch.from_numpy(whole(cut, runs.n, len(prompt.ids)))

            def cut_out(scores, hook, where=blocked):
                return scores.masked_fill(where, -torch.inf)

            with torch.no_grad():
                logits = model.bridge.run_with_hooks(
                    torch.tensor([prompt.ids]),
                    fwd_hooks=[("blocks.1.attn.hook_attn_scores", cut_out)],
                )
            expected = logits[0, -1].double().log_softmax(dim=-1)[list(ANSWERS)]
            torch.testing.assert_close(row, expected, rtol=0, atol=2e-5)


# --- which edges --------------------------------------------------------------------------


def test_parts_and_edges_are_those_of_the_spans(tiny):
    model = tiny("llama")
    prompt = prompts_of(model)[0]
    n = front_length(prompts_of(model))
    parts = [PARTS[part] for part in parts_of(prompt)]
    text = [model.tokenizer.decode([token]) for token in prompt.ids]
    said = {
        name: "".join(t for t, p in zip(text, parts, strict=True) if p == name) for name in PARTS
    }
    assert said["labels"].split() == ["of", "the", "the"] and parts[0] == "first token"
    assert said["inputs"].replace(" ", "") == "catisdog"
    assert said["query"].strip() == "Q: on the A:" and n == prompt.query.start
    of_labels = [pos for pos, part in enumerate(parts) if part == "labels"]
    assert np.flatnonzero(cut_of("query to labels", prompt, n).query).tolist() == of_labels
    own, everything = (
        cut_of(f"labels to {to}", prompt, n).front for to in ("own input", "all before")
    )
    for shot in prompt.shots:
        for row in shot.label:
            assert np.flatnonzero(own[row]).tolist() == list(shot.input)
            assert np.flatnonzero(everything[row]).tolist() == list(range(1, shot.label.start))
    assert own.any(axis=1).sum() == everything.any(axis=1).sum() == len(of_labels)


@pytest.mark.parametrize("edges", EDGES)
def test_random_edges_are_others_and_as_many(tiny, edges):
    prompt = prompts_of(tiny("llama"))[0]
    n = prompt.query.start
    real = cut_of(edges, prompt, n)
    drawn = [random_cut(edges, prompt, n, np.random.default_rng(seed)) for seed in range(12)]
    if edges == "query to all before":
        assert drawn == [None] * 12
        return
    assert len({cut.front.tobytes() + cut.query.tobytes() for cut in drawn}) > 1
    labels = np.flatnonzero(parts_of(prompt) == PARTS.index("labels"))
    for cut in drawn:
        assert not cut.query[labels].any()
        if edges != "labels to all before":
            assert not cut.front[:, labels].any()
        assert not (cut.query & real.query).any() and not cut.query[0]
        assert not (cut.front & real.front).any() and not cut.front[:, 0].any()
        assert not np.triu(cut.front).any()
        if edges == "labels to own input":
            assert (cut.front.any(axis=1) == real.front.any(axis=1)).all()
            assert (cut.front.sum(axis=1) <= real.front.sum(axis=1)).all()
        elif edges == "query to inputs":
            assert cut.query.sum() == min(real.query.sum(), n - 1 - real.query.sum() - len(labels))
        else:
            assert cut.query.sum() == real.query.sum()
            assert cut.front.any(axis=1).sum() == real.front.any(axis=1).sum()


# --- attention and saliency ---------------------------------------------------------------


def test_shares_of_attention_sum_to_one(model):
    shares, of_labels, saliency, last = reading(model, prompts_of(model)[0], 7)
    for own in (shares, of_labels):
        assert own.min() >= 0 and own.sum(axis=-1) == pytest.approx(1.0, abs=1e-5)
    assert saliency.shape == (model.n_layers, 3) and saliency.min() >= 0 < saliency[:, 1:].min()
    expected = model.bridge.run_with_cache(torch.tensor([prompts_of(model)[0].ids]))[1]
    assert last[1] == pytest.approx(expected["pattern", 1][0, :, -1].numpy(), abs=1e-5)


def test_saliency_is_the_gradient_that_a_mask_has(model):
    """Of scores S = mask + ..., dL/dS = A (G - sum_k A G), G = dL/dA; summed over layers.

    The left side is the gradient of an additive mask in Hugging Face's own model. With the
    saliency's A and G taken apart here, head by head.
    """
    prompt = prompts_of(model)[0]
    n, answer = len(prompt.ids), 7
    future = torch.full((n, n), -1e9).triu(1)
    mask = future.expand(1, N_HEADS, n, n).clone().requires_grad_()
    out = model.hf(torch.tensor([prompt.ids]), attention_mask=mask, use_cache=False)
    loss = -out.logits[0, -1].log_softmax(dim=-1)[answer]
    (expected,) = torch.autograd.grad(loss, mask)
    kept = {}

    def keep(layer):
        return lambda pattern, hook: kept.update({layer: pattern}) or pattern

    hooks = [(f"blocks.{layer}.attn.hook_pattern", keep(layer)) for layer in range(model.n_layers)]
    hooks += [("hook_embed", lambda embed, hook: embed.detach().requires_grad_())]
    logits = model.bridge.run_with_hooks(torch.tensor([prompt.ids]), fwd_hooks=hooks)[0, -1]
    patterns = [kept[layer] for layer in range(model.n_layers)]
    grads = torch.autograd.grad(-logits.log_softmax(dim=-1)[answer], patterns)
    products = [a * g for a, g in zip(patterns, grads, strict=True)]
    scores = sum(
        product - a * product.sum(dim=-1, keepdim=True)
        for a, product in zip(patterns, products, strict=True)
    )
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-5)
    _, saliency = attention_and_saliency(model, prompt.ids, answer)
    own = torch.stack([product[0].sum(dim=0).abs() for product in products]).double()
    torch.testing.assert_close(saliency, own.detach(), rtol=1e-4, atol=1e-6)


# --- the whole ----------------------------------------------------------------------------


def own_task(n=14, labels=("of", "in")):
    items = tuple(Item(input=f"is {i}", label=labels[i % len(labels)]) for i in range(n))
    return Task(name="even", items=items, source="s")


METHOD = Anchors(k=2, sets=2, queries=4, read=2, windows=2, edges=EDGES[:3])


def test_every_family(model):
    found = METHOD(model, own_task())
    frame = found.to_frame()
    assert len(frame) == 2 * 3 * len(found.windows)
    every = frame["edges"] == "query to all before"
    assert frame.loc[every, "random"].isna().all() and frame.loc[~every, "p_holm"].notna().all()
    assert np.isfinite(found.clean).all() and (found.n_edges[:, 0] > 0).all()


def test_the_same_seed_gives_the_same_table(tiny, tmp_path):
    model = tiny("llama")
    method = replace(METHOD, edges=EDGES[1:3])
    found = method(model, own_task())
    frame = found.to_frame()
    assert method(model, own_task()).to_frame().equals(frame)
    assert not replace(method, seed=1)(model, own_task()).to_frame().equals(frame)
    found.save(tmp_path / "r")
    loaded = AnchorsResult.load(tmp_path / "r")
    assert loaded.to_frame().equals(frame) and loaded.title == found.title
    for figure in (
        loaded.figure(), loaded.figure("accuracy"), loaded.figure_attention(),
        loaded.figure_attention("labels"), loaded.figure_saliency(), loaded.figure_heads(),
        loaded.figure_prompt(), loaded.figure_prompt(1),
    ):  # fmt: skip
        assert figure.data
    shares = found.attention_frame(by_head=True).groupby(["layer", "head"])["mean"].sum()
    assert shares.to_numpy() == pytest.approx(1.0, abs=1e-5)
    flows = found.saliency_frame().groupby("layer")["mean"].sum()
    assert flows.to_numpy() == pytest.approx(1.0, abs=1e-5)
    row = found.row("gold", "query to inputs", found.windows[0])
    of = found.labels.index
    right = [of(label) for label in found.gold]
    by_hand = np.exp(found.blocked[:, 0, 0, 0][:, np.arange(len(right)), right]).mean()
    assert row["mean"] == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("fields", "own", "error"),
    [
        ({"k": 14}, own_task(), PoolTooSmall),
        ({"k": 30}, own_task(60), ContextTooShort),
        ({}, own_task(labels=("the a", "the b")), AmbiguousLabels),
    ],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, fields, own, error):
    model = tiny("llama")
    with pytest.raises(error):
        replace(METHOD, **fields)(model, own)


@pytest.mark.parametrize(
    "fields", [{"k": 0}, {"sets": 0}, {"windows": 0}, {"read": 0}, {"edges": ()}, {"edges": ("x",)}]
)
def test_impossible_settings(fields):
    with pytest.raises(InputError):
        Anchors(**fields)


def test_what_was_not_measured_is_named(tiny):
    found = replace(METHOD, sets=1, queries=2, edges=EDGES[:1])(tiny("llama"), own_task())
    for ask in (
        lambda: found.row("accuracy", "query to inputs"),
        lambda: found.row("accuracy", "query to labels", (1, 3)),
        lambda: found.figure("mass"),
        lambda: found.prompt_frame(3),
    ):
        with pytest.raises(InputError):
            ask()
