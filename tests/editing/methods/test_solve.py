"""The closed forms against brute force in float64, written down independently of them."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch

from editing.methods.closed_form.solve import (
    Euclidean,
    Occurring,
    Remembering,
    Subspace,
    change,
    null_space,
)
from labkit.errors import InputError, SingularSystem
from labkit.text.moments import RIDGE, SecondMoment

D_MLP, D_MODEL, N_KEYS, N_EARLIER = 24, 7, 5, 4


def normal(*shape, seed):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


@pytest.fixture
def moment():
    """A second moment whose spectrum spans four decades."""
    scales = torch.logspace(0, -2, D_MLP, dtype=torch.float64)
    mixing = torch.tensor(scipy.stats.ortho_group.rvs(D_MLP, random_state=0))
    keys = (normal(500, D_MLP, seed=1) * scales) @ mixing
    return SecondMoment(keys.T @ keys / 500, 0, 500, "a test", "0" * 64)


@pytest.fixture
def keys():
    return normal(N_KEYS, D_MLP, seed=2)


@pytest.fixture
def residuals():
    return normal(N_KEYS, D_MODEL, seed=3)


@pytest.fixture
def earlier():
    return normal(N_EARLIER, D_MLP, seed=4)


def ridged(moment):
    C = moment.matrix.numpy()
    return C + RIDGE * np.diag(C).mean() * np.eye(len(C))


def matrix_of(name, moment, earlier):
    """Each metric as the library has it, and as a plain matrix."""
    K = earlier.numpy()
    return {
        "euclidean": (Euclidean(0.3), 0.3 * np.eye(D_MLP)),
        "occurring": (Occurring(moment, 0.2), 0.2 * D_MLP * ridged(moment)),
        "remembering": (
            Remembering(Occurring(moment, 0.2), earlier),
            0.2 * D_MLP * ridged(moment) + K.T @ K,
        ),
    }[name]


METRICS = ["euclidean", "occurring", "remembering"]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_divides_by_its_matrix(name, moment, earlier, keys):
    metric, A = matrix_of(name, moment, earlier)
    brute = np.linalg.solve(A, keys.numpy().T).T
    np.testing.assert_allclose(metric.solve(keys), brute, atol=1e-9 * np.abs(brute).max())


@pytest.mark.parametrize("name", METRICS)
def test_exact_is_the_solution_of_lagranges_conditions(name, moment, earlier, keys, residuals):
    """min tr(D^T A D) subject to K D = R: one linear system of D and the multipliers."""
    metric, A = matrix_of(name, moment, earlier)
    K = keys.numpy()
    system = np.block([[2 * A, K.T], [K, np.zeros((N_KEYS, N_KEYS))]])
    wanted = np.vstack([np.zeros((D_MLP, D_MODEL)), residuals.numpy()])
    brute = np.linalg.solve(system, wanted)[:D_MLP]
    left, right = change(metric, keys, residuals)
    np.testing.assert_allclose(left @ right, brute, atol=1e-9 * np.abs(brute).max())
    np.testing.assert_allclose(keys @ left @ right, residuals, atol=1e-9)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("softness", [1.0, 0.01])
def test_soft_is_the_least_squares_solution(name, softness, moment, earlier, keys, residuals):
    """min tr(D^T A D) + ||K D - R||^2 / s, by lstsq on stacked rows."""
    metric, A = matrix_of(name, moment, earlier)
    rows = np.vstack([np.linalg.cholesky(A).T, keys.numpy() / np.sqrt(softness)])
    wanted = np.vstack([np.zeros((D_MLP, D_MODEL)), residuals.numpy() / np.sqrt(softness)])
    brute = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    left, right = change(metric, keys, residuals, softness=softness)
    np.testing.assert_allclose(left @ right, brute, atol=1e-9 * np.abs(brute).max())


@pytest.mark.parametrize("threshold", [0.01, 0.3, 1.0])
def test_in_a_null_space_it_is_least_squares_in_its_coordinates(
    threshold, moment, earlier, keys, residuals
):
    """min scale ||X||^2 + ||K_p B X||^2 + ||K B X - R||^2, and D = B X."""
    space = null_space(moment, threshold)
    held, B = np.linalg.eigh(moment.matrix.numpy())
    B = B[:, np.cumsum(held) <= threshold * held.sum() * (1 + 1e-12)]
    assert space.dimension == B.shape[1]
    rows = np.vstack([np.sqrt(space.scale) * np.eye(B.shape[1]), earlier @ B, keys @ B])
    wanted = np.vstack([np.zeros((B.shape[1] + N_EARLIER, D_MODEL)), residuals.numpy()])
    brute = B @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
    left, right = change(Remembering(space, earlier), keys, residuals, softness=1.0)
    np.testing.assert_allclose(left @ right, brute, atol=1e-9 * np.abs(brute).max())


def test_keys_outside_of_the_null_space_are_answered_as_before(moment, keys, residuals):
    space = null_space(moment, 0.01)
    _, directions = np.linalg.eigh(moment.matrix.numpy())
    left, right = change(space, keys[:2], residuals[:2], softness=1e-3)
    kept, free = directions[:, space.dimension :], directions[:, : space.dimension]
    assert np.abs(kept.T @ left.numpy() @ right.numpy()).max() < 1e-9
    assert np.abs(free.T @ left.numpy() @ right.numpy()).max() > 1e-2


def test_what_is_left_out_of_the_null_space_is_all_but_a_share_of_the_trace(moment):
    held = np.linalg.eigvalsh(moment.matrix.numpy())
    for threshold in (0.001, 0.01, 0.3):
        n = null_space(moment, threshold).dimension
        assert held[:n].sum() <= threshold * held.sum() < held[: n + 1].sum()
    scaled = dataclasses.replace(moment, matrix=1000 * moment.matrix)  # relative, not absolute
    assert null_space(scaled, 0.01).dimension == null_space(moment, 0.01).dimension


def test_the_unit_of_the_weight_is_the_key_that_occurs(moment):
    """The mean over keys of `k^T A^-1 k` is one at a weight of one, whatever the scale of C."""
    for scaled in (moment, dataclasses.replace(moment, matrix=100 * moment.matrix)):
        keys = normal(20000, D_MLP, seed=5) @ torch.linalg.cholesky(scaled.matrix).T
        for metric in (Occurring(scaled, 1.0), null_space(scaled, 0.1, weight=1.0)):
            assert (metric.solve(keys) * keys).sum(1).mean() == pytest.approx(1.0, rel=0.05)


def test_one_key_gives_the_rank_one_update_of_rome(moment, keys, residuals):
    left, right = change(Occurring(moment, 3.0), keys[:1], residuals[:1])
    direction = np.linalg.solve(ridged(moment), keys[0].numpy())
    rome = np.outer(direction, residuals[0]) / (direction @ keys[0].numpy())
    np.testing.assert_allclose(left @ right, rome, atol=1e-9 * np.abs(rome).max())


def test_soft_becomes_exact_as_the_metric_becomes_light(moment, keys, residuals):
    exact, soft = (
        left @ right
        for left, right in (
            change(Occurring(moment), keys, residuals),
            change(Occurring(moment, 1e-9), keys, residuals, softness=1.0),
        )
    )
    torch.testing.assert_close(soft, exact, rtol=1e-5, atol=1e-7)


def test_rounded_factors_are_as_good_as_a_rounded_change(moment, keys, residuals):
    """Two keys that nearly coincide: the factors do not blow up against each other."""
    keys[1] = keys[0] + 1e-2 * keys[1]
    left, right = change(Occurring(moment), keys, residuals)
    error = left.float().double() @ right.float().double() - left @ right
    assert error.abs().max() < 1e-6 * (left @ right).abs().max()


# --- refusals -----------------------------------------------------------------------------


def test_keys_that_coincide_are_named(moment, keys, residuals):
    names = ["one", "two", "three", "four", "five"]
    keys[3] = 2 * keys[1] + 1e-9 * keys[3]
    with pytest.raises(SingularSystem, match="'four' is .nearly. that of 'two'"):
        change(Occurring(moment), keys, residuals, names=names)
    keys[3] = keys[1] + keys[2]
    with pytest.raises(SingularSystem, match="'four'.*'(two|three)'.*made up"):
        change(Occurring(moment), keys, residuals, names=names)
    change(Occurring(moment, 0.1), keys, residuals, softness=1.0)  # soft can


def test_what_is_not_finite_is_named(moment, keys, residuals):
    keys[2, 3] = torch.inf
    with pytest.raises(SingularSystem, match="'c'.*not finite"):
        change(Euclidean(), keys, residuals, names=list("abcde"))


def test_a_key_without_a_part_in_the_subspace_is_named(residuals):
    basis = torch.eye(D_MLP, dtype=torch.float64)[:, :3]
    keys = torch.eye(D_MLP, dtype=torch.float64)[[1, 9]]
    with pytest.raises(SingularSystem, match="'b' lies outside"):
        change(Subspace(basis), keys, residuals[:2], names=["a", "b"])


def test_a_second_moment_that_is_none_is_named(moment, keys, residuals):
    for bad in (torch.nan * moment.matrix, 0 * moment.matrix):
        broken = dataclasses.replace(moment, matrix=bad)
        with pytest.raises(SingularSystem, match="second moment of layer 0"):
            change(Occurring(broken), keys, residuals)
        with pytest.raises(SingularSystem, match="second moment of layer 0"):
            null_space(broken, 0.1)
    for threshold in (-0.1, 1.5):
        with pytest.raises(InputError, match="share"):
            null_space(moment, threshold)
    with pytest.raises(InputError, match="no direction"):
        null_space(moment, 1e-12)
