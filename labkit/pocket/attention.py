"""Restricted attention for the first part of training; see `labkit.pocket.training` for why."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import LlamaForCausalLM


@contextmanager
def local_attention(
    model: LlamaForCausalLM,
    ids: Int[Tensor, "document pos"],
    *,
    n_layers: int,
    openers: Int[Tensor, " opener"],
) -> Iterator[None]:
    """Attention that makes a name be recognised at its last word.

    In every block the first word of a name is seen only by itself and by the word after it;
    in the lower blocks, moreover, a position sees only BOS, the position before and itself.

    Args:
        model: A Llama; as before when the context is left.
        ids: The documents that will be run.
        n_layers: How many blocks, from the bottom, are local.
        openers: Ids of the words that open a name of two words.
    """
    place = torch.arange(ids.shape[1], device=ids.device)
    back = place[:, None] - place[None, :]
    near = (back == 0) | (back == 1)
    unhidden = (back >= 0) & (near | ~torch.isin(ids, openers)[:, None, None, :])
    local = unhidden & (near | (place == 0)[None, :])

    def attend(mask: Tensor) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """A forward pre-hook that puts a mask in place of the causal one."""
        return lambda module, args, kwargs: (args, {**kwargs, "attention_mask": mask})

    hooks = [
        block.self_attn.register_forward_pre_hook(
            attend(local if layer < n_layers else unhidden), with_kwargs=True
        )
        for layer, block in enumerate(model.model.layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
