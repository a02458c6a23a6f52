"""The anatomy of an architecture: where its parts sit, by the names that Hugging Face gives them.

Read off the bridge's adapter, so a family that transformer_lens knows needs no code here.
"""

import inspect
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from labkit.errors import INSTEAD, SelfCheckFailed

Site = Literal[
    "resid_pre", "attn_out", "ffn_in", "ffn_key", "ffn_value", "ffn_out", "resid_post", "head_out"
]
"""Where an activation is read or written, by block:

- resid_pre, resid_post: the residual stream entering and leaving the block [d_model]
- attn_out, ffn_out: what attention and FFN add to the residual stream [d_model]
- ffn_in: what the FFN reads, after its norm [d_model]
- ffn_key: the input of the FFN's output projection, the *key* [d_mlp]
- ffn_value: what that projection answers; `ffn_out` but for families that norm it after
- head_out: the input of attention's output projection, all heads side by side
"""


@dataclass(frozen=True)
class Anatomy:
    """Dotted names of the parts of an architecture, as Hugging Face calls them.

    `attn_out` and `ffn_out` are the modules whose outputs are added to the residual stream.
    """

    embed: str
    blocks: str
    final_norm: str
    unembed: str
    attn: str
    attn_proj: str
    attn_post: str | None
    ffn: str
    ffn_in: str
    ffn_proj: str
    ffn_post: str | None
    attn_out: str
    ffn_out: str

    @classmethod
    def of(cls, bridge: Any, hf: PreTrainedModel) -> "Anatomy":
        """Read the names off a bridge's architecture adapter.

        Where a part's own forward adds the residual stream (BLOOM, MPT), what the part itself
        adds leaves its output projection.

        Raises:
            SelfCheckFailed: If the architecture has no block of attention and one FFN.
        """
        parts = bridge.adapter.component_mapping
        try:
            block = parts["blocks"].submodules
            attn, ffn = block["attn"], block["mlp"]
            # Some families (OPT) keep the FFN's projections in the block, with no module around.
            inside = f"{ffn.name}." if ffn.name else ""
            ffn_proj = inside + ffn.submodules["out"].name
            attn_proj = f"{attn.name}.{attn.submodules['o'].name}"
            attn_post = block["ln1_post"].name if "ln1_post" in block else None
            ffn_post = block["ln2_post"].name if "ln2_post" in block else None
            first = hf.get_submodule(f"{parts['blocks'].name}.0")
            return cls(
                embed=parts["embed"].name,
                blocks=parts["blocks"].name,
                final_norm=parts["ln_final"].name,
                unembed=parts["unembed"].name,
                attn=attn.name,
                attn_proj=attn_proj,
                attn_post=attn_post,
                ffn=ffn.name or ffn_proj,
                ffn_in=ffn.name or ffn.submodules["in"].name,
                ffn_proj=ffn_proj,
                ffn_post=ffn_post,
                attn_out=attn_post or _adds(first, attn.name, attn_proj),
                ffn_out=ffn_post or _adds(first, ffn.name or ffn_proj, ffn_proj),
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise SelfCheckFailed(
                f"{type(bridge.adapter).__name__}: no block of attention and one FFN to open "
                f"({error!r} is missing); encoders and mixtures of experts are not supported. "
                f"{INSTEAD}"
            ) from error


def _adds(block: nn.Module, part: str, projection: str) -> str:
    """The module whose output is what a part adds to the residual stream."""
    takes = inspect.signature(type(block.get_submodule(part)).forward).parameters
    return projection if "residual" in takes else part
