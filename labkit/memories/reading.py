"""One run of one prompt, ready to be read linearly at its last position."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.memories.norms import LinearNorm, frozen
from labkit.models.model import LabModel
from labkit.running.activations import capture
from labkit.running.execute import Execution
from labkit.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class Reading:
    """The parts of the residual stream at the last position of a run, and how they are read.

    Attributes:
        embed: What enters block 0.
        resid: The residual stream leaving the last block.
        keys: FFN keys, by layer.
        head_out: Inputs of attention's output projection, by layer.
        final: The final norm, its scale held.
        ffn_post: The norm after each FFN, its scale held; None where there is none.
        attn_post: The norm after each attention, likewise.
    """

    embed: Float[Tensor, " d_model"]
    resid: Float[Tensor, " d_model"]
    keys: tuple[Tensor, ...]
    head_out: tuple[Tensor, ...]
    final: LinearNorm
    ffn_post: tuple[LinearNorm | None, ...]
    attn_post: tuple[LinearNorm | None, ...]


@torch.no_grad()
def read_last(model: LabModel, batch: TokenBatch) -> Reading:
    """Run one prompt and hold every norm that reads a sum at its scale.

    Raises:
        NotDecomposable: If one of the norms is not linear at a held scale.
    """
    layers = range(model.n_layers)
    run = Execution(model, batch)
    with capture(model, ["ffn_key", "head_out"]) as seen:
        resid = run.forward()[0, -1]
    keys = tuple(seen["ffn_key", layer][0, -1] for layer in layers)
    head_out = tuple(seen["head_out", layer][0, -1] for layer in layers)
    ffn_post: list[LinearNorm | None] = [None] * model.n_layers
    attn_post: list[LinearNorm | None] = [None] * model.n_layers
    for layer in layers:
        if model.anatomy.ffn_post is not None:
            written = model.ffn_proj(layer)(keys[layer])
            ffn_post[layer] = frozen(model.site("ffn_out", layer)[0], written)
        if model.anatomy.attn_post is not None:
            written = model.site("head_out", layer)[0](head_out[layer])
            attn_post[layer] = frozen(model.site("attn_out", layer)[0], written)
    final = frozen(model.final_norm, resid)
    embed = run.embed[0, -1]
    return Reading(embed, resid, keys, head_out, final, tuple(ffn_post), tuple(attn_post))
