"""Agreement of locating methods: planted profiles give known correlations; the control bites."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import rankdata

from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.locate import AttentionKnockout, AttributionPatching, CausalTrace, KnowledgeNeurons
from labkit.locate.agreement import Agreement, compare
from labkit.models.loading import load
from labkit.pocket import facts as facts_of_pocket
from labkit.results.result import RunDirectory

N_FACTS = 12
FACTS = [
    Fact(subject=f"city {n}", template="{} lies in the country of", object=" France")
    for n in range(N_FACTS)
]


@pytest.fixture
def model(tiny):
    return tiny("llama")


def own(model, fact, noise=0.0):
    """A profile of its own for every fact, plus noise of another kind for every method."""
    number = FACTS.index(fact)
    base = np.random.default_rng(number).normal(size=model.n_layers)
    jitter = np.random.default_rng(1000 + number).normal(size=model.n_layers)
    return SimpleNamespace(profile=base + noise * jitter)


def rising(model, fact):
    """Favours high layers, whatever the fact."""
    return SimpleNamespace(profile=np.arange(model.n_layers, dtype=float))


def test_the_same_profile_agrees_fully_and_its_control_does_not(model):
    found = compare(model, FACTS, {"one": own, "other": own})
    same, control = (found.correlation("one", "other", shift=shift) for shift in (0, 1))
    assert same.mean == pytest.approx(1.0) and same.n == N_FACTS
    assert control.high < 1.0 and control.mean < 0.5


def test_methods_that_like_high_layers_agree_in_the_control_as_well(model):
    found = compare(model, FACTS, {"one": rising, "other": rising})
    assert found.correlation("one", "other", shift=1).mean == pytest.approx(1.0)


def test_a_correlation_is_that_of_ranks(model):
    found = compare(model, FACTS, {"one": own, "other": lambda m, f: own(m, f, noise=0.5)})
    by_hand = [
        np.corrcoef(rankdata(own(model, fact).profile), rankdata(own(model, fact, 0.5).profile))
        for fact in FACTS
    ]
    mean = np.mean([matrix[0, 1] for matrix in by_hand])
    assert found.correlation("one", "other").mean == pytest.approx(mean)


def test_flat_profiles_have_no_order_and_are_left_out(model):
    def flat_at_first(m, fact):
        return SimpleNamespace(profile=np.zeros(m.n_layers)) if fact is FACTS[0] else own(m, fact)

    found = compare(model, FACTS, {"one": flat_at_first, "other": own})
    assert found.correlation("one", "other").n == N_FACTS - 1


def test_a_sweep_holds_for_all_facts_and_may_have_gaps(model):
    sweep = [np.nan, *range(model.n_layers - 1, 0, -1)]
    found = compare(model, FACTS, {"one": own, "rising": rising}, sweeps={"edits": sweep})
    assert list(found.peaks("edits")) == [1]
    table = found.methods_frame().set_index("method")
    assert table.loc["edits", "facts"] == 1 and np.isnan(
        table.loc["edits", "median seconds per fact"]
    )
    drawn = found.profiles_frame()
    assert set(drawn[drawn["method"] == "edits"]["layer"]) == set(range(1, model.n_layers))


def test_a_sweep_is_compared_on_the_layers_that_it_has(pocket):
    falling = [np.nan, *range(pocket.n_layers - 1, 0, -1)]
    found = compare(pocket, FACTS, {"one": own, "rising": rising}, sweeps={"edits": falling})
    assert pocket.n_layers >= 4  # two layers have no order to speak of
    assert found.correlation("rising", "edits").mean == pytest.approx(-1.0)


def test_an_interrupted_comparison_goes_on_where_it_was(model, tmp_path):
    asked = []

    def counted(m, fact):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(fact)
        return own(m, fact)

    run = RunDirectory.create(tmp_path / "run", config={}, model=model)
    with pytest.raises(KeyboardInterrupt):
        compare(model, FACTS, {"one": counted, "other": rising}, run=run)
    asked.append("no longer three")
    again = compare(model, FACTS, {"one": counted, "other": rising}, run=run)
    assert [f for f in asked if isinstance(f, Fact)] == FACTS
    whole = compare(model, FACTS, {"one": own, "other": rising})
    assert np.array_equal(again.profiles, whole.profiles)


def test_results_are_saved_and_show_themselves(model, tmp_path):
    found = compare(model, FACTS, {"one": own, "other": rising})
    loaded = Agreement.load(found.save(tmp_path / "agreement"))
    assert loaded.to_frame().equals(found.to_frame())
    matrix = found.figure().data[0]
    assert matrix.z[0][1] == pytest.approx(found.correlation("one", "other").mean)
    assert matrix.z[1][0] == pytest.approx(found.correlation("other", "one", shift=1).mean)
    lines = [trace for trace in found.figure_profiles().data if trace.name]
    assert [line.name for line in lines] == ["one", "other"]
    assert list(lines[1].y) == pytest.approx(np.linspace(0, 1, model.n_layers))


@pytest.mark.parametrize(
    ("facts", "locators", "sweeps"),
    [
        (FACTS[:1], {"one": own, "other": own}, {}),
        (FACTS, {"one": own}, {}),
        (FACTS, {}, {"edits": [0.0] * 4, "more": [0.0] * 4}),
        (FACTS, {"one": own}, {"one": [0.0] * 4}),
        (FACTS, {"one": own}, {"edits": [0.0]}),
    ],
)
def test_what_cannot_be_compared_is_refused(model, facts, locators, sweeps):
    with pytest.raises(InputError):
        compare(model, facts, locators, sweeps=sweeps)


def test_every_locator_has_a_profile_and_they_are_compared(tmp_path):
    pocket, fact, other = load("pocket"), *facts_of_pocket()[:2]
    trace = CausalTrace(samples=3)(pocket, fact)
    best = trace.profile.argmax()
    assert trace.profile[best] == pytest.approx(trace.indirect_effect(*trace.peak()).mean)
    knockout = AttentionKnockout(draws=1)(pocket, fact)
    rows = knockout.to_frame()
    subject = rows[rows["source"] == "subject"]["mean"]
    assert np.allclose(knockout.profile, -subject)
    locators = {
        "trace": CausalTrace(samples=3),
        "attribution": AttributionPatching(samples=3),
        "neurons": KnowledgeNeurons(steps=4),
        "knock-out": AttentionKnockout(draws=1),
    }
    found = compare(pocket, [fact, other], locators)
    assert found.profiles.shape == (4, 2, pocket.n_layers)
    assert np.allclose(found.profiles[0, 0], trace.profile) and (found.seconds > 0).all()
