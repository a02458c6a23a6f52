"""Prompts of different lengths, side by side: every token has a role.

A grid over the positions of one prompt cannot be averaged with that of another prompt until
both say what their positions are. The roles are those of Meng et al. (2022, figure 2): tokens
of the subject (first, middle, last), the first token after it, further tokens, and the last
token of the prompt, where the answer is read. Every position has at most one role:

- the last position is always the *last token*, whatever else it is: there, late layers hold
  the answer itself;
- a subject of one token is a *last* subject token, for there its name is complete;
- tokens before the subject have none: a causal model cannot know the subject there.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from labkit.errors import InputError

ROLES: tuple[str, ...] = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)
"""What a token is to the fact, in the order of the prompt."""


def role_positions(n_positions: int, subject_positions: Sequence[int]) -> dict[str, range]:
    """The positions of each role in one prompt; empty ranges where there is no such token.

    Args:
        n_positions: Number of tokens of the prompt.
        subject_positions: Positions of the subject's tokens: consecutive, in order.

    Raises:
        InputError: If there is no subject token, they are not consecutive, or one lies
            outside the prompt.
    """
    positions = [int(pos) for pos in subject_positions]
    if not positions or positions != list(range(positions[0], positions[0] + len(positions))):
        raise InputError(f"the tokens of a subject are consecutive positions, not {positions}")
    first, after, end = positions[0], positions[-1] + 1, n_positions - 1
    if first < 0 or after > n_positions:
        raise InputError(f"subject positions {positions} in a prompt of {n_positions} tokens")
    last = after - 1
    spans = {
        "first subject token": range(first, last)[:1],
        "middle subject tokens": range(first + 1, last),
        "last subject token": range(last, after),
        "first token after": range(after, end)[:1],
        "further tokens": range(after + 1, end),
        "last token": range(end, end + 1),
    }
    if last == end:  # the subject ends the prompt
        spans["last subject token"] = range(0)
    return {role: spans[role] for role in ROLES}


def align(
    grid: Float[np.ndarray, "*sample pos layer"], subject_positions: Sequence[int]
) -> Float[np.ndarray, "*sample role layer"]:
    """A grid over positions as a grid over `ROLES`: the mean over the tokens of each role.

    Args:
        grid: Anything by position and layer, of one prompt.
        subject_positions: Positions of the subject's tokens: consecutive, in order.

    Returns:
        In the order of `ROLES`; NaN where the prompt has no token in a role.

    Raises:
        InputError: If the positions are not those of a subject inside the prompt.
    """
    if grid.ndim < 2:
        raise InputError(f"a grid has axes for positions and layers, not the shape {grid.shape}")
    rows = [
        grid[..., positions.start : positions.stop, :].mean(axis=-2)
        if positions
        else np.full_like(grid[..., 0, :], np.nan)
        for positions in role_positions(grid.shape[-2], subject_positions).values()
    ]
    return np.stack(rows, axis=-2)
