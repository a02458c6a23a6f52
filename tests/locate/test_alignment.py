"""Every position has at most one role, and a role's row is the mean of its tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InputError
from labkit.locate.traces.alignment import ROLES, align, role_positions

FIRST, MIDDLE, LAST, AFTER, FURTHER, END = ROLES


def grid(n_positions, *sample):
    """Position + layer / 10 in every cell."""
    cells = np.arange(n_positions)[:, None] + np.arange(3) / 10
    return np.broadcast_to(cells, (*sample, n_positions, 3)).copy()


def rows(n_positions, subject):
    """By role, the mean position of its tokens."""
    return dict(zip(ROLES, align(grid(n_positions), subject)[:, 0], strict=True))


def test_a_long_subject_in_a_long_prompt_fills_every_role():
    found = rows(10, [1, 2, 3, 4])
    assert found == {FIRST: 1, MIDDLE: 2.5, LAST: 4, AFTER: 5, FURTHER: 7, END: 9}


@pytest.mark.parametrize(
    ("n_positions", "subject", "there"),
    [
        (5, [1], {LAST: 1, AFTER: 2, FURTHER: 3, END: 4}),  # one token: a last one
        (4, [0, 1], {FIRST: 0, LAST: 1, AFTER: 2, END: 3}),
        (4, [1, 2], {FIRST: 1, LAST: 2, END: 3}),  # what follows it is the prompt's last
        (4, [2, 3], {FIRST: 2, END: 3}),  # the subject ends the prompt
        (2, [1], {END: 1}),
    ],
)
def test_short_prompts_leave_roles_empty(n_positions, subject, there):
    found = rows(n_positions, subject)
    assert {role: mean for role, mean in found.items() if not np.isnan(mean)} == there


@given(st.integers(1, 12), st.data())
def test_every_position_from_the_subject_on_has_exactly_one_role(n_positions, data):
    first = data.draw(st.integers(0, n_positions - 1))
    stop = data.draw(st.integers(first + 1, n_positions))
    spans = role_positions(n_positions, range(first, stop))
    assert tuple(spans) == ROLES
    assert [pos for role in ROLES for pos in spans[role]] == list(range(first, n_positions))


def test_axes_in_front_are_kept():
    cells = grid(6, 4, 2)
    cells += np.random.default_rng(0).normal(size=cells.shape)
    aligned = align(cells, (1, 2))
    assert aligned.shape == (4, 2, len(ROLES), 3)
    np.testing.assert_allclose(aligned[3, 1], align(cells[3, 1], (1, 2)))
    np.testing.assert_allclose(aligned[..., ROLES.index(FURTHER), :], cells[..., 4, :])


@pytest.mark.parametrize("subject", [[], [1, 3], [2, 1], [-1, 0], [4, 5]])
def test_positions_that_are_no_subject_are_refused(subject):
    with pytest.raises(InputError):
        align(grid(5), subject)
