"""Linear regression in context: the prompts, the learners, the shipped model, what is inside it."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.neighbors import KNeighborsRegressor

from labkit.errors import InputError, MalformedRecord, MissingFile, OutputError
from labkit.icl.implicit.regression import CompareLearners
from labkit.icl.implicit.regression_learners import (
    GradientDescent,
    LeastSquares,
    Mean,
    NearestNeighbours,
    Ridge,
    Zero,
    tuned_descent,
)
from labkit.icl.implicit.regression_model import ContextRegressor, Shape, shipped
from labkit.icl.implicit.regression_probes import Place, ReadingResult, ReadLearner
from labkit.icl.implicit.regression_prompts import NOISE, SETTINGS, Setting, draw, setting
from labkit.icl.implicit.regression_result import TRANSFORMER, RegressionResult
from labkit.icl.implicit.regression_train import Recipe, train
from tests.reference import shows

SMALL = Shape(d=3, d_model=16, d_mlp=32, n_layers=2, n_heads=2)


@pytest.fixture(scope="module")
def model():
    return shipped()


@pytest.fixture(scope="module")
def trained(model):
    """On prompts that no training run and no choice of a recipe has drawn."""
    return CompareLearners(prompts=400, seed=11)(model)


# Prompts


@pytest.mark.parametrize("name", SETTINGS)
def test_prompts_are_drawn_as_their_setting_says(name):
    own, some = setting(name), draw(name, 4000, 6, seed=3)
    assert torch.allclose((some.x @ some.w[..., None])[..., 0], some.clean, atol=1e-4)
    noise = (some.y - some.clean).std().item()
    assert noise == pytest.approx(own.noise, rel=0.02, abs=1e-6)
    assert some.clean.var().item() == pytest.approx(own.variance, rel=0.1)
    assert some.w.square().sum(dim=1).mean().item() == pytest.approx(own.d, rel=0.1)


def test_what_a_setting_changes():
    assert ((draw("sparse", 50, 4, seed=0).w != 0).sum(dim=1) == 1).all()
    signs = draw("orthant", 50, 4, seed=0).x.sign()
    assert (signs == signs[:, :1]).all() and len(signs[:, 0].unique(dim=0)) > 10
    x = draw("skewed", 5, 4000, seed=0).x
    spectrum = torch.linalg.eigvalsh(x.mT @ x / x.shape[1]).flip(-1)
    expected = torch.arange(1, 6) ** -2.0 * 5 / (torch.arange(1, 6) ** -2.0).sum()
    assert torch.allclose(spectrum, expected.expand_as(spectrum), rtol=0.15)


def test_the_same_seed_gives_the_same_prompts():
    first, again, other = (draw("trained", 4, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.y, again.y) and not torch.equal(first.y, other.y)


# Learners


@pytest.fixture(scope="module")
def some():
    return draw("trained", 4, 12, seed=5)


@pytest.mark.parametrize(
    ("learner", "reference"),
    [
        (Ridge(penalty=0.7), SklearnRidge(alpha=0.7, fit_intercept=False)),
        (LeastSquares(), LinearRegression(fit_intercept=False)),  # of least norm where n < d
        (NearestNeighbours(k=3), KNeighborsRegressor(3)),
    ],
)
def test_learners_are_those_of_scikit_learn(some, learner, reference):
    said = learner(some.x, some.y).numpy()
    x, y = some.x.double().numpy(), some.y.double().numpy()
    for prompt in range(len(some)):
        for n in range(3, 13):
            reference.fit(x[prompt, :n], y[prompt, :n])
            expected = reference.predict(x[prompt, n : n + 1])[0]
            assert said[prompt, n] == pytest.approx(expected, abs=1e-6), (prompt, n)


def test_gradient_descent_is_that_of_autograd(some):
    learner = GradientDescent(steps=4, share=0.3)
    said = learner(some.x, some.y)
    for n in (1, 7, 12):
        x, y = some.x[:, :n].double(), some.y[:, :n].double()
        largest = 2 / torch.linalg.matrix_norm(x.mT @ x, ord=2)[:, None]
        w = torch.zeros(len(some), 5, dtype=torch.float64)
        for _ in range(4):
            w.requires_grad_(True)
            loss = ((x @ w[..., None]).squeeze(-1) - y).square().sum() / 2
            w = (w - 0.3 * largest * torch.autograd.grad(loss, w)[0]).detach()
        assert torch.allclose(said[:, n], (some.x[:, n] * w).sum(dim=1), atol=1e-12)


def test_learners_see_what_is_before_and_nothing_else(some):
    changed = some.y.clone()
    changed[:, 6] += 100
    learners = [Ridge(penalty=0.25), LeastSquares(), NearestNeighbours(), Mean(), Zero()]
    for learner in [*learners, GradientDescent(steps=3, share=0.1)]:
        before, after = learner(some.x, some.y), learner(some.x, changed)
        assert torch.equal(before[:, :7], after[:, :7]) and (before[:, 0] == 0).all()
        assert (learner == Zero()) == torch.equal(before, after)
    assert torch.allclose(Mean()(some.x, some.y)[:, 4], some.y[:, :4].double().mean(dim=1))


def test_no_learner_beats_the_bayes_optimal_one():
    prompts = draw("trained", 4000, 10, seed=6)
    others = [Ridge(penalty=0.05), Ridge(penalty=1.0), LeastSquares(), tuned_descent(prompts, 8)]
    errors = [
        (learner(prompts.x, prompts.y) - prompts.clean).square().mean(dim=0)
        for learner in [Ridge(penalty=NOISE**2), *others]
    ]
    assert all((errors[0][1:] < other[1:]).all() for other in errors[1:])


def test_the_step_size_is_the_best_of_those_tried():
    prompts = draw("trained", 300, 10, seed=7)
    best = tuned_descent(prompts, 5)
    error = {
        share: (GradientDescent(steps=5, share=share)(prompts.x, prompts.y) - prompts.clean)
        .square()
        .mean()
        for share in (best.share - 0.05, best.share, best.share + 0.05)
    }
    assert min(error, key=error.get) == best.share


# The model


def test_a_prediction_sees_what_is_before_it_and_nothing_else():
    model = ContextRegressor(SMALL).eval()
    some = draw("trained", 3, 6, seed=0, d=3)
    changed = some.y.clone()
    changed[:, 3] += 1
    before, after = model.predict(some.x, some.y), model.predict(some.x, changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).all()
    parts = model.predict(some.x, some.y, batch=2)
    assert torch.allclose(parts, before, atol=1e-6)


def test_a_few_steps_of_training_lower_the_loss_and_are_written(tmp_path):
    recipe = Recipe(steps=60, batch=32, n_pairs=6, warmup=5, learning_rate=0.02)
    told = []
    listen = lambda what, share: told.append(what)  # noqa: E731
    model = train(tmp_path / "a", recipe=recipe, shape=SMALL, progress=listen)
    losses = [float(what.split()[-1]) for what in told]
    assert len(losses) == 60 and np.mean(losses[-15:]) < 0.9 * np.mean(losses[:15])
    assert model.record["recipe"]["steps"] == 60 and model.record["losses"][-1]["step"] == 60
    again = train(tmp_path / "b", recipe=recipe, shape=SMALL)
    some = draw("trained", 5, 6, seed=0, d=3)
    assert torch.equal(model.predict(some.x, some.y), again.predict(some.x, some.y))
    with pytest.raises(OutputError):
        train(tmp_path / "a", recipe=recipe, shape=SMALL)


def test_the_shipped_model_is_within_a_tenth_of_ridge_regression(trained):
    """Mean over 1 to 20 examples, against w . x without its noise."""
    assert trained.bayes == "ridge, λ = 0.25"
    assert trained.ratio().high < 1.1
    assert all(trained.ratio(n=n).low < 1.5 for n in range(1, 21))


def test_it_says_what_ridge_says_and_not_what_others_say(trained):
    assert trained.nearest().startswith("ridge")
    ridge = trained.estimate(trained.bayes, "distance")
    for other in ("least squares", "1 gradient step", "3 nearest neighbours", "mean"):
        assert ridge.high < trained.estimate(other, "distance").low


def test_the_shipped_record_is_that_of_the_recipe(model):
    assert model.record["recipe"] == {
        name: getattr(Recipe(), name) for name in model.record["recipe"]
    }
    assert model.record["cpu_seconds"] <= 20 * 60


# The comparison


def test_measures_are_what_they_say():
    predictions = np.zeros((1, 3, 2, 3))
    predictions[0, 0], predictions[0, 1] = 1.0, 3.0
    found = RegressionResult(
        settings=("trained",), learners=(TRANSFORMER, "a", "b"), shares={}, bayes="b", n_trained=2,
        seed=0, predictions=predictions, clean=np.full((1, 2, 3), 2.0),
    )  # fmt: skip
    assert found.estimate(TRANSFORMER).mean == found.estimate("a").mean == 1
    assert found.estimate("b").mean == 4 and found.ratio().mean == 0.25
    assert found.estimate("a", "distance").mean == 4 and found.estimate("b", "distance").mean == 1
    assert found.nearest() == "b" and found.ratio("a", n=2).mean == 0.25


def test_same_seed_same_table_and_a_figure_for_each(tmp_path):
    model = ContextRegressor(SMALL).eval()
    method = CompareLearners(settings=("trained", "sparse"), n_pairs=5, prompts=20)
    told = []
    found = method(model, progress=lambda words, share: told.append(share))
    frame = found.to_frame()
    assert frame.equals(method(model).to_frame()) and told == [0, 0.5]
    assert not frame.equals(replace(method, seed=1)(model).to_frame())
    of = {key: own["mean"] for key, own in frame.groupby(["setting", "measure"])}
    assert shows(found.figure(), of["trained", "error"])
    assert shows(found.figure("distance", setting="sparse"), of["sparse", "distance"])
    assert (
        len(found.figure_settings().data) and len(found.summary()) == 2 and len(found.ratios()) == 5
    )
    found.save(tmp_path / "kept")
    assert RegressionResult.load(tmp_path / "kept").to_frame().equals(frame)


# What is inside


@pytest.fixture(scope="module")
def readings(model):
    method = ReadLearner(n_examples=8, fitted_on=500, scored_on=200, seed=4)
    return {place: replace(method, place=place)(model) for place in get_args(Place)}


@pytest.mark.parametrize("target", ["moment Σ y x", "ridge weights"])
def test_labels_together_hold_what_no_control_holds(readings, target):
    found = readings["labels"]
    own = found.r2(target, found.best_depth(target))
    for control in ("twin", "shuffled"):
        assert own.low > 0.2 + max(found.r2(target, depth, control).high for depth in range(7))
    assert found.r2(target, 0).high < 0.05  # an embedding knows no x and y together
    assert shows(found.figure(), found.to_frame()["mean"])


def test_nothing_reads_what_cannot_be_known(readings):
    for found in readings.values():
        assert max(found.r2("true - ridge weights", depth).low for depth in range(7)) < 0.02
        for target in found.targets:
            assert max(found.r2(target, depth, "shuffled").low for depth in range(7)) < 0.02


def test_r2_is_1_for_a_perfect_reading_and_0_for_the_mean():
    found = ReadingResult(
        place="query", n_examples=2, targets=("a",), readings=("states",), seed=0,
        missed=np.stack([np.zeros(5), np.arange(5.0), np.full(5, 4.0)])[None, None],
        spread=np.arange(5.0)[None, None],
    )  # fmt: skip
    assert [found.r2("a", depth).mean for depth in range(3)] == [1, 0, -1]
    assert found.best_depth("a") == 0
    with pytest.raises(InputError):
        found.r2("b", 0)


# Bad input


@pytest.mark.parametrize(
    ("made", "fields"),
    [
        (Setting, {"noise": -0.1}),
        (Setting, {"scale": 0.0}),
        (Setting, {"n_weights": 6}),
        (Ridge, {"penalty": 0.0}),
        (GradientDescent, {"steps": 0, "share": 0.1}),
        (GradientDescent, {"steps": 1, "share": 1.0}),
        (NearestNeighbours, {"k": 0}),
        (Shape, {"d_model": 30, "n_heads": 4}),
        (Shape, {"n_layers": 0}),
        (Recipe, {"steps": 0}),
        (CompareLearners, {"settings": ()}),
        (CompareLearners, {"settings": ("trained", "trained")}),
        (CompareLearners, {"settings": ("unheard of",)}),
        (CompareLearners, {"prompts": 1}),
        (CompareLearners, {"penalties": (0.0,)}),
        (CompareLearners, {"steps": (0,)}),
        (ReadLearner, {"n_examples": 0}),
        (ReadLearner, {"fitted_on": 5}),
    ],
)
def test_impossible_numbers_are_refused_where_they_are_given(made, fields):
    with pytest.raises(InputError):
        made(**fields)


def test_bad_files_and_inputs_are_named(tmp_path, trained):
    with pytest.raises(MissingFile):
        ContextRegressor.load(tmp_path)
    ContextRegressor(SMALL).save(tmp_path)
    record = tmp_path / "training.json"
    record.write_text(record.read_text().replace('"d_model": 16', '"d_model": 32'))
    with pytest.raises(MalformedRecord):
        ContextRegressor.load(tmp_path)
    with pytest.raises(InputError, match="3 dimensions"):
        ContextRegressor().predict(torch.zeros(1, 2, 3), torch.zeros(1, 2))
    for call in (
        lambda: trained.estimate("nobody"),
        lambda: trained.estimate("zero", setting="sparse"),
        lambda: trained.ratio(n=21),
        lambda: draw("trained", 0, 4, seed=0),
    ):
        with pytest.raises(InputError):
            call()
