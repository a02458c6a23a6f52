"""What must hold of a loaded model before any number from it can be trusted.

Run by `labkit.load`. Each law is checked on a few tokens, causally where it can be:
a write through the lab's view must change what both faces of the model say.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import INSTEAD, SelfCheckFailed
from labkit.running.activations import capture
from labkit.running.execute import Execution, freeze
from labkit.running.logits import read_logits
from labkit.tokens import TokenBatch

if TYPE_CHECKING:
    from labkit.models.anatomy import Site
    from labkit.models.model import LabModel

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference allowed, as a share of the largest value compared.

Norms and rotary angles are computed in float32 whatever the weights are, by Hugging Face
and by the bridge alike, which bounds what float64 can show.
"""

SITES: tuple["Site", ...] = (
    "resid_pre",
    "attn_out",
    "ffn_in",
    "ffn_key",
    "ffn_value",
    "ffn_out",
    "resid_post",
    "head_out",
)

LENGTHS = (7, 4)
"""Two prompts of different lengths. The shorter one, which is padded, is the one compared."""


@checked
@torch.no_grad()
def check(model: "LabModel") -> None:
    """Check every law below.

    Raises:
        SelfCheckFailed: With the law that does not hold, and by how much.
    """
    _require_finite(model)
    batch = _prompts(model)
    single = batch.rows([1])
    with capture(model, SITES) as seen:
        full = model.hf(input_ids=single.ids, use_cache=False).logits

    bridged = model.bridge(single.ids)
    _same(model, "bridge logits = Hugging Face logits", bridged, full)

    for layer in range(model.n_layers):
        total = seen["resid_pre", layer] + seen["attn_out", layer] + seen["ffn_out", layer]
        law = f"resid_pre + attn_out + ffn_out = resid_post in block {layer}"
        _same(model, law, total, seen["resid_post", layer])
        key, bias = seen["ffn_key", layer], model.ffn_bias(layer)
        written = key @ model.ffn_out(layer)
        if bias is not None:
            written = written + bias
        law = f"key @ ffn_out + bias = output of the FFN in block {layer}"
        _same(model, law, written, model.ffn_proj(layer)(key))

    run = Execution(model, batch)
    middle = model.n_layers // 2
    with capture(model, SITES) as seen:
        resumed = read_logits(model, run.forward(run.forward(stop=middle), start=middle))
    for (site, layer), states in seen.items():
        if states.dim() != 3 or states.shape[:2] != batch.shape:
            raise SelfCheckFailed(
                f"{model.name}: {site} of block {layer} is no state per row and position, but "
                f"{list(states.shape)} for {list(batch.shape)} tokens. {INSTEAD}"
            )
    padded = resumed[1:, -LENGTHS[1] :]
    _same(model, "a left-padded batch, stopped and resumed = one prompt alone", padded, full)
    tail = Execution(model, batch, freeze(model, batch, length=batch.shape[1] - 2))
    _same(
        model, "a frozen prefix = the full run", read_logits(model, tail.forward()), resumed[:, -2:]
    )

    weight = model.ffn_out(middle)
    before = weight.clone()
    try:
        weight.mul_(-1)
        for face, logits, unwritten in (
            ("Hugging Face model", model.hf(input_ids=single.ids, use_cache=False).logits, full),
            ("bridge", model.bridge(single.ids), bridged),
        ):
            if torch.equal(logits, unwritten):
                raise SelfCheckFailed(
                    f"{model.name}: a write through ffn_out({middle}) does not reach the {face}"
                )
    finally:
        weight.copy_(before)


def _require_finite(model: "LabModel") -> None:
    """Every weight is finite: a check on one prompt could miss one that is not."""
    for name, weight in model.hf.named_parameters():
        if weight.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(weight))).all()):
            raise SelfCheckFailed(
                f"{model.name}: {name} holds values that are not finite; the weights are damaged, "
                f"or beyond what {str(model.dtype).removeprefix('torch.')} can hold"
            )


def _prompts(model: "LabModel") -> TokenBatch:
    """Arbitrary tokens from all over the vocabulary."""
    draw = torch.Generator().manual_seed(0)
    return model.pad(
        [torch.randint(model.d_vocab, (length,), generator=draw).tolist() for length in LENGTHS]
    )


def _same(model: "LabModel", law: str, left: Tensor, right: Tensor) -> None:
    """Compare two tensors at the precision of the model's dtype."""
    if not bool(torch.isfinite(right).all()):
        raise SelfCheckFailed(f"{model.name}: the model gives values that are not finite")
    gap = (left - right).abs().max().item()
    allowed = TOLERANCE[model.dtype] * max(1.0, right.abs().max().item())
    if not gap <= allowed:
        raise SelfCheckFailed(
            f"{model.name}: {law} does not hold: off by {gap:.2e}, {allowed:.2e} allowed. {INSTEAD}"
        )
