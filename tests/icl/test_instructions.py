"""Told, shown, both: each is asked as it says, and candidates are chosen where nobody looks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.errors import ContextTooShort, InputError, PoolTooSmall
from labkit.icl import Demonstrations, Instructions, InstructionsResult, Item, Task, task
from labkit.icl.behaviour import instructions as module
from labkit.icl.behaviour.instructions import instruction_in
from tests.reference import shows

SMALL = Instructions(k=3, draws=2, queries=6, development=4, proposals=6)


@pytest.fixture(scope="module")
def asked(pocket):
    """A result, and what was asked for it: by front, the queries."""
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        ask = module.ask
        patch.setattr(module, "ask", lambda *a, **k: seen.update(a[2]) or ask(*a, **k))
        found = SMALL(pocket, task("city_river", pocket))
    return found, seen


def test_every_arm_is_asked_as_it_says(pocket, asked):
    """One cell per arm by hand: the very prompt, through Hugging Face's own model."""
    found, seen = asked
    own = task("city_river", pocket)
    (shots,) = {f.shots for f in seen if f.shots and f.instruction == found.written[1]}
    shown = " ".join(own.template.demonstration.format(**vars(shot)) + "." for shot in shots)
    told, other = found.written[1] + ".", found.others[1] + "."
    query = own.template.query.replace("{input}", found.queries[2])
    fronts = {"neither": (), "instruction": (told,), "demonstrations": (shown,)}
    fronts |= {"both": (told, shown), "another's": (other,)}
    assert tuple(fronts) == found.arms and told != other
    for place, front in enumerate(fronts.values()):
        with torch.no_grad():
            ids = torch.tensor([pocket.ids(" ".join([*front, query]))])
            logits = pocket.hf(ids).logits[0, -1].log_softmax(dim=-1)
        for number, label in enumerate(own.labels):
            expected = logits[pocket.ids(label)[1]].item()
            assert found.log_probs[place, 1, 2, number] == pytest.approx(expected, abs=1e-4)


def test_nothing_shown_is_asked_and_no_candidate_has_seen_a_query(pocket, monkeypatch):
    seen, ask = {}, module.ask
    monkeypatch.setattr(module, "ask", lambda *a, **k: seen.update(a[2]) or ask(*a, **k))
    method = Instructions(k=5, draws=8, queries=6, development=4, proposals=2)
    found = method(pocket, task("country_continent", pocket))
    shown = {shot.input for front in seen for shot in front.shots}
    developed = {text for texts in seen.values() for text in texts} - set(found.queries)
    assert not set(found.others) & set(found.written) and len(set(found.others)) == 8
    assert len(shown) == 10 and len(developed) == 4  # of twenty, all of the rest
    assert not shown & developed and not shown & set(found.queries)


def test_without_anything_it_is_what_demonstrations_finds_without_any(pocket, asked):
    found, _ = asked
    own = task("city_river", pocket)
    zero = Demonstrations(conditions=("gold",), ks=(0,), draws=1, queries=6)(pocket, own)
    assert zero.queries == found.queries
    assert found.log_probs[0, 0] == pytest.approx(zero.log_probs[0, 0, 0], abs=1e-5)


def test_the_same_seed_proposes_the_same_and_touches_no_other_draw(pocket, asked, tmp_path):
    found, _ = asked
    own = task("city_river", pocket)
    before = torch.random.get_rng_state()
    again = SMALL(pocket, own)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.candidates and again.candidates == found.candidates
    assert again.to_frame().equals(found.to_frame())
    sets = [own.items[:3], own.items[3:6]]
    one, other = (replace(SMALL, seed=seed).proposed(pocket, own, sets) for seed in (0, 1))
    assert one != other
    found.save(tmp_path / "r")
    loaded = InstructionsResult.load(tmp_path / "r")
    assert loaded.candidate_frame().equals(found.candidate_frame())
    accuracies = found.to_frame().query("measure == 'accuracy'")["mean"]
    assert shows(found.figure(), accuracies)
    assert shows(found.figure_candidates(), found.candidate_frame()["mean"])


