"""A fitted probe answers as scikit-learn's pipeline does, on any states that it is handed."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from editing.edits.applying import applied
from labkit.errors import EmptySplit, InputError
from probes.probing.by_depth import probe, probe_features
from probes.probing.configuration import MAP, Probing
from probes.probing.estimators import ESTIMATORS, make
from probes.probing.fitted import layers_of
from probes.probing.probe_result import ProbeResult
from probes.states.features import features_of
from tests.laws.cached import delta_of
from tests.probes.readings.test_use import words_task
from tests.probes.toys import features, planted, task

PLAIN = Probing(controls=False)


@pytest.mark.parametrize("n_classes", [2, 3, None])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_its_answers_are_those_of_the_pipeline(name, n_classes):
    toy, states = planted(classes=n_classes or 3)
    numeric = n_classes is None
    if (numeric and name not in ("ridge", "mlp1", "mlp2")) or (
        name == "mean_difference" and n_classes == 3
    ):
        pytest.skip("this probe does not learn such labels")
    X = 3 * states.at(1) + np.linspace(-5, 5, states.at(1).shape[1])
    y = X[:, 0] - X[:, 3] if numeric else toy.labels
    toy = replace(task(y, toy.items, numeric=numeric), held_out=tuple(range(200, 300)))
    made = features(X, X[::-1])
    found = probe_features(toy, made, replace(PLAIN, estimator=name), model="toy")
    pipeline = make(name, numeric=numeric, strength=found.strength).fit(X[:200], toy.labels[:200])
    elsewhere = np.random.default_rng(1).normal(size=(500, X.shape[1])) + X.mean(axis=0)
    answers, expected = found.fitted[0].predict(elsewhere), pipeline.predict(elsewhere)
    if numeric:
        np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-3)
    else:
        assert (answers == expected).mean() > 0.995 and len(set(expected)) > 1
    again = FittedLayers(pipeline)
    for layer, other in zip(found.fitted[0].layers, again, strict=True):
        np.testing.assert_allclose(layer.weight, other.weight, rtol=1e-3, atol=1e-4)


def FittedLayers(pipeline):
    return layers_of(pipeline[0], pipeline[-1])


def test_it_is_tried_on_another_text_another_depth_and_other_weights(model, tmp_path):
    """Against scikit-learn by hand: fitted to one text's states, scored on another's."""
    toy, other = words_task(), replace(words_task(seed=7), name="others")
    found = probe(model, toy, PLAIN, cache=False)
    here, there = (features_of(model, each, cache=False) for each in (toy, other))
    split, depth = toy.split(), 2
    by_hand = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=found.strength, tol=1e-3, max_iter=200, random_state=0),
    ).fit(here.at(depth)[split.train], toy.labels[split.train])
    seen = {toy.texts[toy.examples[number].text] for number in split.train}
    new = [n for n, example in enumerate(other.examples) if other.texts[example.text] not in seen]
    assert 0 < len(new) < len(other)
    with applied(model, delta_of(model, scale=30.0)):
        edited = features_of(model, other, cache=False)
    for states, at in ((there, 2), (there, 1), (edited, 2)):
        expected = accuracy_score(other.labels[new], by_hand.predict(states.at(at)[new]))
        score = found.fitted[depth].score(states, depth=at)
        assert score.mean == pytest.approx(expected, abs=0.011) and score.low <= score.mean
    assert not np.array_equal(there.at(2), edited.at(2))
    assert len(repr(found.fitted)) < 300 > len(repr(found.fitted[depth]))
    # Loaded from disk it is the same.
    loaded = ProbeResult.load(found.save(tmp_path / "kept"))
    assert loaded == found and list(loaded.fitted) == list(found.fitted)
    assert (loaded.fitted[2].predict(there.at(2)) == found.fitted[2].predict(there.at(2))).all()
    assert loaded.fitted[2].score(there) == found.fitted[2].score(there)


def test_what_it_was_fitted_to_does_not_count():
    toy, states = planted()
    texts = tuple(f"{text} {number}" for number, text in enumerate(toy.texts))
    toy = replace(toy, texts=texts)
    found = probe_features(toy, states, PLAIN, model="toy")
    own = replace(states, task=toy)
    for depth in found.fitted:
        assert found.fitted[depth].score(own).mean == found.at(depth).score.mean
    train = toy.split().train
    fitted_to = replace(toy, examples=tuple(toy.examples[number] for number in train))
    seen = replace(states, values=states.values[:, train], task=fitted_to)
    with pytest.raises(EmptySplit, match="every text"):
        found.fitted[1].score(seen)


def test_numbers_are_scored_by_r2_about_the_mean_that_it_knows():
    draw = np.random.default_rng(0)
    X = draw.normal(size=(300, 8))
    toy = task(3 * X[:, 0] + 10, draw.integers(10, size=300), numeric=True)
    toy = replace(toy, texts=tuple(f"{text} {n}" for n, text in enumerate(toy.texts)))
    found = probe_features(toy, features(X), PLAIN, model="toy")
    test = toy.split().test
    score = found.fitted[0].score(replace(features(X), task=toy))
    assert score.mean == pytest.approx(found.best.score.mean)
    expected = r2_score(toy.labels[test], found.fitted[0].predict(X[test]))
    assert score.mean == pytest.approx(expected, abs=0.01)


def test_what_cannot_be_tried_is_named():
    toy, states = planted()
    found = probe_features(toy, states, PLAIN, model="toy")
    fitted = found.fitted[1]
    numbers = task(np.arange(300.0), toy.items, numeric=True)
    other = replace(toy, texts=tuple(text + "." for text in toy.texts))
    for call, word in (
        (lambda: found.fitted[9], "depth 9"),
        (lambda: fitted.score(states), "no labels"),
        (lambda: fitted.score(replace(states, task=numbers)), "numbers"),
        (lambda: fitted.score(replace(states, task=other), depth=9), "depth 9"),
        (lambda: fitted.predict(np.zeros((3, 5))), "width 12"),
        (lambda: replace(found, kept=None).fitted, "keep=True"),
    ):
        with pytest.raises(InputError, match=word):
            call()
    assert probe_features(toy, states, replace(MAP, controls=False), model="toy").kept is None
