"""An average is the mean of single traces, and a run that was cut short goes on to the same."""

import dataclasses

import numpy as np
import pytest

from labkit import stats
from labkit.errors import EmptyTarget, InputError, NothingToTrace
from labkit.facts.fact import Fact
from labkit.locate import ROLES, AveragedTrace, CausalTrace, align, average_traces
from labkit.locate.traces.averaged_trace import TracedFact
from labkit.locate.traces.trace_result import ratio_of_means
from labkit.results.result import RunDirectory

FACTS = [
    Fact(subject="cat", template="the {} is in", object=" of"),
    Fact(subject="big black dog", template="{} and the house of the", object=" is"),
    Fact(subject="dog", template="a {} and", object=" of"),
]
TRACE = CausalTrace(samples=2)


@pytest.mark.parametrize("kind", ["resid", "ffn", "attn"])
def test_an_average_is_the_mean_of_single_traces(model, kind):
    trace = CausalTrace(samples=2, kind=kind)
    averaged = average_traces(model, FACTS, trace)
    singles = [trace(model, fact) for fact in FACTS]
    aligned = np.stack([align(one.cells, one.subject_positions).mean(axis=0) for one in singles])
    np.testing.assert_allclose(averaged.restored, aligned, rtol=1e-5)
    effects = aligned - np.array([one.corrupted.mean() for one in singles])[:, None, None]
    frame = averaged.to_frame().set_index(["role", "layer"])
    for index, role in enumerate(ROLES):
        there = ~np.isnan(aligned[:, index, 0])
        assert averaged.n_by_role[role] == there.sum()
        if there.any():
            rows = frame.loc[role]
            np.testing.assert_allclose(rows["mean"], effects[there, index].mean(0), atol=1e-6)
            np.testing.assert_allclose(rows["restored"], aligned[there, index].mean(0), atol=1e-6)
            assert (rows["low"] <= rows["mean"] + 1e-9).all()
            assert (rows["mean"] <= rows["high"] + 1e-9).all()
    total = [one.total_effect.mean for one in singles]
    assert averaged.total_effect.mean == pytest.approx(np.mean(total), rel=1e-4)