def test_it_runs_in_every_family(model):
    method = Instructions(k=1, draws=1, queries=2, development=2, proposals=2)
    found = method(model, task("parity"))
    assert np.isfinite(found.log_probs).all()
    assert len(found.candidate_log_probs) == len(found.candidates) <= 2
    none = replace(method, proposals=0)(model, task("parity"))
    assert none.candidates == () and set(none.values()) == set(none.arms)
    with pytest.raises(InputError):
        none.best()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (' "Name the capital." And', "Name the capital."),
        ("Name the capital\nQ: x", "Name the capital"),
        (". \n\nGive its opposite! Then", "Give its opposite!"),
        ("to say e.g. hot", "to say e.g."),
        ("...", ""),
        ("1 2\n3", ""),
    ],
)
def test_the_instruction_of_a_continuation(text, said):
    assert instruction_in(text) == said


def made(development, queries):
    """A result of one arm and some candidates, by the probability of the right label."""

    def scores(right):
        right = np.asarray(right, dtype=np.float64)
        return np.log(np.stack([right, 1 - right], axis=-1)).astype(np.float32)

    n, m = np.shape(queries)[1], np.shape(development)[1]
    return InstructionsResult(
        model="m", fingerprint="f", task="t", source="s", labels=("a", "b"), k=1, tokens="all",
        queries=tuple(map(str, range(n))), gold=("a",) * n, development_gold=("a",) * m, seed=0,
        written=("w",), others=("o",), arms=("neither",),
        log_probs=scores(np.full((1, 1, n), 0.4)), candidates=tuple("xyz"),
        candidate_log_probs=scores(queries), development_log_probs=scores(development),
    )  # fmt: skip


def test_the_best_is_chosen_on_the_development_items_alone():
    found = made(
        development=[[0.6, 0.6, 0.4], [0.9, 0.9, 0.4], [0.6, 0.6, 0.6]],
        queries=[[0.9, 0.9], [0.9, 0.1], [0.1, 0.1]],
    )
    assert found.candidates[found.best()] == "z"  # three right, of none of them sure
    assert found.candidates[found.best("log_prob")] == "y"
    assert found.estimate("proposed").mean == 0.0
    assert found.estimate("any proposed").mean == pytest.approx(0.5)
    assert found.candidate_frame()["candidate"].tolist() == ["z", "y", "x"]
    tied = made([[0.6, 0.6], [0.8, 0.8], [0.7, 0.7]], np.full((3, 2), 0.9))
    assert tied.candidates[tied.best()] == "y"
    row = found.comparisons().set_index("arm").loc["any proposed"]
    assert row["mean"] == pytest.approx(0.5) and row["n"] == 2
    with pytest.raises(InputError, match="both"):
        found.difference("both", "neither")


@pytest.mark.parametrize(
    ("own", "fields", "error"),
    [
        (replace(task("topic"), instructions=()), {}, InputError),
        (task("topic"), {"development": 57}, PoolTooSmall),
        (task("topic"), {"k": 20, "queries": 4}, ContextTooShort),
    ],
)
def test_bad_input_is_refused_before_any_forward(tiny, no_forward, own, fields, error):
    with pytest.raises(error):
        Instructions(**fields)(tiny("gpt2"), own)


def test_a_question_that_is_too_long_is_refused_too(tiny, no_forward):
    """The demonstrations fit, but not with the instruction that is to be proposed."""
    model = tiny("llama")
    items = tuple(Item(input=f"w{n}", label="in" if n % 2 else "of") for n in range(30))
    own = Task(name="t", items=items, source="s", instructions=("Do.",))
    method = Instructions(k=12, draws=1, queries=2, development=2)
    Demonstrations(ks=(12,), draws=1, queries=2).require(model, own)
    with pytest.raises(ContextTooShort, match="instruction"):
        method(model, own)


@pytest.mark.parametrize(
    "fields",
    [{"k": 0}, {"draws": 0}, {"queries": 0}, {"development": 0}, {"proposals": -1},
     {"temperature": 0.0}],
)  # fmt: skip
def test_impossible_settings(fields):
    with pytest.raises(InputError):
        Instructions(**fields)
