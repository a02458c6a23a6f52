"""Every cell of a trace is what a hand-written hook gives in a full run of the plain model."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labkit.errors import EmptyTarget, InputError, NothingToTrace, SubjectNotFound
from labkit.facts.fact import Fact
from labkit.locate.traces.restoring import usual_window
from labkit.locate.traces.tracing import CausalTrace, TraceResult, corruption, embedding_spread
from labkit.running.activations import patched, patched_embedding
from tests.locate.tracing_by_hand import FACT, SAMPLES, ByHand, spread
from tests.reference import full_logits

KINDS = {
    "resid": {"kind": "resid"},
    "ffn": {"kind": "ffn", "window": 2},
    "attn": {"kind": "attn", "window": 3},
    "ffn, one layer": {"kind": "ffn", "window": 1},
}


@pytest.fixture(params=KINDS)
def how(request):
    return KINDS[request.param]


# --- the cells ----------------------------------------------------------------------------


@torch.no_grad()
def test_every_cell_is_a_hand_written_hook_in_a_full_run(model, how):
    result = CausalTrace(samples=SAMPLES, **how)(model, FACT)
    hand = ByHand(model, FACT, **how)
    assert result.subject_positions == tuple(range(hand.start, hand.stop))
    assert result.clean == pytest.approx(hand.probability(hand.clean_logits)[0], rel=1e-4)
    np.testing.assert_allclose(result.corrupted, hand.probability(hand.run()), rtol=1e-4)
    expected = np.empty_like(result.cells)
    for pos, layer in np.ndindex(*result.cells.shape[1:]):
        logits = hand.run([pos], hand.layers_around(layer))
        expected[:, pos, layer] = hand.probability(logits)
    np.testing.assert_allclose(result.cells, expected, rtol=1e-4)
    spread_of_cells = np.ptp(expected, axis=(1, 2)) / expected.mean(axis=(1, 2))
    assert (spread_of_cells > 0.1).all()  # they differ, so that the law says something


@torch.no_grad()
def test_restoring_every_site_is_the_clean_run_and_restoring_none_the_corrupted(model):
    hand = ByHand(model, FACT, kind="resid")
    everywhere = list(range(hand.batch.shape[1]))
    with patched_embedding(model, hand.corrupt):
        corrupted = full_logits(model, hand.batch)
        changes = {("resid_post", 1): lambda out: hand.clean[1][0]}
        with patched(model, changes):
            restored = full_logits(model, hand.batch)
    assert torch.equal(restored, hand.clean_logits)
    assert torch.equal(hand.run(everywhere, [1]), hand.clean_logits)
    assert torch.equal(hand.run(everywhere, []), corrupted)
    assert (corrupted - hand.clean_logits)[:, hand.start :].abs().amax(-1).min() > 1e-3


def test_cells_that_cannot_differ(model):
    """Before the subject nothing was corrupted; the last state of all is the whole answer."""
    result = CausalTrace(samples=SAMPLES)(model, FACT)
    before = result.cells[:, : result.subject_positions[0]]
    assert (before == result.corrupted[:, None, None]).all()
    np.testing.assert_allclose(result.cells[:, -1, -1], result.clean, rtol=1e-4)


def test_the_noise_is_three_spreads_of_what_enters_the_model(model):
    assert embedding_spread(model) == pytest.approx(spread(model).item(), rel=1e-4)
    span = model.span(FACT.prompt, FACT.subject)
    drawn = corruption(model, FACT, span, noise=3.0, samples=400, seed=0).noise
    assert drawn.std().item() == pytest.approx(3 * spread(model).item(), rel=0.05)
    assert drawn.mean().abs() < 0.1 * spread(model)


@torch.no_grad()
def test_the_answer_is_the_models_own_where_none_is_given(model):
    asked = Fact(subject="cat", template="the {} is in", object=None)
    result = CausalTrace(samples=1)(model, asked)
    top = full_logits(model, model.tokens([asked.prompt]))[0, -1].softmax(-1).max(0)
    assert result.answer == model.tokenizer.decode([int(top.indices)])
    assert result.clean == pytest.approx(top.values.item(), abs=1e-6)


# --- what the numbers do not depend on ----------------------------------------------------


def test_the_memory_bound_does_not_matter(tiny, how):
    model = tiny("gpt2")
    trace = CausalTrace(samples=SAMPLES, **how)(model, FACT)
    small = CausalTrace(samples=SAMPLES, memory=1, **how)(model, FACT)
    np.testing.assert_allclose(small.cells, trace.cells, rtol=1e-4)


def test_only_the_tokens_of_the_roles_asked_for_are_traced(tiny, how):
    model = tiny("gpt2")
    everything = CausalTrace(samples=SAMPLES, **how)(model, FACT)
    roles = ("last subject token", "last token")
    some = CausalTrace(samples=SAMPLES, roles=roles, **how)(model, FACT)
    traced = [some.subject_positions[-1], len(some.tokens) - 1]
    np.testing.assert_array_equal(some.cells[:, traced], everything.cells[:, traced])
    assert np.isnan(np.delete(some.cells, traced, axis=1)).all()
    assert set(some.to_frame()["pos"]) == set(traced)
    assert some.peak(traced) == everything.peak(traced)
    with pytest.raises(InputError):
        some.peak([0])


def test_the_seed_decides_and_nothing_else(tiny):
    model = tiny("llama")
    first = CausalTrace(samples=SAMPLES, seed=3)(model, FACT)
    CausalTrace(samples=SAMPLES, seed=3)(model, Fact.from_prompt("the dog is of", "dog"))
    again = CausalTrace(samples=SAMPLES, seed=3)(model, FACT)
    assert np.array_equal(first.cells, again.cells)
    other = CausalTrace(samples=SAMPLES, seed=4)(model, FACT)
    assert not np.isclose(other.corrupted, first.corrupted).any()
    assert other.clean == first.clean


def test_a_batch_that_grows_does_a_share_of_the_work(tiny):
    """The clean run, the corrupted one, and per cell the blocks and positions behind it.

    At the subject's first token a restored state goes on as in the clean run, so its own
    position is not run; in the last block, only the last position passes the projections that
    follow the attention scores.
    """
    model = tiny("llama")
    batch = model.tokens([FACT.prompt])
    n_positions, n_layers = batch.shape[1], model.n_layers
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.hf.base_model(batch.ids, use_cache=False)
    of_one_state = counter.get_total_flops() / (n_layers * n_positions)  # a block at a position
    block = model.blocks[0]
    before = sum(getattr(block.self_attn, name).weight.numel() for name in ("q_proj", "k_proj"))
    before += block.self_attn.v_proj.weight.numel()
    share_before = 2 * before / of_one_state
    with FlopCounterMode(display=False) as counter:
        result = CausalTrace(samples=SAMPLES)(model, FACT)
    first = result.subject_positions[0]
    states = (1 + SAMPLES) * n_layers * n_positions
    for pos in range(first, n_positions):
        positions = n_positions - pos - int(pos == first)
        last_block = share_before * positions + (1 - share_before)
        for layer in range(n_layers - 1):
            states += SAMPLES * ((n_layers - layer - 2) * positions + last_block)
    head = 2 * model.d_model * model.d_vocab
    reads = 1 + SAMPLES * (1 + n_layers * (n_positions - first))
    predicted = states * of_one_state + reads * head
    assert counter.get_total_flops() == pytest.approx(predicted, rel=0.03)


# --- the result ---------------------------------------------------------------------------


def result_of(cells, corrupted, clean=0.9):
    cells = np.asarray(cells, dtype=np.float32)
    return TraceResult(
        prompt="a b c",
        subject="b",
        answer=" d",
        tokens=("a", " b", " c"),
        subject_positions=(1,),
        kind="resid",
        clean=clean,
        corrupted=np.asarray(corrupted, dtype=np.float32),
        cells=cells,
        model="by hand",
        fingerprint="0" * 64,
        config={},
    )


def test_effects_are_differences_with_intervals_over_draws():
    cells = np.full((3, 3, 2), 0.1)
    cells[:, 1, 1] = [0.5, 0.6, 0.7]
    cells[:, 2, 1] = 0.9
    result = result_of(cells, [0.1, 0.2, 0.3])
    effect = result.indirect_effect(1, 1)  # 0.4 in every draw: paired, so no spread
    assert effect.mean == pytest.approx(0.4, abs=1e-6) and not effect.has_interval
    total = result.total_effect
    half = 1.5 * 4.302653 * 0.1 / 3**0.5  # Student's t with 2 degrees of freedom, stretched
    assert (total.mean, total.low) == pytest.approx((0.7, 0.7 - half), abs=1e-6)
    assert total.high == 1 < 0.7 + half  # a difference of probabilities
    assert effect.n == total.n == 3
    assert result.peak() == (1, 1)
    assert result.peak([0, 1, 2]) == (2, 1)


def test_the_table_has_one_row_a_cell():
    cells = np.array([[[0.0, 0.2], [0.5, 0.9], [1.0, 0.1]]] * 2)
    cells[:, 1, 1] += [-0.05, 0.05]
    result = result_of(cells, [0.0, 0.1])
    frame = result.to_frame()
    assert frame.columns.tolist() == "pos token layer in_subject mean low high".split()
    row = frame.query("pos == 1 and layer == 1").iloc[0]
    assert (row.token, row.in_subject) == (" b", True)
    assert row["mean"] == pytest.approx(0.9)
    assert len(frame) == 6 and frame.in_subject.sum() == 2
    assert 0 <= row.low < row["mean"] < row.high == 1
    assert frame.drop(index=row.name)[["low", "high"]].isna().all(axis=None)  # equal draws


def test_a_trace_comes_back_as_it_was_saved(tiny, tmp_path):
    result = CausalTrace(samples=SAMPLES, kind="ffn")(tiny("gptj"), FACT)
    again = TraceResult.load(result.save(tmp_path / "trace"))
    assert np.array_equal(again.cells, result.cells)
    assert np.array_equal(again.corrupted, result.corrupted)
    pd.testing.assert_frame_equal(again.to_frame(), result.to_frame())
    for field in ("prompt", "answer", "tokens", "subject_positions", "clean", "fingerprint"):
        assert getattr(again, field) == getattr(result, field)
    assert again.config["window"] is None and again.config["samples"] == SAMPLES


# --- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "mlp"},
        {"noise": 0.0},
        {"noise": float("nan")},
        {"samples": 0},
        {"window": 2},
        {"kind": "ffn", "window": 0},
        {"severed": "resid"},
        {"roles": ()},
        {"roles": ("subject",)},
    ],
)
def test_a_trace_that_means_nothing_is_refused(wrong, unchecked):
    with pytest.raises(InputError):
        CausalTrace(**wrong)


@pytest.mark.parametrize(("prompt", "subject"), [("the", "the"), ("the cat", "the cat")])
def test_a_prompt_that_asks_nothing_about_its_subject_is_refused(tiny, prompt, subject):
    for family in ("llama", "gemma"):  # with and without a BOS in front
        with pytest.raises(NothingToTrace):
            CausalTrace(samples=1)(tiny(family), Fact.from_prompt(prompt, subject))


def test_nothing_to_trace_is_refused(tiny):
    model, trace = tiny("llama"), CausalTrace(samples=1)
    with pytest.raises(SubjectNotFound):
        trace(model, Fact.from_prompt("the cat is in", "dog"))
    with pytest.raises(EmptyTarget):
        Fact(subject="cat", template="the {} is in", object=" ")


# --- the model that knows -----------------------------------------------------------------


def test_in_the_pocket_model_the_subject_carries_the_fact(pocket):
    from labkit import pocket as world

    fact = world.facts()[0]
    result = CausalTrace(samples=4)(pocket, fact)
    assert result.clean > 0.5 > result.corrupted.mean()
    pos, layer = result.peak()
    assert pos in result.subject_positions
    assert result.indirect_effect(pos, layer).low > 0


def test_the_usual_window_is_the_papers_or_a_third_of_the_layers(tiny):
    assert [usual_window(n) for n in (48, 30, 6, 3, 1)] == [10, 10, 2, 1, 1]
    model = tiny("llama")
    usual, same = (CausalTrace(kind="ffn", samples=SAMPLES, window=w) for w in (None, 1))
    np.testing.assert_array_equal(usual(model, FACT).cells, same(model, FACT).cells)
