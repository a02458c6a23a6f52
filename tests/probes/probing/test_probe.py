"""A probe finds what was planted, at its depth, with its controls where they belong."""

from dataclasses import replace

import numpy as np
import pytest

import probes.probing.by_depth as module
from labkit.errors import ClassTooSmall, EmptySplit, InputError, LeakingSplit, OneClass
from probes.probing.by_depth import limited, probe, probe_features
from probes.probing.configuration import Probing
from probes.probing.probe_result import ProbeResult
from probes.states.features import features_of
from probes.tasks.task import Example, Task
from tests.probes.toys import features, planted, task


@pytest.fixture(scope="module")
def found():
    toy, states = planted()
    return probe_features(toy, states, model="toy", twin=features(*states.values[[0, 0, 0]]))


def test_a_planted_direction_is_recovered_and_everything_else_is_at_chance(found):
    at = found.at(1)
    assert found.best.depth == 1 and at.score.mean > 0.9
    chance = 0.5  # a third, and room for what one draw of 90 test examples does
    assert found.at(0).score.mean < chance
    assert at.control.mean < chance and at.shuffled.mean < chance and at.twin.mean < chance
    assert at.p == 0.001 and at.p_holm == 0.003 and found.at(0).p > 0.05
    assert at.compression.low > 1.5 > 1.1 > found.at(0).compression.mean
    assert found.reach.expected.mean == pytest.approx(1.0, abs=0.3)
    for estimate in (at.score, at.control, at.selectivity, at.twin, at.bits, at.compression):
        assert estimate.low <= estimate.mean <= estimate.high


def test_numbers_are_scored_by_r2(found):
    draw = np.random.default_rng(0)
    states = draw.normal(size=(300, 8))
    toy = task(3 * states[:, 0] + 10, draw.integers(10, size=300), numeric=True)
    result = probe_features(toy, features(states, draw.normal(size=(300, 8)), states), model="toy")
    assert result.measure == "R²" and result.estimator == "ridge"
    assert result.at(0).score.mean > 0.95 and result.at(1).score.mean < 0.2
    assert result.at(0).shuffled.mean < 0.2 and result.baselines["majority"].mean < 0.01
    assert result.at(0).bits is None and "numbers" in result.no_code
    assert found.no_code is None


@pytest.mark.parametrize("numeric", [False, True])
def test_the_order_of_the_test_side_changes_nothing(numeric):
    toy, states = planted()
    if numeric:
        numbers = states.at(0).sum(axis=1).astype(float)
        toy = task(numbers, toy.items, numeric=True)
    n_train = 200
    forwards = replace(toy, held_out=tuple(range(n_train, len(toy))))
    order = np.r_[np.arange(n_train), np.arange(n_train, len(toy))[::-1]]
    backwards = replace(forwards, examples=tuple(forwards.examples[i] for i in order))
    results = [
        probe_features(forwards, states, model="toy"),
        probe_features(backwards, features(*states.values[:, order]), model="toy"),
    ]
    assert results[0] == results[1]


def test_a_result_comes_back_from_disk(found, tmp_path):
    assert ProbeResult.load(found.save(tmp_path / "result")) == found
    frame = found.to_frame()
    assert list(frame["depth"]) == [0, 1, 2] and frame["score"][1] == found.at(1).score.mean
    curve = found.curve_frame()
    assert curve["n_train"].iloc[-1] == found.n_train
    assert curve["bits"].sum() == pytest.approx(found.best.bits.mean)
    assert curve["score"].iloc[-1] == pytest.approx(found.best.score.mean, abs=0.03)
    assert "toy" in found.title and "majority" in found.title


def test_words_without_a_token_are_left_out_and_counted(tiny):
    """The last word of one text begins inside a token: a treebank has such words."""
    model = tiny("gpt2")
    texts = ("the cat", "a dog", "the dog", "a cat", "the hen", "a hen", "the ship", "a ship")
    examples = [
        Example(text=n, span=(0, text.index(" ")), label=text[0], group=str(n), item=text[0])
        for n, text in enumerate(texts)
    ]
    inside = Example(text=0, span=(1, 3), label="t", group="0", item="he")
    toy = Task(
        name="t", family="lexical", texts=texts, examples=(*examples, inside), source="by hand",
        held_out=(4, 5, 6, 7),
    )  # fmt: skip
    found = probe(model, toy, Probing(depths=[0], controls=False), cache=False)
    assert (found.n_train, found.n_test) == (4, 4) and "1 words without a token" in found.source
    assert found.best.score.mean == 1.0


