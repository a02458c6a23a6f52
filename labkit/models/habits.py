"""Properties of blocks that no configuration states, measured on one tiny run."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

N_ROWS = 5
"""Rows of that run: a number that no size of a model is likely to be mistaken for."""


@dataclass(frozen=True)
class Habits:
    """How the blocks of a model behave.

    Attributes:
        returns_tuple: A block's forward returns more than the residual stream.
        flattens: The FFN runs on all positions of all rows as one axis (OPT).
        in_place: What attention or the FFN has answered is written into afterwards (Falcon
            adds the one to the other), so that it has to be copied to be kept.
        rows_by_heads: A block is handed something whose first axis is rows times heads
            (BLOOM's biases of distance).
    """

    returns_tuple: bool
    flattens: bool
    in_place: bool
    rows_by_heads: bool


@torch.no_grad()
def measure(
    hf: PreTrainedModel,
    *,
    block: nn.Module,
    ffn_proj: nn.Module,
    writers: Iterable[nn.Module],
    n_heads: int,
) -> Habits:
    """Measure them on some short rows.

    Args:
        hf: The model.
        block: Its first block.
        ffn_proj: The FFN's output projection in it.
        writers: The modules whose outputs are added to the residual stream.
        n_heads: Number of attention heads of a block.
    """
    answers: dict[nn.Module, object] = {}
    versions: list[tuple[Tensor, int]] = []

    def keep(module: nn.Module, _args: object, out: object) -> None:
        answers[module] = out
        if module is not block:
            tensor = out[0] if isinstance(out, tuple) else out
            assert isinstance(tensor, Tensor)
            versions.append((tensor, tensor._version))

    handed: list[object] = []

    def look(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        handed.extend([*args, *kwargs.values()])

    handles = [
        module.register_forward_hook(keep) for module in dict.fromkeys([block, ffn_proj, *writers])
    ]
    handles.append(block.register_forward_pre_hook(look, with_kwargs=True))
    try:
        device = hf.get_input_embeddings().weight.device
        hf.base_model(torch.zeros(N_ROWS, 3, dtype=torch.long, device=device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    keys = answers[ffn_proj]
    return Habits(
        returns_tuple=isinstance(answers[block], tuple),
        flattens=isinstance(keys, Tensor) and keys.dim() == 2,
        in_place=any(tensor._version != version for tensor, version in versions),
        rows_by_heads=any(
            isinstance(value, Tensor) and value.dim() == 3 and value.shape[0] == N_ROWS * n_heads
            for value in handed
        ),
    )
