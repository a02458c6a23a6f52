"""Calling a student's function, and what any answer must keep to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import CheckFailed
from labkit.models.model import LabModel

CLOSE = 1e-3
"""Largest difference, relative to the largest number of the right answer, that is rounding."""


@dataclass(frozen=True)
class Passed:
    """What a check returns: a notebook shows it as one line."""

    exercise: str

    def __repr__(self) -> str:
        return f"{self.exercise}: every law holds"


def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a student's function; models and tensors must be afterwards as they were before.

    What it left behind (hooks, changed weights) is taken away again, so that the next attempt
    starts from the same model.

    Raises:
        CheckFailed: If it left a hook behind, or changed weights or an argument.
    """
    models = [a for a in arguments if isinstance(a, LabModel)]
    tensors = [(i, a, a.clone()) for i, a in enumerate(arguments, 1) if isinstance(a, Tensor)]
    hooks = [(store, dict(store)) for model in models for store in _hook_stores(model.hf)]
    weights = [(p, p.detach().clone()) for model in models for p in model.hf.parameters()]
    try:
        answer = function(*arguments)
    finally:
        left, moved = False, False
        for store, before in hooks:
            if set(store) != set(before):
                left = True
                store.clear()
                store.update(before)
        for weight, kept in weights:
            if not torch.allclose(weight, kept, atol=1e-5):
                moved = True
            with torch.no_grad():
                weight.copy_(kept)
    if left:
        raise CheckFailed("a hook is still on the model after your function has returned")
    if moved:
        raise CheckFailed("the model's weights are no longer as they were: the change stayed")
    for number, tensor, kept in tensors:
        if not torch.equal(tensor, kept):
            raise CheckFailed(f"argument {number} was changed in place; work on a copy")
    return answer


def _hook_stores(hf: nn.Module) -> list[Any]:
    """Where torch keeps the hooks of every module."""
    return [s for m in hf.modules() for s in (m._forward_hooks, m._forward_pre_hooks)]


def require_tensor(answer: Any, shape: Sequence[int], axes: str) -> Tensor:
    """An answer that is a finite tensor of the right shape, in float64.

    Raises:
        CheckFailed: If it is not.
    """
    if not isinstance(answer, Tensor):
        kind = "None: is there a return?" if answer is None else type(answer).__name__
        raise CheckFailed(f"the answer is {kind}; a tensor [{axes}] was asked for")
    asked, given = list(shape), list(answer.shape)
    if given != asked:
        hint = ""
        if given == asked[::-1]:
            hint = ": transposed"
        elif [n for n in given if n != 1] == asked:
            hint = ": an axis of length 1 is left, the batch perhaps"
        raise CheckFailed(f"the shape is {given}, and [{axes}] is {asked}{hint}")
    found = answer.detach().double()
    if not found.isfinite().all():
        raise CheckFailed("the answer holds numbers that are not finite")
    return found


def close(found: Tensor, right: Tensor) -> bool:
    """Whether two tensors of one shape are the same up to rounding."""
    right = right.double()
    scale = float(right.abs().max()) if right.numel() else 0.0
    return bool((found.double() - right).abs().max() <= CLOSE * max(scale, 1e-6))


def require(holds: bool, message: str) -> None:
    """Refuse an answer.

    Raises:
        CheckFailed: If a law does not hold.
    """
    if not holds:
        raise CheckFailed(message)