BAD = {
    "a leaking split": (
        lambda toy: replace(toy, held_out=(0,)),
        LeakingSplit,
    ),
    "one class": (
        lambda toy: replace(toy, examples=tuple(replace(e, label="a") for e in toy.examples)),
        OneClass,
    ),
    "an empty split": (lambda toy: replace(toy, held_out=tuple(range(len(toy)))), EmptySplit),
    "a class of one": (
        lambda toy: replace(
            toy,
            examples=(replace(toy.examples[0], label="rare"), *toy.examples[1:]),
            held_out=tuple(range(200, 300)),
        ),
        ClassTooSmall,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_task_is_refused_before_the_model_runs(case, tiny, monkeypatch):
    monkeypatch.setattr(module, "read_together", lambda *given, **named: pytest.fail("it ran"))
    change, error = BAD[case]
    toy, _ = planted()
    with pytest.raises(error):
        probe(tiny("gpt2"), change(toy))


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"estimator": "logit"}, "logit"),
        ({"depths": [9]}, "9"),
        ({"depths": []}, "depths"),
        ({"estimator": "mean_difference"}, "two classes"),
        ({"depths": [-1]}, "depths"),
        ({"where": "ffn_out", "depths": [3]}, "0..2"),
        ({"n_train": 1}, "n_train"),
        ({"portions": (0.5, 0.2, 1.0)}, "portions"),
    ],
)
def test_bad_arguments_are_refused_before_the_model_runs(given, word, tiny, monkeypatch):
    monkeypatch.setattr(module, "read_together", lambda *given, **named: pytest.fail("it ran"))
    with pytest.raises(InputError, match=word):
        probe(tiny("gpt2"), planted()[0], Probing(**given))


def test_classes_too_rare_for_the_draw_are_left_out_and_named():
    draw = np.random.default_rng(0)
    labels = draw.choice(list("ab"), size=1000).astype(object)
    labels[[3, 500, 900]] = "rare"
    toy = task(labels, draw.integers(10, size=1000))
    toy = replace(toy, held_out=tuple(range(700, 1000)))
    drawn = [limited(toy, 350, seed=seed) for seed in range(10)]
    assert ("rare",) in {left_out for _, left_out in drawn}  # where one of the two was drawn
    for smaller, left_out in drawn:
        assert not set(left_out) & set(smaller.labels)
        assert smaller.split().train.size <= 350
    assert limited(toy, None) == (toy, ())


def test_every_family_is_probed_with_all_controls(model):
    draw = np.random.default_rng(0)
    items = draw.choice(["the", "of", "is", "in"], size=200)
    toy = _sentences(items)
    found = probe(model, toy, Probing(n_train=None), cache=False)
    assert [at.depth for at in found.depths] == list(range(model.n_layers + 1))
    assert found.depths[0].score.mean == 1.0  # the word itself is read off its embedding
    assert found.depths[0].twin.mean > 0.9 and found.fingerprint == model.fingerprint
    states = features_of(model, toy, cache=False)
    again = probe_features(toy, states, Probing(controls=False), model=model.name)
    assert [at.score for at in again.depths] == [at.score for at in found.depths]
    assert again.depths[0].control is None


def _sentences(words):
    """Words in sentences of four, each labelled by what it is."""
    toy = task(words, words)
    texts, examples = [], []
    for number in range(0, len(words), 4):
        text = ""
        for word in words[number : number + 4]:
            text += " " + word
            span = (len(text) - len(word), len(text))
            examples.append((len(texts), span, word))
        texts.append(text)
    built = tuple(
        replace(toy.examples[i], text=at, span=span, group=f"text {at}", label=str(word))
        for i, (at, span, word) in enumerate(examples)
    )
    return replace(toy, texts=tuple(texts), examples=built)
