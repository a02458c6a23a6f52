"""Block single edges of attention into the last position, many sets of them at once.

A blocked edge into the last position leaves every other position as it was, in every block:
their keys and values are frozen, and every set of edges is a row of one token. A row joins
the batch at the first block in which something is blocked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.errors import InputError
from labkit.locate.traces.tracing import answer_probability
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import capture
from labkit.running.execute import Execution, freeze
from labkit.running.logits import MEMORY, rows_within
from labkit.tokens import TokenBatch


@dataclass(frozen=True)
class Cuts:
    """Edges from the last position that are blocked together, one row per cut.

    Attributes:
        heads: True where a head of a layer is blocked.
        keys: True at the positions that it may not attend to.
    """

    heads: Bool[Tensor, "cut layer head"]
    keys: Bool[Tensor, "cut pos"]

    def __len__(self) -> int:
        """Number of cuts."""
        return self.heads.shape[0]

    @classmethod
    def of(cls, heads: Bool[Tensor, "cut layer head"], positions: Sequence[int], n: int) -> "Cuts":
        """The same positions, of `n`, for several sets of heads."""
        keys = torch.zeros(n, dtype=torch.bool)
        keys[list(positions)] = True
        return cls(heads, keys.expand(len(heads), -1))

    @classmethod
    def joined(cls, parts: Sequence["Cuts"]) -> "Cuts":
        """Cuts one after the other."""
        heads = torch.cat([cuts.heads for cuts in parts])
        return cls(heads, torch.cat([cuts.keys for cuts in parts]))


@torch.no_grad()
def answer_when_blocked(
    model: LabModel,
    batch: TokenBatch,
    answer: int,
    cuts: Cuts,
    *,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Float[np.ndarray, " cut"]:
    """P(answer) at the last position of one prompt under each of many cuts.

    Args:
        model: The model.
        batch: One prompt of at least two tokens.
        answer: The token whose probability is read.
        cuts: What is blocked, one row per cut.
        memory: Bound on the activations held at once, in bytes.
        progress: Called with what is being done and the share that is done.

    Raises:
        InputError: If there is not one prompt, or a cut blocks every position for the last one.
    """
    n_prompts, n_positions = batch.shape
    if n_prompts != 1 or n_positions < 2:
        raise InputError(f"one prompt of two tokens or more, not {n_prompts} of {n_positions}")
    if bool(cuts.keys.all(dim=1).any()):
        raise InputError(
            "a cut blocks every position: leave at least one for the last position to attend to"
        )
    run = Execution(model, batch, freeze(model, batch, length=n_positions - 1))
    with capture(model, ["resid_pre"]) as clean:
        leaving = run.forward()
    streams = [clean["resid_pre", layer] for layer in range(model.n_layers)] + [leaving]
    blocked = cuts.heads.any(dim=2) & cuts.keys.any(dim=1, keepdim=True)
    begins = torch.where(blocked.any(dim=1), blocked.int().argmax(dim=1), model.n_layers)
    order = begins.argsort(stable=True)
    found = np.empty(len(cuts), dtype=np.float32)
    at_once = rows_within(model, n_positions, memory)
    for start in range(0, len(cuts), at_once):
        listener(progress)("blocking attention", start / len(cuts))
        rows = order[start : start + at_once]
        resid = leaving[:0]
        for block, clean_stream in enumerate(streams):
            joining = int((begins[rows] == block).sum())
            resid = torch.cat([resid, clean_stream.expand(joining, -1, -1)])
            if block == model.n_layers or not len(resid):
                continue
            here = rows[: len(resid)]
            attend = ~(cuts.heads[here, block, :, None, None] & cuts.keys[here, None, None, :])
            resid = run.forward(resid, start=block, stop=block + 1, attend=attend.to(resid.device))
        found[rows.numpy()] = answer_probability(model, resid, answer).cpu().numpy()
    return found


def head_mask(model: LabModel, heads: Sequence[tuple[int, int]]) -> Bool[Tensor, "layer head"]:
    """True at each of some heads.

    Raises:
        InputError: If there is none, or a layer has no such head.
        LayerOutOfRange: If there is no such layer.
    """
    if not heads:
        raise InputError("no heads to block: name at least one (layer, head)")
    mask = torch.zeros(model.n_layers, model.n_heads, dtype=torch.bool)
    for layer, head in heads:
        if not 0 <= head < model.n_heads:
            raise InputError(
                f"head {head} of layer {layer}: {model.name} has heads 0..{model.n_heads - 1}"
            )
        mask[model.layer(layer), head] = True
    return mask


def window_mask(model: LabModel, layer: int, window: int) -> Bool[Tensor, "layer head"]:
    """All heads of the layers around one."""
    mask = torch.zeros(model.n_layers, model.n_heads, dtype=torch.bool)
    start = layer - window // 2
    mask[max(0, start) : start + window] = True
    return mask
