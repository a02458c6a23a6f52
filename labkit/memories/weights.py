"""The share of FFN layers in a model's weights."""

from labkit.arguments import checked
from labkit.models.model import LabModel


@checked
def ffn_share(model: LabModel) -> tuple[float, float]:
    """Share of the FFNs in the weights of all blocks, and in all weights, 0..1.

    Every parameter counts once, tied ones too. Norms in front of an FFN or after it are the
    block's, not the FFN's.

    Args:
        model: The model.
    """
    own = {id(p): p.numel() for p in model.hf.parameters()}
    blocks = {id(p) for block in model.blocks for p in block.parameters()}
    ffn = {id(p) for block in model.bridge.blocks for p in block.mlp.parameters()} & own.keys()
    n_ffn, n_blocks = (sum(own[key] for key in keys) for keys in (ffn, blocks & own.keys()))
    return n_ffn / n_blocks, n_ffn / sum(own.values())
