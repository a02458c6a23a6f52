"""Attention at the end of a query: its output, its weights, and the answer.

The output is what attention adds to the stream, by layer. Where it looks is the logarithm of its
weights on the query's own tokens: its scores before the softmax, up to a constant for each head.
That constant is what demonstrations change most (they take weight away from the query), and it is
taken out before two maps are compared.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from labkit.errors import SelfCheckFailed
from labkit.models.model import LabModel
from labkit.running.activations import capture
from labkit.running.beginnings import Ids
from labkit.running.logits import read_logits
from labkit.running.packing import packed


@dataclass(frozen=True)
class Reading:
    """What was read at the last token of every query, in float64 on the CPU.

    Attributes:
        outputs: What attention adds to the stream.
        maps: One per query: centred log-weights on the last tokens of the prompt.
        log_probs: Log-probability of each label's first token, in nats.
    """

    outputs: Float[Tensor, "query layer d_model"]
    maps: tuple[Float[Tensor, "layer head _"], ...]
    log_probs: Float[Tensor, "query label"]


@torch.no_grad()
def read(
    model: LabModel, prompts: Sequence[Ids], firsts: Sequence[int], n_compared: Sequence[int]
) -> Reading:
    """Read the end of some prompts, what all begin with run once.

    Args:
        model: The model.
        prompts: Their ids.
        firsts: The first token of each label.
        n_compared: Of each prompt, how many of its last tokens make up its map.

    Raises:
        SelfCheckFailed: If the model's attention weights cannot be read.
    """
    n_prompts, firsts = len(prompts), list(firsts)
    outputs = torch.empty(n_prompts, model.n_layers, model.d_model, dtype=torch.float64)
    maps: list[Tensor] = [torch.empty(0)] * n_prompts
    said = torch.empty(n_prompts, len(firsts), dtype=torch.float64)
    with _weights_told(model) as told, capture(model, ["attn_out"]) as seen:
        for batch in packed(model, prompts):
            resid = batch.run.forward()
            rows = list(range(len(batch.numbers)))
            ends = [len(prompts[number]) for number in batch.numbers]
            last = batch.columns(rows, [end - 1 for end in ends])
            answers = [seen["attn_out", layer][rows, last] for layer in range(model.n_layers)]
            outputs[batch.numbers] = torch.stack(answers, dim=1).double().cpu()
            for row, number in enumerate(batch.numbers):
                stop = batch.run.first + last[row] + 1
                keys = slice(stop - n_compared[number], stop)
                weights = torch.stack([w[row, :, last[row], keys] for w in told])
                maps[number] = _centred(weights.double().cpu())
            logits = read_logits(model, resid[rows, last][:, None])[:, 0].double()
            said[batch.numbers] = logits.log_softmax(dim=-1)[:, firsts].cpu()
    return Reading(outputs, tuple(maps), said)


def update_cosines(
    before: Float[Tensor, "... d"], one: Float[Tensor, "... d"], other: Float[Tensor, "... d"]
) -> Float[Tensor, "..."]:
    """Cosine of two updates of the same state, in -1..1; 0 where there is no update.

    All three are brought to length 1 first, as in the paper: a change of length alone is no update.
    """
    start, first, second = (
        torch.nn.functional.normalize(state, dim=-1) for state in (before, one, other)
    )
    return _cosines(first - start, second - start)


def map_cosines(one: Reading, other: Reading) -> Float[Tensor, "query layer"]:
    """Cosine of where attention looks, head by head, averaged over the heads of a layer."""
    return torch.stack(
        [_cosines(a, b).mean(dim=-1) for a, b in zip(one.maps, other.maps, strict=True)]
    )


def n_common(one: Ids, other: Ids) -> int:
    """How many tokens two prompts have in common at their end."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosines along the last axis, 0 where one has no length."""
    product = one.norm(dim=-1) * other.norm(dim=-1)
    return torch.where(product > 0, (one * other).sum(dim=-1) / product.clamp(min=1e-300), 0.0)


def _centred(weights: Float[Tensor, "layer head key"]) -> Float[Tensor, "layer head key"]:
    """Log-weights, less their mean over the keys."""
    logs = weights.clamp(min=torch.finfo(torch.float32).tiny).log()
    return logs - rearrange(logs.mean(dim=-1), "layer head -> layer head 1")


@contextmanager
def _weights_told(model: LabModel) -> Iterator[list[Tensor]]:
    """Attention's weights of the last run, by layer, `[row head pos key]`.

    Only attention that is spelled out keeps its weights: the model is switched to it, and back.
    """
    told: list[Tensor] = [torch.empty(0)] * model.n_layers
    before = model.hf.config._attn_implementation
    handles = []
    try:
        for layer, block in enumerate(model.blocks):

            def keep(_module: object, _args: object, out: object, at: int = layer) -> None:
                weights = out[1] if isinstance(out, tuple) and len(out) > 1 else None
                if not isinstance(weights, Tensor):
                    raise SelfCheckFailed(f"{model.name}: its attention weights cannot be read")
                told[at] = weights

            module = block.get_submodule(model.anatomy.attn)
            handles.append(module.register_forward_hook(keep))
        model.hf.set_attn_implementation("eager")
        yield told
    finally:
        model.hf.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
