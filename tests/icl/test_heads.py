"""A hand-built induction circuit is found, and copies no more once it is switched off."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.errors import ContextTooShort, InputError, PoolTooSmall
from labkit.icl import HeadAblation, HeadAblationResult, Item, Task
from labkit.icl.inside.ablating import (
    mean_outputs,
    repeated_tokens,
    switched_off,
    token_losses,
    windows,
)
from labkit.locate.attention.head_kinds import HeadScores
from labkit.running.activations import patched
from tests.icl.by_hand import induction_circuit
from tests.reference import full_logits, inputs_of, random_batch

QUICK = {"length": 20, "sequences": 6, "window": 64, "documents": 3, "draws": 3}


@pytest.fixture(scope="module")
def circuit():
    return induction_circuit()


@pytest.fixture(scope="module")
def ablated(circuit, corpus):
    return HeadAblation(top=1, **QUICK)(circuit, corpus=corpus)


def test_the_circuit_is_found(ablated):
    assert {kind: sets[0] for kind, sets in ablated.sets.items()} == {
        "induction": ((1, 2),),
        "previous token": ((0, 1),),
        "all of them": ((1, 2), (0, 1)),
    }
    frame = ablated.heads_frame()
    assert frame.loc[frame["off"], "mean"].min() > 0.8
    assert frame.loc[~frame["off"], "mean"].max() < 0.3


@pytest.mark.parametrize("instead", ["mean", "zero"])
def test_switching_the_circuit_off_destroys_copying_and_random_heads_do_not(
    circuit, corpus, ablated, instead
):
    if instead == "zero":
        ablated = HeadAblation(top=1, instead="zero", **QUICK)(circuit, corpus=corpus)
    for heads in ablated.sets:
        row = ablated.row("score", "repeated tokens", heads)
        assert row["intact"] < -4  # nats per token: it copies
        assert abs(row["mean"]) < 0.2 * abs(row["intact"])  # little is left of it
        assert max(abs(row[name]) for name in ("random", "least", "most")) < 0.1
        assert row["beyond_low"] > 3


# --- what it is made of -------------------------------------------------------------------


@torch.no_grad()
def test_a_head_that_is_zero_is_a_head_that_nothing_reads(model):
    """The same as zeros in the rows of the output projection that read it."""
    batch, (layer, head) = random_batch(model, 9, 6), (1, 2)
    width = model.d_head
    zeros = torch.zeros(model.n_layers, model.n_heads, width)
    with patched(model, switched_off(model, [(layer, head)], zeros)):
        found = full_logits(model, batch)
    clean = full_logits(model, batch)
    projection = model.site("head_out", layer)[0]
    weight = projection.weight
    before = weight.clone()
    rows = weight.T if isinstance(projection, torch.nn.Linear) else weight
    try:
        rows[head * width : (head + 1) * width] = 0
        expected = full_logits(model, batch)
    finally:
        weight.copy_(before)
    there = batch.mask
    torch.testing.assert_close(found[there], expected[there], rtol=0, atol=1e-5)
    assert (found - clean)[there].abs().max() > 1e-3


@torch.no_grad()
def test_a_mean_stands_in_the_heads_place_alone(model):
    ids, batch = random_batch(model, 12, 12, 12).ids, random_batch(model, 7)
    projection, width = model.site("head_out", 1)[0], model.d_head
    with inputs_of(projection) as seen:
        outputs = mean_outputs(model, ids, memory=1)  # one text at a time
        full_logits(model, batch)
    texts, clean = torch.cat(seen[:3]), seen[3]
    expected = texts[:, 1:].mean(dim=(0, 1)).unflatten(0, (model.n_heads, width))
    torch.testing.assert_close(outputs[1], expected, rtol=0, atol=1e-5)
    off = switched_off(model, [(1, 2), (2, 0)], outputs)
    with patched(model, off), inputs_of(projection) as seen:
        full_logits(model, batch)
    by_head, was = (own.unflatten(-1, (model.n_heads, width)) for own in (seen[0], clean))
    assert torch.equal(by_head[:, :, 2], outputs[1, 2].expand(1, 7, -1))
    others = [0, 1, 3]
    torch.testing.assert_close(by_head[:, :, others], was[:, :, others], rtol=0, atol=1e-6)


def test_losses_are_those_of_hugging_face(model):
    ids = random_batch(model, 9, 9).ids
    expected = [model.hf(input_ids=row[None], labels=row[None]).loss.item() for row in ids]
    assert token_losses(model, ids).mean(axis=1) == pytest.approx(expected, abs=1e-5)
    assert token_losses(model, ids, memory=1) == pytest.approx(token_losses(model, ids), abs=1e-5)


def test_repeated_tokens_and_texts(tiny, corpus):
    model = tiny("llama")
    ids = repeated_tokens(model, 10, 4, seed=0)
    assert ids.shape == (4, 21) and (ids[:, 0] == model.tokenizer.bos_token_id).all()
    assert torch.equal(ids[:, 1:11], ids[:, 11:])
    assert all(len(set(row.tolist())) == 11 for row in ids)
    texts = windows(model, corpus, 50, 6, seed=0)
    assert texts.shape == (6, 50) and len({tuple(row.tolist()) for row in texts}) == 6
    decoded = [model.tokenizer.decode(row[1:]) for row in texts]
    assert all(any(document.startswith(text) for document in corpus.documents) for text in decoded)
    with pytest.raises(ContextTooShort, match="texts of 200 tokens"):
        windows(model, corpus, 200, 10_000, seed=0)


# --- the whole, on tasks ------------------------------------------------------------------


def own_task(name="even", n=12):
    items = tuple(Item(input=f"is {i}", label=" in" if i % 2 else " of") for i in range(n))
    return Task(name=name, items=items, source="s")


METHOD = HeadAblation(top=1, k=2, sets=2, queries=5, **(QUICK | {"draws": 2}))


QUICKEST = replace(METHOD, kinds=("induction",), draws=1, sequences=2, documents=1, queries=2)


def test_every_family(model, corpus):
    frame = QUICKEST(model, [own_task()], corpus=corpus).to_frame()
    assert set(frame["measure"]) == {
        "score", "loss", "accuracy", "log P(label)", "gain of accuracy", "gain of log P(label)",
    }  # fmt: skip
    numbers = frame.select_dtypes("number")
    ends = [column for column in numbers if column.split("_")[-1] in ("low", "high")]
    assert np.isfinite(numbers.drop(columns=ends).to_numpy()).all()
    assert len(ends) == 8 and numbers["change_low"].notna().any()  # not where two units agree


def test_the_same_seed_gives_the_same_table(tiny, corpus, tmp_path):
    model = tiny("llama")
    found = QUICKEST(model, [own_task()], corpus=corpus)
    frame = found.to_frame()
    assert QUICKEST(model, [own_task()], corpus=corpus).to_frame().equals(frame)
    other = replace(QUICKEST, seed=1)(model, [own_task()], corpus=corpus)
    assert not other.to_frame().equals(frame)
    found.save(tmp_path / "r")
    loaded = HeadAblationResult.load(tmp_path / "r")
    assert loaded.to_frame().equals(frame) and loaded.title == found.title
    for figure in (loaded.figure(), loaded.figure_heads(), loaded.figure_loss("text")):
        assert figure.data


def test_numbers_follow_from_the_runs(tiny, corpus):
    """One set of heads by hand: the same tasks, asked inside the same patch."""
    model = tiny("llama")
    found = METHOD(model, [own_task()], corpus=corpus)
    (head,) = found.sets["induction"][1]
    texts = windows(model, corpus, 64, 6, seed=0)
    outputs = mean_outputs(model, texts[3:])
    with patched(model, switched_off(model, [head], outputs)):
        asked = METHOD.demonstrations(model, own_task())
        losses = token_losses(model, repeated_tokens(model, 20, 6, seed=0))
    cases = found.cases[(found.cases["heads"] == "induction") & (found.cases["draw"] == 1)]
    own = cases[(cases["measure"] == "accuracy") & (cases["k"] == 2)]["value"]
    assert own.tolist() == asked.values("accuracy")[0, 1].mean(axis=0).tolist()
    score = cases[(cases["measure"] == "score") & (cases["on"] == "repeated tokens")]["value"]
    # The BOS comes first: losses 1..19 are those of the first copy but for its first token.
    assert score.to_numpy() == pytest.approx(losses[:, 21:].mean(1) - losses[:, 1:20].mean(1))


def test_random_heads_are_of_the_same_layers_and_none_of_those_found(tiny):
    scores = np.zeros((2, 1, 3, 4))
    for kind, layer, head in ((0, 1, 0), (0, 1, 1), (1, 1, 2), (1, 0, 3)):
        scores[kind, 0, layer, head] = 1 - 0.1 * head
    found = HeadScores(
        kinds=("induction", "previous token"), scores=scores, control=scores, chance=(0.0, 0.0),
        length=2, model="m", fingerprint="f", seed=0,
    )  # fmt: skip
    sets = HeadAblation(top=2, draws=20).heads(tiny("llama"), found)
    every = {(1, 0), (1, 1), (1, 2), (0, 3)}
    assert set(sets["all of them"][0]) == every
    assert all(len(set(heads)) == len(heads) for own in sets.values() for heads in own)
    assert not every & {head for own in sets.values() for heads in own[1:] for head in heads}
    for heads in sets["previous token"][1:]:
        assert sorted(layer for layer, _ in heads) == [0, 1]
    # Layer 1 has one head left: the second random one is of a layer beside it.
    assert all({(1, 3)} < set(heads) for heads in sets["induction"][1:])
    assert len(set(sets["induction"][1:])) > 1


def test_the_tokens_of_the_test_are_not_those_that_found_the_heads(tiny, monkeypatch):
    from labkit.locate.attention import head_kinds

    model, seen = tiny("llama"), []
    own = head_kinds.run_with_cache
    monkeypatch.setattr(
        head_kinds, "run_with_cache", lambda model, batch: seen.append(batch) or own(model, batch)
    )
    head_kinds.head_scores(model, length=20, seed=0)
    tested = {tuple(row) for row in repeated_tokens(model, 20, 12, seed=0).tolist()}
    assert len(seen) == 2 and not tested & {tuple(row) for row in seen[0].ids.tolist()}


@pytest.mark.parametrize(
    ("fields", "tasks", "error"),
    [
        ({"top": 4}, [], InputError),
        ({"k": 12}, [own_task()], PoolTooSmall),
        ({"k": 30}, [own_task(n=40)], ContextTooShort),
        ({}, [own_task(), own_task()], InputError),
        ({"documents": 10_000}, [], ContextTooShort),
        ({"length": 200}, [], InputError),
    ],
)
def test_bad_input_is_refused_before_any_forward(tiny, corpus, no_forward, fields, tasks, error):
    model = tiny("llama")
    with pytest.raises(error):
        replace(METHOD, **fields)(model, tasks, corpus=corpus)


@pytest.mark.parametrize(
    "fields",
    [
        {"kinds": ()},
        {"kinds": ("copying",)},
        {"kinds": ("induction", "induction")},
        {"instead": "noise"},
        {"top": 0},
        {"draws": 0},
        {"length": 1},
        {"window": 5},
        {"queries": 0},
    ],
)
def test_impossible_settings(fields, unchecked):
    with pytest.raises(InputError):
        HeadAblation(**fields)


def test_what_was_not_measured_is_named(ablated):
    for ask in (
        lambda: ablated.row("score", "text", "duplicate token"),
        lambda: ablated.losses("x"),
    ):
        with pytest.raises(InputError):
            ask()


@pytest.mark.slow
def test_induction_heads_of_smollm2_carry_copying(smollm2):
    method = HeadAblation(
        kinds=("induction",), draws=1, sequences=3, documents=1, window=24, length=20
    )
    row = method(smollm2).row("score", "repeated tokens", "induction")
    assert row["intact"] < -5 and row["change_low"] > 4 * max(row["random"], 0.1)
