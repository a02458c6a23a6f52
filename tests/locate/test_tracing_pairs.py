"""Patching all of one prompt into another gives its run; patching nothing leaves the other's."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch

from labkit.errors import InputError, NothingToTrace, SubjectNotFound
from labkit.facts.fact import Fact
from labkit.locate import PairResult, PairTrace
from labkit.running.activations import capture, patched
from labkit.running.execute import Execution
from tests.reference import full_logits, output_hook, outputs_of

CLEAN = Fact(subject="cat", template="the {} is in", object=" of")
OTHER = Fact(subject="dog", template="the {} is in", object=" the")
KINDS = {
    "resid": {"kind": "resid"},
    "ffn": {"kind": "ffn", "window": 2},
    "attn": {"kind": "attn", "window": 1},
}


@pytest.fixture(params=KINDS)
def how(request):
    return KINDS[request.param]


def module(model, kind, layer):
    """What a hand-written hook goes on."""
    block, names = model.blocks[layer], model.anatomy
    parts = {"ffn": names.ffn_post or names.ffn, "attn": names.attn_post or names.attn}
    return block if kind == "resid" else block.get_submodule(parts[kind])


def readings(logits, right, wrong):
    """P(r) and logit(r) - logit(r') at the last position."""
    last = logits[0, -1]
    return [last.softmax(-1)[right].item(), (last[right] - last[wrong]).item()]


def patching(value, pos):
    """A hand-written hook: one position of an output is that of another run."""

    def patch(out):
        out = out.clone()
        out[:, pos] = value[:, pos]
        return out

    return patch


def answer_ids(model):
    return [
        model.tokenizer(fact.object, add_special_tokens=False).input_ids[0]
        for fact in (CLEAN, OTHER)
    ]


@torch.no_grad()
def test_every_cell_is_a_hand_written_hook_in_a_full_run(model, how):
    result = PairTrace(**how)(model, CLEAN, OTHER)
    batch, other = model.tokens([CLEAN.prompt]), model.tokens([OTHER.prompt])
    right, wrong = answer_ids(model)
    kind, window = how["kind"], how.get("window", 1)
    values = []
    for layer in range(model.n_layers):
        with outputs_of(module(model, kind, layer)) as seen:
            clean_logits = full_logits(model, batch)
        values.append(seen[0])
    np.testing.assert_allclose(result.clean, readings(clean_logits, right, wrong), rtol=1e-4)
    unpatched = readings(full_logits(model, other), right, wrong)
    np.testing.assert_allclose(result.corrupted, unpatched, rtol=1e-4)
    assert abs(result.clean[1] - result.corrupted[1]) > 1e-3
    for pos, layer in np.ndindex(*result.cells.shape[:2]):
        first = layer - window // 2
        with ExitStack() as stack:
            for inside in range(max(0, first), min(model.n_layers, first + window)):
                hook = output_hook(module(model, kind, inside), patching(values[inside], pos))
                stack.enter_context(hook)
            expected = readings(full_logits(model, other), right, wrong)
        np.testing.assert_allclose(result.cells[pos, layer], expected, rtol=2e-4, atol=1e-6)


@torch.no_grad()
def test_patching_every_position_is_the_clean_run_and_patching_none_the_corrupted(model):
    batch, other = model.tokens([CLEAN.prompt]), model.tokens([OTHER.prompt])
    with capture(model, ["resid_post"], [1]) as seen:
        Execution(model, batch).forward()
    clean = seen["resid_post", 1]
    with patched(model, {("resid_post", 1): lambda out: clean}):
        assert torch.equal(full_logits(model, other), full_logits(model, batch))
    result = PairTrace()(model, CLEAN, OTHER)
    before = result.cells[: result.subject_positions[0]]
    assert (before == result.corrupted).all()
    np.testing.assert_allclose(result.cells[-1, -1], result.clean, rtol=1e-4)
    np.testing.assert_allclose(result.share[-1, -1], 1, rtol=1e-4)


def test_the_other_way_round_the_two_runs_change_places(tiny):
    model = tiny("gpt-neox")
    there, back = PairTrace()(model, CLEAN, OTHER), PairTrace()(model, OTHER, CLEAN)
    assert there.answers == back.answers[::-1] and there.tokens == back.other_tokens
    assert there.clean[1] == pytest.approx(-back.corrupted[1], rel=1e-4)
    assert there.corrupted[1] == pytest.approx(-back.clean[1], rel=1e-4)


def test_the_memory_bound_does_not_matter(tiny, how):
    model = tiny("gptj")
    whole, small = (PairTrace(memory=m, **how)(model, CLEAN, OTHER) for m in (1 << 30, 1))
    np.testing.assert_allclose(small.cells, whole.cells, rtol=1e-4)


@torch.no_grad()
def test_the_answers_are_the_models_own_where_none_are_given(tiny):
    model = tiny("qwen2")
    facts = [Fact(subject=s, template="the {} is in", object=None) for s in ("cat", "dog")]
    tops = [
        model.tokenizer.decode([int(full_logits(model, model.tokens([f.prompt]))[0, -1].argmax())])
        for f in facts
    ]
    if tops[0] == tops[1]:
        with pytest.raises(InputError, match="answer"):
            PairTrace()(model, *facts)
    else:
        assert PairTrace()(model, *facts).answers == tuple(tops)


def test_the_table_has_one_row_a_cell_and_comes_back_as_it_was_saved(tiny, tmp_path):
    result = PairTrace(kind="attn")(tiny("gemma"), CLEAN, OTHER)
    frame = result.to_frame()
    pos, layer = result.subject_positions[-1], 1
    row = frame.query("pos == @pos and layer == @layer").iloc[0]
    assert [row.probability, row.logit_difference] == result.cells[pos, layer].tolist()
    assert row["share"] == result.share[pos, layer] and row.in_subject
    assert row.token != row.other_token
    again = PairResult.load(result.save(tmp_path / "pair"))
    assert np.array_equal(again.cells, result.cells) and again.prompts == result.prompts


@pytest.mark.parametrize("wrong", [{"kind": "mlp"}, {"window": 2}, {"kind": "ffn", "window": 0}])
def test_a_configuration_that_means_nothing_is_refused(wrong, unchecked):
    with pytest.raises(InputError):
        PairTrace(**wrong)


def test_prompts_that_do_not_match_are_refused(tiny):
    model, fact = tiny("llama"), Fact.from_prompt
    for other, words in [
        (fact("the cats and dogs is in", "cats and dogs", " the"), "the same number of tokens"),
        (fact("in the cat is", "cat", " the"), "its subject at"),
        (fact("the cat is in", "cat", " the"), "the same"),
        (fact("the dog is in", "dog", " of"), "both prompts have the answer"),
    ]:
        with pytest.raises(InputError, match=words):
            PairTrace()(model, CLEAN, other)
    with pytest.raises(SubjectNotFound):
        PairTrace()(model, fact("the cat is in", "cat"), Fact.from_prompt("the dog is", "cow"))
    with pytest.raises(NothingToTrace):
        PairTrace()(model, CLEAN, fact("dog", "dog"))
