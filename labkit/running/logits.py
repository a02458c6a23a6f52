"""Logits: of a stream that left the last block, and of the token after a prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from labkit.arguments import checked
from labkit.running.execute import Execution
from labkit.running.forwards import replaced
from labkit.tokens import TokenBatch

if TYPE_CHECKING:
    from labkit.models.model import LabModel

MEMORY = 1 << 30
"""Default bound, in bytes, on the activations of one partial run."""


@checked
def read_logits(
    model: "LabModel", resid: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos vocab"]:
    """Logits of a residual stream that left the last block, by the model's own head.

    The final norm, the unembedding and whatever else the architecture does to its logits.
    Hand in only the positions that are read: the unembedding is a large part of a small
    model.
    """
    normed = model.final_norm(resid)

    def body(*args: Any, **kwargs: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=normed)

    # The module that runs the blocks: in most families `hf.base_model`, in OPT a part of it.
    runs_blocks = model.hf.get_submodule(model.anatomy.blocks.rpartition(".")[0])
    with replaced(iter([(runs_blocks, body)])):
        ids = torch.zeros(resid.shape[:2], dtype=torch.long, device=resid.device)
        return model.hf(input_ids=ids, use_cache=False, return_dict=True).logits


@checked
@torch.no_grad()
def next_token_logits(
    model: "LabModel", prompts: Sequence[str] | TokenBatch, *, memory: int = MEMORY
) -> Float[Tensor, "prompt vocab"]:
    """Logits of the token that follows each prompt.

    Args:
        model: The model.
        prompts: Texts, or ids already padded on the left.
        memory: Bound on the activations held at once, in bytes.
    """
    batch = prompts if isinstance(prompts, TokenBatch) else model.tokens(prompts)
    order = batch.lengths.argsort()
    logits = torch.empty(batch.shape[0], model.d_vocab, dtype=model.dtype, device=model.device)
    for rows in order.split(rows_within(model, batch.shape[1], memory)):
        resid = Execution(model, batch.rows(rows)).forward()
        logits[rows] = read_logits(model, resid[:, -1:])[:, 0].to(logits)
    return logits


def rows_within(model: "LabModel", positions: int, memory: int = MEMORY) -> int:
    """How many rows of this length fit into a bound on activations, at least one."""
    widths = 8 * model.d_model + 4 * model.d_mlp + 2 * model.n_heads * positions
    return max(1, memory // (positions * widths * model.dtype.itemsize))
