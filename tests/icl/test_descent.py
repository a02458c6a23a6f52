"""The layer made by hand is gradient descent, to the last digits."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.icl.implicit.descent import Descend, by_attention, by_autograd, gradient_step
from labkit.icl.implicit.regression_prompts import Setting, draw
from tests.reference import shows


def problem(dtype, *, d_x=5, d_y=2, n=12):
    """Prompts with several outputs, and weights to start from that are not zero."""
    sizes = ((8, n, d_x), (8, n, d_y), (8, d_x), (d_y, d_x))
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=draws, dtype=torch.float64).to(dtype) for size in sizes]


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_one_layer_is_one_step_of_gradient_descent(dtype, within):
    x, y, query, start = problem(dtype)
    how = {"start": start, "rate": 0.1, "steps": 1}
    layer, step = by_attention(x, y, query, **how), by_autograd(x, y, query, **how)
    assert (layer[1] - layer[0]).abs().max() > 0.1  # the step goes somewhere
    assert (layer - step).abs().max() / step.abs().max() < within


def test_k_layers_are_k_steps():
    x, y, query, start = problem(torch.float64)
    how = {"start": start, "rate": 0.3, "steps": 20}
    layers, steps = by_attention(x, y, query, **how), by_autograd(x, y, query, **how)
    assert layers.shape == (21, 8, 2)
    assert (layers - steps).abs().max() < 1e-12
    assert torch.equal(layers[0], query @ start.mT)


def test_many_steps_end_at_least_squares():
    x, y, query, start = problem(torch.float64, n=40)
    said = by_attention(x, y, query, start=start, rate=0.3, steps=500)[-1]
    expected = (query[:, None] @ torch.linalg.lstsq(x, y).solution).squeeze(1)
    assert (said - expected).abs().max() < 1e-9


def test_examples_alone_are_attended_to():
    x, y, _, start = problem(torch.float64)
    layer = gradient_step(start, rate=0.1, n_examples=12)
    tokens = torch.cat([x, y], dim=-1)
    more = torch.cat([tokens, 2 * tokens[:, :3]], dim=1)
    torch.testing.assert_close(layer(more, 12)[:, :12], layer(tokens, 12), rtol=0, atol=1e-12)
    assert not torch.allclose(layer(more, 15)[:, :12], layer(tokens, 12))


def test_the_result_is_descent_written_out():
    prompts = draw("trained", 50, 10, seed=0)
    found = Descend(steps=3, rate=0.4)(prompts)
    x, y = prompts.x[:, :-1].double(), prompts.y[:, :-1].double()
    w = torch.zeros(50, 5, dtype=torch.float64)
    for _ in range(3):
        w = w - 0.4 / 10 * torch.einsum("pnd,pn->pd", x, torch.einsum("pnd,pd->pn", x, w) - y)
    learner = (prompts.x[:, -1] * w).sum(dim=1)
    assert np.abs(found.attention[-1] - learner.numpy()).max() < 1e-12
    assert found.gap < 1e-12
    frame = found.to_frame()
    assert frame["step"].tolist() == [0, 1, 2, 3] and frame["mean"].is_monotonic_decreasing
    weights = found.weights().pivot(index=["matrix", "row"], columns="column", values="weight")
    assert weights.loc[("V", "y"), "y"] == -1 and weights.loc[("P", "y"), "y"] == 0.04
    assert shows(found.figure(), found.weights()["weight"])


def test_bad_input():
    with pytest.raises(InputError):
        gradient_step(torch.zeros(1, 3), rate=0.0, n_examples=2)
    with pytest.raises(InputError):
        gradient_step(torch.zeros(1, 3), rate=0.1, n_examples=0)
    for fields in ({"steps": 0}, {"rate": -1.0}):
        with pytest.raises(InputError):
            Descend(**fields)
    with pytest.raises(InputError):
        Setting(d=0)