def test_a_run_that_was_cut_short_goes_on_to_the_same(tiny, tmp_path):
    model = tiny("llama")
    whole = average_traces(model, FACTS, TRACE)
    run = RunDirectory.create(tmp_path / "run", {"what": "trace"}, model)

    def interrupt(what, share):
        if what.startswith("fact 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        average_traces(model, FACTS, TRACE, progress=interrupt, run=run)
    assert len(run.finished_cases()) == 2

    seen = []
    again = RunDirectory.create(tmp_path / "run", {"what": "trace"}, model, resume=True)
    resumed = average_traces(
        model, FACTS, TRACE, progress=lambda what, share: seen.append((what, share)), run=again
    )
    assert {what.split(":")[0] for what, _ in seen} == {"fact 3 of 3"}
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    np.testing.assert_array_equal(resumed.restored, whole.restored)
    assert resumed.facts == whole.facts
    # Other settings, or another model, find nothing that they could take for theirs.
    average_traces(model, FACTS[:1], CausalTrace(samples=1), run=again)
    average_traces(tiny("gpt2"), FACTS[:1], TRACE, run=again)
    assert len(again.finished_cases()) == 5


def test_an_average_comes_back_as_it_was_saved(tiny, tmp_path):
    averaged = average_traces(tiny("gemma"), FACTS, dataclasses.replace(TRACE, severed="ffn"))
    again = AveragedTrace.load(averaged.save(tmp_path / "average"))
    np.testing.assert_array_equal(again.restored, averaged.restored)
    assert again.facts == averaged.facts and again.severed == "ffn"
    assert again.title == averaged.title


# --- what is read off an average -------------------------------------------------------------


def planted(peaks, *, n_layers=5, height=0.6, clean=0.9, corrupted=0.1):
    """Facts whose last subject token recovers `height` at the layer given, and little elsewhere."""
    restored = np.full((len(peaks), len(ROLES), n_layers), np.nan)
    restored[:, ROLES.index("last token")] = corrupted
    restored[:, ROLES.index("last token"), -1] = clean
    restored[:, ROLES.index("last subject token")] = corrupted + 0.05
    for fact, peak in enumerate(peaks):
        restored[fact, ROLES.index("last subject token"), peak] = corrupted + height
    fact = TracedFact(prompt="a b", subject="a", answer=" c", clean=clean, corrupted=corrupted)
    return AveragedTrace(
        kind="resid",
        severed=None,
        facts=(fact,) * len(peaks),
        restored=restored,
        model="by hand",
        fingerprint="0" * 64,
        config={},
    )


def test_the_early_site_is_where_it_was_planted_and_says_how_far_facts_agree():
    site = planted([1, 1, 1, 2, 4]).early_site()
    assert (site.layer, site.quartiles) == (1, (1.0, 1.0, 2.0))
    assert site.peak.mean == pytest.approx(1.8) and site.peak.n == 5
    assert site.effect.mean == pytest.approx((3 * 0.6 + 2 * 0.05) / 5)
    assert site.share.mean == pytest.approx(site.effect.mean / 0.8)
    assert "quartiles 1 to 2" in str(site)
    table = planted([1, 1, 1, 2, 4]).sites().set_index("role")
    assert table.loc["last token", "layer"] == 4
    assert (table.loc["last subject token", ["q25", "q75"]] == [1, 2]).all()


def test_shares_are_of_the_mean_total_effect():
    averaged = planted([1, 1, 2])
    shares = averaged.shares().set_index(["role", "layer"])
    assert shares.loc[("last subject token", 1), "share"] == pytest.approx(1.25 / 3 / 0.8)
    assert shares.loc[("last token", 4), "share"] == pytest.approx(1)
    assert set(shares.index.get_level_values("role")) == {"last subject token", "last token"}


def test_what_nobody_was_asked_is_refused():
    averaged = planted([1, 2])
    for role in ("first subject token", "subject"):
        with pytest.raises(InputError):
            averaged.early_site(role)
    harmless = planted([1, 2], clean=0.1, corrupted=0.1)
    with pytest.raises(InputError, match="no fact"):
        harmless.early_site()
    with pytest.raises(InputError, match="nothing is lost"):
        harmless.share_recovered("last token", 0)


def test_effects_over_facts_stay_between_minus_one_and_one():
    averaged = planted([1, 1, 2], height=0.9, clean=1.0, corrupted=0.1)
    frame = averaged.to_frame().set_index(["role", "layer"])
    row = frame.loc["last subject token", 1]
    assert -1 <= row.low < row["mean"] < row.high <= 1
    assert 0 <= row.restored_low < row.restored < row.restored_high <= 1
    assert row["mean"] == pytest.approx((0.9 + 0.9 + 0.05) / 3)
    one = stats.average([0.9, 0.9, 0.05], within=(-1.0, 1.0))
    assert (row.low, row.high) == pytest.approx((one.low, one.high))
    assert one.high == 1.0 < stats.average([0.9, 0.9, 0.05]).high
    # Facts that agree, and a single fact, say nothing of how others would differ.
    same = frame.loc["last token", 0]
    assert same["mean"] == 0 and np.isnan([same.low, same.high]).all()
    single = planted([1]).to_frame()
    assert single[["low", "high", "restored_low", "restored_high"]].isna().all(axis=None)
    assert not planted([1, 1]).early_site().peak.has_interval  # a peak layer is no share


def test_a_share_has_the_interval_of_a_ratio():
    """Against the bootstrap of the ratio itself."""
    draw = np.random.default_rng(1)
    wholes = draw.uniform(0.2, 1, size=200)
    parts = 0.7 * wholes + draw.normal(scale=0.05, size=200)
    share = ratio_of_means(parts, wholes)
    picks = draw.integers(200, size=(4000, 200))
    ratios = parts[picks].mean(1) / wholes[picks].mean(1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    assert share.mean == pytest.approx(parts.sum() / wholes.sum())
    assert (share.low, share.high) == pytest.approx((low, high), abs=0.003)
    exact = ratio_of_means(0.5 * wholes, wholes)
    assert exact.mean == pytest.approx(0.5) and not exact.has_interval


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ([], InputError),
        ([FACTS[0], FACTS[0]], InputError),
        ([FACTS[0], Fact(subject="cat", template="{} is", object=None)], EmptyTarget),
        ([Fact(subject="cat", template="{}", object=" is")], NothingToTrace),
        ([Fact(subject="the", template="{}", object=" is")], NothingToTrace),
    ],
)
def test_bad_facts_are_refused_before_any_run(tiny, facts, error, tmp_path):
    model = tiny("llama")
    run = RunDirectory.create(tmp_path / "run", {}, model)
    with pytest.raises(error):
        average_traces(model, facts, TRACE, run=run)
    assert not run.finished_cases()
