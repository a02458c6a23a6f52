"""A severed cell is the definition of the rome repository, written with hooks."""

import dataclasses

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.locate import CausalTrace, average_traces, compare_severed
from labkit.stats import average
from labkit.stats.intervals import over_units
from tests.locate.tracing_by_hand import FACT, SAMPLES, ByHand

KINDS = {
    "resid": {"kind": "resid"},
    "ffn": {"kind": "ffn", "window": 2},
    "attn": {"kind": "attn", "window": 1},
}
OTHER = Fact(subject="dog", template="the {} is in", object=" of")


@pytest.mark.parametrize("severed", ["ffn", "attn"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_severed_cell_is_a_hand_written_one(model, kind, severed):
    how = KINDS[kind]
    result = CausalTrace(samples=SAMPLES, severed=severed, **how)(model, FACT)
    hand = ByHand(model, FACT, **how)
    expected = np.empty_like(result.cells)
    for pos, layer in np.ndindex(*result.cells.shape[1:]):
        logits = hand.run([pos], hand.layers_around(layer), held=severed)
        expected[:, pos, layer] = hand.probability(logits)
    np.testing.assert_allclose(result.cells, expected, rtol=1e-4)
    plain = CausalTrace(samples=SAMPLES, **how)(model, FACT)
    change = np.abs(result.cells / plain.cells - 1)
    assert change.max() > 5e-4  # it does something, and more than the tolerance


@pytest.mark.parametrize("severed", ["ffn", "attn"])
def test_above_the_last_block_there_is_nothing_to_sever(model, severed):
    plain = CausalTrace(samples=SAMPLES)(model, FACT)
    cut = CausalTrace(samples=SAMPLES, severed=severed)(model, FACT)
    np.testing.assert_allclose(cut.cells[..., -1], plain.cells[..., -1], rtol=1e-5)
    assert cut.clean == plain.clean and np.array_equal(cut.corrupted, plain.corrupted)


def test_the_gap_is_paired_over_draws(tiny):
    model = tiny("llama")
    plain, ffn, attn = (
        CausalTrace(samples=4, severed=severed)(model, FACT) for severed in (None, "ffn", "attn")
    )
    found = compare_severed(plain, ffn, attn)
    assert found.paths == ("plain", "ffn", "attn") and found.unit == "noise draw"
    frame = found.to_frame().set_index(["path", "role", "layer"])
    pos = plain.subject_positions[-1]
    for name, trace in (("ffn", ffn), ("attn", attn)):
        row = frame.loc[name, "last subject token", 0]
        difference = plain.cells[:, pos, 0] - trace.cells[:, pos, 0]
        gap = average(difference, within=(-1.0, 1.0))
        half = 3.182446 * difference.std(ddof=1) / 2  # Student's t, 3 degrees of freedom
        assert row.gap == pytest.approx(difference.mean(), rel=1e-4)
        assert (row.gap_low, row.gap_high) == pytest.approx((gap.low, gap.high), rel=1e-4)
        assert row.gap_high - row.gap > half
        effect = trace.indirect_effect(pos, 0)
        assert (row["mean"], row.low, row.high, row.n) == pytest.approx(
            (effect.mean, effect.low, effect.high, 4), rel=1e-4
        )
    assert (frame.loc["plain"]["gap"] == 0).all()
    assert frame.loc["plain"][["gap_low", "gap_high"]].isna().all(axis=None)


def test_over_facts_the_gap_is_paired_over_facts(tiny, tmp_path):
    model, roles = tiny("gpt2"), ("last subject token",)
    trace = CausalTrace(samples=1)
    plain = average_traces(model, [FACT, OTHER], trace)
    cut = average_traces(
        model, [FACT, OTHER], dataclasses.replace(trace, severed="ffn", roles=roles)
    )
    found = compare_severed(plain, cut)
    assert found.unit == "fact"
    frame = found.to_frame().query("path == 'ffn'")
    assert set(frame["role"]) == set(roles)  # the others have nothing to be compared with
    difference = (plain.restored - cut.restored)[:, 2]
    mean, low, _, _ = over_units(difference, within=(-1.0, 1.0))
    np.testing.assert_allclose(frame["gap"], mean)
    np.testing.assert_allclose(frame["gap_low"], low)
    again = type(found).load(found.save(tmp_path / "severed"))
    np.testing.assert_array_equal(again.effects, found.effects)


def test_traces_that_cannot_be_compared_are_refused(tiny):
    model, trace = tiny("llama"), CausalTrace(samples=1)
    plain, cut = (dataclasses.replace(trace, severed=s)(model, FACT) for s in (None, "ffn"))
    for wrong in [
        (plain,),
        (cut, cut),
        (plain, plain),
        (plain, CausalTrace(samples=1, severed="ffn")(model, OTHER)),
        (plain, CausalTrace(samples=2, severed="ffn")(model, FACT)),
        (average_traces(model, [FACT], trace), cut),
    ]:
        with pytest.raises(InputError):
            compare_severed(*wrong)
